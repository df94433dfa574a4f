"""`python -m biobank_core.cli` is the same as `biobank`."""

from biobank_core.cli import main

main()
