"""Where in Galaxy a piece of data can be read: the id of a dataset that holds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from biobank_core.catalog.port import Catalog
from biobank_core.errors import InputError, NotFoundError, NotPermittedError
from biobank_core.galaxy.client import GalaxyFaultError
from biobank_core.galaxy.reanalysis.server import CampaignServer
from biobank_core.model.base import JsonObject
from biobank_core.model.kinds import Action, DataSample


class Locator:
    """Finds datasets by VID, through the jobs that used or made them; remembers what it found.

    A job's id is all that the catalog keeps of a dataset's place: a dataset has one uuid and any
    number of ids, one a copy.
    """

    def __init__(self, catalog: Catalog, server: CampaignServer, *, server_key: str) -> None:
        self._catalog = catalog
        self._server = server
        self._server_key = server_key
        self._found: dict[str, JsonObject] = {}

    def dataset(self, vid: str) -> JsonObject:
        """What Galaxy tells of a dataset with this DataSample's content: id, state, hashes, ...

        Raises NotFoundError when this account can read none (deleted, purged, somebody else's).
        """
        if vid not in self._found:
            self._found[vid] = self._find(vid)
        return self._found[vid]

    def _find(self, vid: str) -> JsonObject:
        known = self._catalog.get([vid]).get(vid)
        sample = known.object if known else None
        galaxy = sample.galaxy if isinstance(sample, DataSample) else None
        if galaxy is None or galaxy.dataset_uuid is None:
            raise NotFoundError(f"{vid} is no data from Galaxy")
        wanted = _plain_uuid(galaxy.dataset_uuid)
        purged = False
        for job_id in self._jobs(vid):
            try:
                job = self._server.job(job_id)
            except (NotFoundError, NotPermittedError, InputError, GalaxyFaultError):
                continue
            for dataset_id in _ids_of(job, wanted):
                try:
                    dataset = self._server.dataset(dataset_id)
                except (NotFoundError, NotPermittedError, InputError, GalaxyFaultError):
                    continue
                if dataset.get("purged"):
                    purged = True
                else:
                    return dataset
        why = "it was purged" if purged else "it was deleted, or this account may not read it"
        raise NotFoundError(f"Galaxy has no data to read for {vid}: {why}")

    def _jobs(self, vid: str) -> Iterator[str]:
        makers: list[str] = []
        users: list[str] = []
        for referrer in self._catalog.referring([vid], kinds=("Action",)):
            (makers if referrer.field == "outputs" else users).append(referrer.vid)
        # The maker's own dataset first: that is the one with the hash and without a second owner.
        for part in (makers, users):
            for found in self._catalog.get(part).values():
                action = found.object
                if isinstance(action, Action) and action.galaxy is not None:
                    job, server = action.galaxy.job_id, action.galaxy.server
                    if job and server == self._server_key:
                        yield job


def _ids_of(job: Mapping[str, Any], uuid: str) -> Iterator[str]:
    for ports in (job.get("outputs"), job.get("inputs")):
        for port in (ports or {}).values():
            if not isinstance(port, Mapping) or port.get("src", "hda") != "hda":
                continue
            if _plain_uuid(str(port.get("uuid") or "")) == uuid:
                yield str(port["id"])


def _plain_uuid(text: str) -> str:
    return text.replace("-", "").lower()
