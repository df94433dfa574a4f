"""Content that a Galaxy server holds: `galaxy://SERVER/datasets/UUID`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

from biobank_core.catalog.port import Catalog
from biobank_core.errors import NotFoundError, UnreachableError
from biobank_core.fetch.sources import Content, Source
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.galaxy.reanalysis.locate import Locator
from biobank_core.galaxy.reanalysis.server import CampaignServer
from biobank_core.model.base import JsonObject
from biobank_core.model.kinds import DataObject


class GalaxyFiles(Source):
    """Datasets of one server, read as the user whose key the client has.

    `server_key`: what that server is called in the catalog.
    """

    def __init__(self, catalog: Catalog, client: GalaxyClient, *, server_key: str) -> None:
        self._server = CampaignServer(client)
        self._server_key = server_key
        self._locator = Locator(catalog, self._server, server_key=server_key)

    @contextmanager
    def open(self, file: DataObject) -> Iterator[Content]:
        """See Source."""
        host = file.uri.partition("://")[2].partition("/")[0]
        if host != self._server_key:
            raise NotFoundError(
                f"{file.uri} is on the Galaxy server {host!r}, and this one is "
                f"{self._server_key!r}; name the other with --galaxy, or this one with "
                "--galaxy-name"
            )
        dataset = self._locator.dataset(file.sample)
        if dataset.get("state") not in ("ok", "error", None):
            raise NotFoundError(f"{file.sample}: its dataset is {dataset['state']!r} in Galaxy")
        try:
            yield Content(self._server.read(str(dataset["id"])), _sha256(dataset))
        except requests.RequestException as exc:
            raise UnreachableError(
                f"{self._server.url} broke off while {file.sample} was read"
            ) from exc


def _sha256(dataset: JsonObject) -> str | None:
    hashes: list[Any] = dataset.get("hashes") or []
    for entry in hashes:
        if isinstance(entry, dict) and entry.get("hash_function") == "SHA-256":
            return str(entry.get("hash_value") or "").lower() or None
    return None
