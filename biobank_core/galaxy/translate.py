"""From a job's record to an action: what went in, what was made, and what only passed through.

Galaxy's collection tools and its job cache hand back copies that have the Dataset uuid of what
they got. A copy is the same data: an edge from the input to it would be a cycle, or would make
what was filtered out look like an ancestor. So copies keep their role in `without_edge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from biobank_core.errors import InputError
from biobank_core.galaxy import identity
from biobank_core.galaxy.parameters import setup_parameters
from biobank_core.galaxy.records import CollectionEnd, JobRecord, safe_label
from biobank_core.galaxy.rules import ToolRule
from biobank_core.galaxy.shapes import Shape
from biobank_core.model.galaxy import GalaxyJob
from biobank_core.model.kinds import (
    Action,
    ActionCategory,
    ActionSetup,
    ActionStatus,
    Port,
    SoftwareProgram,
)
from biobank_core.selection.tools import without_version

PARTIAL: Final = "partial"
CYCLE: Final = "cycle"
AMBIGUOUS: Final = "ambiguous-identity"


class Translated(msgspec.Struct, frozen=True, kw_only=True):
    """What one job becomes. `device` is used unless one of that label and release is there."""

    action: Action
    setup: ActionSetup | None
    device: SoftwareProgram


def action_vid_of(job: JobRecord, *, server: str, ambiguous: bool = False) -> str:
    """The VID of the job's action."""
    least = None
    if ambiguous:
        least = min((end.uuid for end in job.outputs if end.uuid), default="")
    return identity.action_vid(server, job.tool_id, job.create_time, least_output=least)


def translate(
    job: JobRecord,
    *,
    server: str,
    study: str,
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    rule: ToolRule | None = None,
    ambiguous: bool = False,
    keep_ids: bool = True,
) -> Translated:
    """The action of a job in a final state.

    `inputs` and `outputs` are the shapes of its collections by their keys; one that is missing is
    not known. `keep_ids`: its ids are those of the server's API. Raises InputError for a job whose
    state is none of ours or that JSON can't hold.
    """
    vid = action_vid_of(job, server=server, ambiguous=ambiguous)
    flags = [AMBIGUOUS] if ambiguous else []
    given = {identity.data_sample_vid(end.uuid) for end in job.inputs if end.uuid}
    used = _used_collections(job, inputs)
    for _, shape in used:
        given |= shape.leaves.keys() | {inner.vid for _, inner in shape.with_inner()}
    made, passed = _outputs(job, outputs, given)
    ends = (*job.inputs, *job.outputs)
    shapes = (*(shape for _, shape in used), *outputs.values())
    roles = {end.role for end in job.inputs}
    lost = any(end.key not in inputs and end.role not in roles for end in job.input_collections)
    if (
        job.partial
        or lost
        or any(e.uuid is None for e in ends)
        or not all(shape.complete for shape in shapes)
    ):
        flags.append(PARTIAL)
    device = SoftwareProgram(
        vid=identity.device_vid(job.tool_id, job.tool_version),
        label=safe_label(without_version(job.tool_id), "unknown tool"),
        release=job.tool_version,
    )
    setup = _setup(job)
    begin, end, times_from = _times(job)
    category = ActionCategory.IMPORT if job.is_upload else ActionCategory.PROCESSING
    action = Action(
        vid=vid,
        category=rule.category if rule and rule.category else category,
        study=study,
        device=device.vid,
        setup=setup.vid,
        status=_status(job),
        begin=begin,
        end=end,
        operator=job.user,
        inputs=_distinct(_input_ports(job, used)),
        outputs=_distinct(made),
        without_edge=_distinct(passed),
        flags=tuple(flags),
        galaxy=_galaxy(job, server, times_from, keep_ids=keep_ids),
    )
    return Translated(action=action, setup=setup, device=device)


