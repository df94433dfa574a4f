"""What our own fetching tools brought into a history: copies of what the catalog has already.

Their job is an OBJECT_CLONING whose inputs stand in the manifest that it wrote. Its own action
names all of it; each file has an action more, from its one original: through the job alone
everything that was fetched together would seem to come from all of the originals.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from biobank_core.catalog.port import Catalog
from biobank_core.errors import BiobankError
from biobank_core.fetch import manifest
from biobank_core.galaxy.client import GalaxyFaultError
from biobank_core.galaxy.drafts import Draft
from biobank_core.galaxy.gather import Gathered
from biobank_core.galaxy.records import JobRecord, safe_label
from biobank_core.galaxy.source import Source
from biobank_core.galaxy.translate import PARTIAL
from biobank_core.model.ids import derived_vid
from biobank_core.model.kinds import Action, ActionCategory, DataSample, Port
from biobank_core.selection.tools import matches

TOOLS: Final = ("biobank_fetch_data", "biobank_select_samples")
# Names of the outputs in the tools' XML.
MANIFEST: Final = "manifest"
FILES: Final = "files"
ROLE_ORIGINAL: Final = "original"
# Some 100,000 files; larger ones are recorded as partial.
MAX_MANIFEST_BYTES: Final = 64 * 1024 * 1024


def with_originals(
    drafts: Sequence[Draft],
    jobs: Iterable[JobRecord],
    around: Gathered,
    *,
    source: Source,
    catalog: Catalog,
) -> list[Draft]:
    """The drafts, those of fetching jobs with the originals of what they fetched.

    One whose manifest can't be read, or names what the catalog does not have, is flagged partial.
    Raises UnreachableError when the server is gone.
    """
    by_id = {job.id: job for job in jobs if _fetches(job)}
    return [
        _completed(draft, by_id[draft.job_id], around, source, catalog)
        if draft.action is not None and draft.job_id in by_id
        else draft
        for draft in drafts
    ]


def _fetches(job: JobRecord) -> bool:
    fetching = any(matches(job.tool_id, tool) for tool in TOOLS)
    return fetching and job.state == "ok" and not job.is_cached


def _completed(
    draft: Draft, job: JobRecord, around: Gathered, source: Source, catalog: Catalog
) -> Draft:
    action = draft.action
    assert action is not None
    entries = _entries(job, source)
    fetched = _elements(job, around)
    known = catalog.get({entry.vid for entry in entries or ()})
    originals = {
        fetched[entry.element]: entry.vid
        for entry in entries or ()
        if entry.element in fetched
        and entry.vid in known
        and isinstance(known[entry.vid].object, DataSample)
    }
    whole = entries is not None and originals.keys() >= set(fetched.values())
    roles = {vid: safe_label(element, FILES) for element, vid in fetched.items()}
    copied = tuple(port for port in action.outputs if port.object in originals)
    named = {port.object for port in copied}
    copied += tuple(Port(role=FILES, object=vid) for vid in originals if vid not in named)
    inputs = (Port(role=ROLE_ORIGINAL, object=vid) for vid in originals.values())
    done = msgspec.structs.replace(
        action,
        category=ActionCategory.OBJECT_CLONING,
        inputs=tuple(dict.fromkeys((*action.inputs, *inputs))),
        outputs=tuple(port for port in action.outputs if port.object not in originals),
        without_edge=tuple(dict.fromkeys((*action.without_edge, *copied))),
        flags=action.flags if whole else tuple(dict.fromkeys((*action.flags, PARTIAL))),
    )
    draft = draft.with_action(done)
    for copy, original in originals.items():
        clone = _clone(done, copy, original, role=roles[copy])
        draft.objects[clone.vid] = clone
    return draft


def _entries(job: JobRecord, source: Source) -> list[manifest.Entry] | None:
    """What the manifest says; None where it can't be read."""
    ends = [end for end in job.outputs if end.role == MANIFEST and end.id is not None]
    if len(ends) != 1 or ends[0].id is None:
        return None
    try:
        data = source.content(ends[0].id, limit_bytes=MAX_MANIFEST_BYTES)
        return manifest.parse(data, name=f"manifest of job {job.id}")
    except BiobankError as exc:
        if exc.retryable and not isinstance(exc, GalaxyFaultError):
            raise
        return None


def _elements(job: JobRecord, around: Gathered) -> dict[str | None, str]:
    """Element identifier -> VID, of the list that the job filled."""
    for end in job.output_collections:
        if end.role == FILES and end.key in around.shapes:
            return dict(around.shapes[end.key].items)
    return {}


def _clone(action: Action, copy: str, original: str, *, role: str) -> Action:
    return Action(
        vid=derived_vid("Clone", action.vid, copy),
        category=ActionCategory.OBJECT_CLONING,
        study=action.study,
        device=action.device,
        setup=action.setup,
        status=action.status,
        begin=action.begin,
        end=action.end,
        operator=action.operator,
        inputs=(Port(role=ROLE_ORIGINAL, object=original),),
        outputs=(Port(role=role, object=copy),),
    )
