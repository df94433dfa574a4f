"""Install the Galaxy server that tests and the demo run: `python -m tests.servers.setup_galaxy`.

To move to a newer Galaxy: `pip install galaxy psycopg2-binary` in an empty environment, then
`pip freeze` into galaxy-requirements.lock.
"""

from __future__ import annotations

from pathlib import Path

from tests.servers.cache import virtual_environment

_LOCK = Path(__file__).with_name("galaxy-requirements.lock")


def galaxy_environment() -> Path:
    """Return the virtual environment with Galaxy, installed on the first call (some minutes)."""
    return virtual_environment("galaxy", _LOCK)


if __name__ == "__main__":
    print(galaxy_environment())
