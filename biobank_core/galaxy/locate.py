"""Where a piece of data is on a Galaxy server now."""

from __future__ import annotations

from biobank_core.catalog.port import Catalog
from biobank_core.errors import NotFoundError
from biobank_core.galaxy import identity, wire
from biobank_core.galaxy.client import GalaxyClient
from biobank_core.model.kinds import Action

# A dataset that a hundred jobs used is found through any of them.
_MAX_ACTIONS = 20


def hda_of(client: GalaxyClient, catalog: Catalog, sample: str, *, server: str) -> str:
    """The id of a copy (HDA) of this DataSample on the server `server`.

    Encoded ids are not kept with data, because each copy has its own: a recorded job that names
    the data is asked, the one that made it first. Raises NotFoundError where none tells.
    """
    referrers = list(catalog.referring([sample], kinds=["Action"]))
    referrers.sort(key=lambda found: (found.field != "outputs", found.vid))
    actions = catalog.get(found.vid for found in referrers)
    asked = 0
    for found in referrers:
        action = actions[found.vid].object if found.vid in actions else None
        told = action.galaxy if isinstance(action, Action) else None
        if told is None or told.server != server or told.job_id is None:
            continue
        asked += 1
        if asked > _MAX_ACTIONS:
            break
        try:
            answer = client.get(f"jobs/{told.job_id}", {"full": "true"})
        except NotFoundError:
            continue
        detail = wire.read(answer, wire.JobDetail, f"job {told.job_id}")
        for end in (*(detail.outputs or {}).values(), *(detail.inputs or {}).values()):
            uuid = wire.canonical_uuid(end.uuid)
            if uuid and end.id and identity.data_sample_vid(uuid) == sample:
                return end.id
    raise NotFoundError(f"{sample}: no recorded job of {server} tells where it is there")
