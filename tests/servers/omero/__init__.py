"""A stand-in for OMERO.server: Python servants of its Slice interfaces, PostgreSQL behind them.

OMERO.server itself is in no package registry. Unmodified omero-py and ezomero talk to this over
TLS and plain TCP; tests/conformance holds it to what a genuine server was seen to do. What it does
not implement, it refuses with an error that says so.
"""
