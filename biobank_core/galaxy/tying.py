"""Data of a Galaxy history tied to vessels or individuals, before or after they are recorded.

What is tied are the inputs of a job that is still running: the tool with which a person chose them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from biobank_core import addressing
from biobank_core.catalog.port import Catalog
from biobank_core.errors import AmbiguousError, InputError, NotFoundError
from biobank_core.galaxy import identity, wire
from biobank_core.galaxy.drafts import Draft, Drafter
from biobank_core.galaxy.gather import Gathered, Gatherer
from biobank_core.galaxy.linking import link_action
from biobank_core.galaxy.records import JobRecord
from biobank_core.galaxy.rules import Rules
from biobank_core.galaxy.saving import Saver
from biobank_core.galaxy.shapes import Shape
from biobank_core.galaxy.source import Source
from biobank_core.galaxy.studies import Studies
from biobank_core.model.base import Object
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    DataCollection,
    DataObject,
    DataSample,
    Enrollment,
    Vessel,
)

_KINDS: Final = ("Vessel", "Individual")
# Where a job may be when its program runs: a cluster tells Galaxy late that it began.
_AT_WORK: Final = ("running", "queued", "new")
_TRIES: Final = 30
_PAUSE_S: Final = 1.0
_MAX_LISTED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Tie:
    """One piece of data and its sample. `identifiers`: those of its collections, from outside in.

    `label` is what the data are called; `new`: it was not tied to this sample before.
    """

    identifiers: tuple[str, ...]
    data: str
    label: str
    sample: str
    action: str
    new: bool


def job_with_output(source: Source, *, history_id: str, uuid: str) -> JobRecord:
    """The job at work in this history that is to fill the dataset with this Dataset uuid.

    Raises NotFoundError where there is none within half a minute.
    """
    wanted = wire.canonical_uuid(uuid)
    if wanted is None:
        raise InputError("is no uuid of a dataset", field="inputs-of", value=uuid)
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)
        for row in source.jobs(history_id=history_id, states=_AT_WORK):
            job = source.job(row.id)
            if any(end.uuid == wanted for end in job.outputs):
                return job
    raise NotFoundError(
        f"no job at work in history {history_id} puts out the dataset {wanted}, or Galaxy does not "
        "show it to this user"
    )


def tie_inputs(
    catalog: Catalog,
    source: Source,
    job: JobRecord,
    *,
    server: str,
    parameter: str,
    study: str | None,
    sample: str | None,
    kinds: Sequence[str] = _KINDS,
    category: ActionCategory,
    by: str,
) -> list[Tie]:
    """Tie what went into a job as `parameter` to samples; all of it, or nothing.

    `sample` is the address of the one sample of all of it. Without, each piece of data belongs to
    the vessel of `study` (a VID) whose label is one of its element identifiers, or its name where
    it is in no collection; or to the individual with that code. `kinds` narrows what is meant.
    Data that the catalog does not know are described there, in `study` or that of the sample.
    Raises NotFoundError, AmbiguousError, InputError.
    """
    one = addressing.resolve(catalog, sample, kinds=kinds).object if sample is not None else None
    if study is None and isinstance(one, Vessel):
        study = one.study
    if study is None:
        raise InputError("which study do the data belong to?", field="study")
    asked = _only(job, parameter)
    gatherer = Gatherer(source=source, catalog=catalog, server=server)
    around = gatherer.around([asked], ambiguous=lambda _: False)
    named = _named(asked, around)
    studies = Studies(catalog, Rules(), source, fallback=study)
    objects = _described(asked, around, server=server, studies=studies, study=study)
    if one is not None:
        samples = dict.fromkeys(named, one.vid)
    else:
        found = {vid: path or (_label(vid, objects, around),) for vid, path in named.items()}
        samples = _samples(catalog, study, found, kinds)
    begin = datetime.now(UTC)
    links = {
        vid: link_action(
            data=vid,
            sample=samples[vid],
            study=study,
            begin=begin,
            category=category,
            operator=by,
        )
        for vid in named
    }
    standing = catalog.get({link.vid for link in links.values()})
    known = {vid for vid, item in standing.items() if isinstance(item.object, Action)}
    new = {link.vid: link for link in links.values() if link.vid not in known}
    saver = Saver(catalog=catalog, unassigned=studies.unassigned, by=by)
    saver.save_whole([Draft("", None, {**objects, **new})])
    return [
        Tie(
            identifiers=path,
            data=vid,
            label=_label(vid, objects, around),
            sample=samples[vid],
            action=links[vid].vid,
            new=links[vid].vid in new,
        )
        for vid, path in named.items()
    ]


def _only(job: JobRecord, parameter: str) -> JobRecord:
    """The job as if it had ended, with nothing but the inputs of one parameter."""

    def is_it(role: str) -> bool:
        return role.rpartition("|")[2] == parameter

    return msgspec.structs.replace(
        job,
        state="ok",
        inputs=tuple(end for end in job.inputs if is_it(end.role)),
        input_collections=tuple(end for end in job.input_collections if is_it(end.role)),
        outputs=(),
        output_collections=(),
    )


def _described(
    job: JobRecord, around: Gathered, *, server: str, studies: Studies, study: str
) -> dict[str, Object]:
    """What the job's inputs are, by VID; nothing of the job itself."""
    drafter = Drafter(
        server=server,
        rules=Rules(),
        study_of=studies.of,
        unassigned=studies.unassigned,
        ambiguous=lambda _: False,
    )
    draft = drafter.draft(job, around)
    kinds = (DataSample, DataObject, DataCollection)
    objects: dict[str, Object] = {
        vid: obj for vid, obj in draft.objects.items() if isinstance(obj, kinds)
    }
    for vid, known in around.known.items():
        # Recorded by somebody who did not know the study.
        if isinstance(known.object, DataSample) and known.object.study == studies.unassigned:
            objects[vid] = msgspec.structs.replace(known.object, study=study)
    return objects


