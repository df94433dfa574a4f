"""Everything that speaks with Galaxy: the client, the recorder and the campaigns."""
