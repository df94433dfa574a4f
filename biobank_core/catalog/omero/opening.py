"""From a URL and an account to an opened catalog."""

from __future__ import annotations

from collections.abc import Callable

from biobank_core.catalog.omero.address import account, parse
from biobank_core.catalog.omero.catalog import OmeroCatalog
from biobank_core.catalog.omero.session import Session
from biobank_core.errors import InputError, StorageError


def open_at(url: str, *, create: bool, named: Callable[[str], str | None]) -> OmeroCatalog:
    """See `open_catalog`."""
    address = parse(url)
    session = Session(address, account(named))
    try:
        catalog = OmeroCatalog(session)
        if create:
            catalog.migrate()
        elif not catalog.schema_version():
            for text in catalog.damage():
                raise StorageError(text)
            raise InputError("holds no catalog; `biobank init` makes one", value=address.url)
    except BaseException:
        session.close()
        raise
    return catalog