def _named(job: JobRecord, around: Gathered) -> dict[str, tuple[str, ...]]:
    """VID of each piece of data -> its element identifiers, from the outside in; none: ()."""
    found: dict[str, tuple[str, ...]] = {}
    for end in job.input_collections:
        shape = around.shapes.get(end.key)
        if end.key in around.growing or (shape is not None and not shape.complete):
            raise InputError("is not known whole to Galaxy: it may still grow", field=end.role)
        for path, vid in _leaves(shape) if shape else ():
            # The same data in two places: all of its identifiers, which must agree.
            found[vid] = (*found.get(vid, ()), *path)
    for one in job.inputs:
        if one.uuid is None:
            raise InputError("holds data without an identity of their own", field=one.role)
        found.setdefault(identity.data_sample_vid(one.uuid), ())
    return found


def _leaves(shape: Shape) -> Iterator[tuple[tuple[str, ...], str]]:
    inner = dict(shape.inner)
    for identifier, vid in shape.items:
        if identifier in inner:
            for path, leaf in _leaves(inner[identifier]):
                yield (identifier, *path), leaf
        else:
            yield (identifier,), vid


def _label(vid: str, objects: Mapping[str, Object], around: Gathered) -> str:
    known = around.known.get(vid)
    described = known.object if known is not None else objects.get(vid)
    return described.label if isinstance(described, DataSample) else ""


def _samples(
    catalog: Catalog,
    study: str,
    wanted: Mapping[str, tuple[str, ...]],
    kinds: Iterable[str],
) -> dict[str, str]:
    """The one sample that each piece of data names; raises for the first ones that name none."""
    names = tuple(sorted({name for path in wanted.values() for name in path if name}))
    found: dict[str, set[str]] = {}
    if "Vessel" in kinds and names:
        for item in catalog.find("Vessel", {"study": study, "label": names}):
            if isinstance(item.object, Vessel):
                found.setdefault(item.object.label, set()).add(item.object.vid)
    if "Individual" in kinds and names:
        for item in catalog.find("Enrollment", {"study": study, "code": names}):
            if isinstance(item.object, Enrollment):
                found.setdefault(item.object.code, set()).add(item.object.individual)
    samples: dict[str, str] = {}
    unknown: list[str] = []
    for vid, path in wanted.items():
        meant = {sample for name in path for sample in found.get(name, ())}
        if len(meant) > 1:
            raise AmbiguousError(
                f"{'/'.join(path)!r} fits several samples of the study: {', '.join(sorted(meant))}"
            )
        if not meant:
            unknown.append("/".join(path))
        samples[vid] = next(iter(meant), "")
    if unknown:
        listed = ", ".join(map(repr, unknown[:_MAX_LISTED]))
        more = f" and {len(unknown) - _MAX_LISTED} more" if len(unknown) > _MAX_LISTED else ""
        raise NotFoundError(
            f"no vessel and no individual of the study is called {listed}{more}, or may not be "
            "read; nothing was tied"
        )
    return samples