def without_cycle(action: Action, closing: Iterable[str]) -> Action:
    """The action without the edges to these outputs, flagged."""
    wrong = set(closing)
    return msgspec.structs.replace(
        action,
        outputs=tuple(port for port in action.outputs if port.object not in wrong),
        without_edge=_distinct(
            [*action.without_edge, *(p for p in action.outputs if p.object in wrong)]
        ),
        flags=tuple(dict.fromkeys((*action.flags, CYCLE))),
    )


def _used_collections(
    job: JobRecord, shapes: Mapping[str, Shape]
) -> list[tuple[CollectionEnd, Shape]]:
    """The collections that went in whole: all that is in them is among the job's inputs."""
    by_role: dict[str, set[str]] = {}
    for end in job.inputs:
        if end.uuid:
            by_role.setdefault(end.role, set()).add(identity.data_sample_vid(end.uuid))
    return [
        (end, shape)
        for end in job.input_collections
        if (shape := shapes.get(end.key)) is not None
        and shape.leaves.keys() <= by_role.get(end.role, set())
    ]


def _input_ports(job: JobRecord, used: list[tuple[CollectionEnd, Shape]]) -> list[Port]:
    ports = [Port(role=end.role, object=shape.vid) for end, shape in used]
    covered = {(end.role, leaf) for end, shape in used for leaf in shape.leaves}
    for end in job.inputs:
        if end.uuid:
            vid = identity.data_sample_vid(end.uuid)
            if (end.role, vid) not in covered:
                ports.append(Port(role=end.role, object=vid))
    return ports


def _outputs(
    job: JobRecord, shapes: Mapping[str, Shape], given: set[str]
) -> tuple[list[Port], list[Port]]:
    """(outputs that were made, those that make no edge)."""
    made: list[Port] = []
    passed: list[Port] = []
    cached = job.is_cached
    for end in job.outputs:
        if end.uuid:
            port = Port(role=end.role, object=identity.data_sample_vid(end.uuid))
            (passed if cached or port.object in given else made).append(port)
    for collection in job.output_collections:
        shape = shapes.get(collection.key)
        if shape is None:
            continue
        port = Port(role=collection.role, object=shape.vid)
        if cached or shape.vid in given or (shape.leaves and shape.leaves.keys() <= given):
            passed.append(port)
        elif not shape.leaves:
            made.append(port)
        # Else it hangs on its elements by COLLECTED_IN: through the collection each element would
        # seem to come from the inputs of all of them.
    return made, passed


def _distinct(ports: Iterable[Port]) -> tuple[Port, ...]:
    return tuple(dict.fromkeys(ports))


def _setup(job: JobRecord) -> ActionSetup:
    parameters = setup_parameters(job.parameters, tool_id=job.tool_id)
    try:
        return ActionSetup(vid=identity.setup_vid(parameters), parameters=parameters)
    except ValueError as exc:
        raise InputError(f"job {job.id}: {exc}", field="params") from exc


def _status(job: JobRecord) -> ActionStatus:
    try:
        return ActionStatus(job.state)
    except ValueError as exc:
        raise InputError(
            f"job {job.id}: not a final state", field="state", value=job.state
        ) from exc


def _times(job: JobRecord) -> tuple[datetime, datetime, str]:
    if job.begin is not None and job.end is not None:
        return job.begin, job.end, "metrics"
    return job.create_time, max(job.create_time, job.update_time), "job"


def _galaxy(job: JobRecord, server: str, times_from: str, *, keep_ids: bool) -> GalaxyJob:
    invocation = job.invocation
    return GalaxyJob(
        server=server,
        job_id=job.id if keep_ids else None,
        tool_id=job.tool_id,
        tool_version=job.tool_version,
        tool_version_source=job.tool_version_source.value if job.tool_version_source else None,
        state=job.state,
        exit_code=job.exit_code,
        user=job.user,
        galaxy_version=job.galaxy_version,
        history_id=job.history_id if keep_ids else None,
        invocation_id=invocation.id if invocation else None,
        workflow_id=invocation.workflow_id if invocation else None,
        workflow_version=invocation.workflow_version if invocation else None,
        step_label=invocation.step_label if invocation else None,
        cached_from=job.cached_from,
        times_from=times_from,
    )
