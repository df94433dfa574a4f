"""`python -m sync_service`: the same as `biobank-sync`."""

from sync_service.cli import main

main()
