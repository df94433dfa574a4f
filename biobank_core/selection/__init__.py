"""Which samples a change touches: by tool, release, time and consent, each with its reason."""
