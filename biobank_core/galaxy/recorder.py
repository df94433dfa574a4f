"""Galaxy's jobs into the catalog: list, details, translate, merge, save; resumable at any kill.

Jobs are recorded oldest first, some dozens a unit, each unit with the cursor that says how far it
goes. The cursor passes a job that has not ended, or that Galaxy could not show, by remembering its
id: it is asked for again in every later run, however old it is by then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from biobank_core.catalog.port import Catalog
from biobank_core.errors import BiobankError, InputError, NotFoundError
from biobank_core.galaxy import identity, wire
from biobank_core.galaxy.cursors import OVERLAP, Scope, Todo, cursor_after, name_of
from biobank_core.galaxy.drafts import Draft, Drafter
from biobank_core.galaxy.fetched import with_originals
from biobank_core.galaxy.gather import Gatherer
from biobank_core.galaxy.matching import match
from biobank_core.galaxy.records import FINAL_STATES, JobRecord, utc
from biobank_core.galaxy.references import References, link_pending, with_references
from biobank_core.galaxy.rules import Rules
from biobank_core.galaxy.saving import Saver
from biobank_core.galaxy.source import Source
from biobank_core.galaxy.studies import Studies
from biobank_core.galaxy.summary import Summary
from biobank_core.galaxy.translate import action_vid_of
from biobank_core.galaxy.unrecorded import wanted
from biobank_core.model.kinds import Action, ActionSetup, Cursor, DataObject

__all__ = ["JOBS_A_UNIT", "OVERLAP", "Recorder", "Scope", "Summary", "Todo", "record"]

# A collection that was not filled by then never will be: a job that should have failed.
GROWING_AT_MOST: Final = timedelta(days=1)
# A unit stays small enough for every catalog (OMERO: 1,000 annotations).
JOBS_A_UNIT: Final = 40

# Galaxy's states (galaxy/schema/schema.py, JobState) in which a job has not ended.
_WAITING_STATES: Final = (
    "deleting",
    "new",
    "paused",
    "queued",
    "resubmitted",
    "running",
    "stop",
    "upload",
    "waiting",
)


class Recorder:
    """One recording of one server, or of an archive, which needs no cursor.

    `study`: VID of the study for what no rule places.

    `prepare` asks what there is to do, `run` does it.
    """

    def __init__(
        self,
        catalog: Catalog,
        source: Source,
        *,
        server: str,
        scope: Scope,
        rules: Rules,
        study: str | None,
        by: str,
    ) -> None:
        self._catalog = catalog
        self._source = source
        self._server = server
        self._scope = scope
        self._rules = rules
        self._by = by
        self._studies = Studies(catalog, rules, source, fallback=study)
        self._gatherer = Gatherer(
            source=source, catalog=catalog, server=server, sheets=rules.reads_sheets
        )
        self._references = References(catalog, rules)
        self._ambiguous: set[str] = set()
        self._times: dict[str, datetime] = {}
        self._not_now: Collection[str] = ()
        # The jobs that the rules leave out, of those that `prepare` was shown.
        self.unwanted: set[str] = set()
        self.summary = Summary()
        told = f"{rules.fingerprint()} {study} {source.hashes}"
        self._cursor_name = name_of(server, source.client.user, scope, told)
        self._saver = Saver(
            catalog=catalog,
            unassigned=self._studies.unassigned,
            by=by,
            cursor=self._standing_cursor() if source.live else None,
        )

    def prepare(
        self,
        not_now: Collection[str] = (),
        *,
        unwanted: Collection[str] = (),
        ask_waiting: bool = True,
    ) -> list[Todo]:
        """What there is to do, oldest first: one list request, or one a page of many jobs.

        `not_now` are ids of jobs that could not be recorded before, to be left for a later run;
        `unwanted` of those that the rules are known to leave out: their histories are not asked.
        Without `ask_waiting` the jobs that earlier runs left waiting are looked at only where the
        list shows them: so it does when they end, but for those whose time does not move.
        """
        rows = sorted(self._first_list(), key=lambda row: (row.update_time, row.id))
        self._note_twins(rows)
        self._times = {row.id: utc(row.update_time) for row in rows}
        cursor = self._saver.cursor
        seen = set(cursor.seen_job_ids) if cursor else set()
        # The cursor remembers them: nothing is lost by leaving them out.
        self._not_now = {i for i in not_now if cursor and i in cursor.waiting_job_ids}
        ended = self._ended_meanwhile(cursor) if ask_waiting else []
        todo = [Todo(job_id, None) for job_id in ended]
        self.summary.failed |= self._source.odd_rows
        self.summary.seen += len(self._source.odd_rows)
        for row in rows:
            self.summary.seen += 1
            if row.id in seen or row.id in self._not_now:
                continue
            if row.id in unwanted or not wanted(self._rules, self._source, row):
                self.unwanted.add(row.id)
                self.summary.left_out += 1
                continue
            todo.append(Todo(row.id, utc(row.update_time), row.state in FINAL_STATES))
        return todo

    def these(self, rows: Sequence[wire.JobRow]) -> list[Todo]:
        """Just these jobs, wherever the cursor stands; instead of `prepare`."""
        self._note_twins(rows)
        self.summary.seen += len(rows)
        return [Todo(row.id, None) for row in rows]

    def run(
        self,
        todo: Sequence[Todo],
        advance: Callable[[int], object] | None = None,
        *,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Summary:
        """Record them. `advance` is told how many jobs each step dealt with.

        When `stopped` tells so, the unit in hand is the last one. Raises UnreachableError when
        the server is gone. What was saved by then stays, and the next run goes on there.
        """
        for start in range(0, len(todo), JOBS_A_UNIT):
            if stopped():
                break
            batch = todo[start : start + JOBS_A_UNIT]
            self._record(batch)
            if advance is not None:
                advance(len(batch))
        else:
            self._pass_what_was_left_out()
        cursor = self._saver.cursor
        waiting = set(cursor.waiting_job_ids if cursor else ())
        if not self._source.live:
            waiting = {job.job_id for job in todo if not job.ended}
        self.summary.waiting = len(waiting - self.summary.failed.keys() - set(self._not_now))
        return self.summary

    def _pass_what_was_left_out(self) -> None:
        """Move the cursor past jobs that the rules leave out: else every run would list them."""
        cursor, newest = self._saver.cursor, max(self._times.values(), default=None)
        if cursor is None or newest is None or newest - cursor.position <= OVERLAP:
            return
        moved = cursor_after(
            cursor,
            [],
            name=self._cursor_name,
            times=self._times,
            waiting=(),
            failed=(),
            position=newest,
        )
        self._saver.save([], moved)

    def _record(self, batch: Sequence[Todo]) -> None:
        ended = [todo.job_id for todo in batch if todo.ended]
        records, failed = self._gatherer.jobs(ended)
        jobs = [
            records[job_id]
            for job_id in ended
            if job_id in records and records[job_id].state in FINAL_STATES
        ]
        waiting = {todo.job_id for todo in batch} - {job.id for job in jobs} - failed.keys()
        self._note_standing_twins(jobs)
        around = self._gatherer.around(jobs, ambiguous=self._is_ambiguous)
        drafter = Drafter(
            server=self._server,
            rules=self._rules,
            study_of=self._studies.of,
            unassigned=self._studies.unassigned,
            ambiguous=self._is_ambiguous,
            keep_ids=self._source.live,
        )
        drafts: list[Draft] = []
        for job in jobs:
            try:
                drafts.append(drafter.draft(job, around))
            except (BiobankError, ValueError) as exc:
                failed[job.id or ""] = str(exc)
        drafts = with_originals(
            self._with_references(drafts), jobs, around, source=self._source, catalog=self._catalog
        )
        matches = match(
            self._catalog,
            self._rules,
            drafter.candidates,
            actions=[
                obj for draft in drafts for obj in draft.objects.values() if isinstance(obj, Action)
            ],
            operator=self._by,
        )
        studies = [Draft("", None, {study.vid: study}) for study in self._studies.take_new()]
        links = [Draft("", None, {link.vid: link}) for link in matches.links]
        # Recorded, and looked at again when Galaxy has filled the collection.
        waiting |= {job.id or "" for job in jobs if self._grows(job, around.growing)}
        cursor = None
        if self._source.live:
            cursor = cursor_after(
                self._saver.cursor,
                batch,
                name=self._cursor_name,
                times=self._times,
                waiting=waiting,
                failed=failed,
            )
        done = self._saver.save([*studies, *drafts, *links], cursor)
        failed |= done.failed
        summary = self.summary
        summary.recorded += len(done.recorded)
        summary.unchanged += len(done.unchanged)
        summary.failed |= failed
        summary.linked += len(matches.links)
        linked = {port.object for link in matches.links for port in link.outputs}
        summary.unlinked = (summary.unlinked | set(matches.unlinked)) - linked
        files = (obj for draft in drafts for obj in draft.objects.values())
        summary.without_hash |= {
            file.sample for file in files if isinstance(file, DataObject) and file.sha256 is None
        }
        summary.unknown_studies |= self._studies.unknown

    def _with_references(self, drafts: list[Draft]) -> list[Draft]:
        if not self._rules.references:
            return drafts
        parameters = {
            obj.vid: obj.parameters
            for draft in drafts
            for obj in draft.objects.values()
            if isinstance(obj, ActionSetup)
        }
        actions = [draft.action for draft in drafts if draft.action]
        answers = self._references.of(
            [(action, parameters.get(action.setup or "", {})) for action in actions]
        )
        found: list[Draft] = []
        for draft in drafts:
            if draft.action and draft.action.vid in answers:
                ports, unknown = answers[draft.action.vid]
                after = with_references(draft.action, ports, unknown=unknown)
                draft = replace(draft.with_action(after), references=ports)  # noqa: PLW2901
                self.summary.unknown_references += unknown
            found.append(draft)
        return found

    def link_references(self) -> None:
        """Give actions of earlier recordings the references that were registered since.

        Reads all actions of the server once, if the rules know of references at all.
        """
        if self._rules.references:
            self.summary.referenced += link_pending(
                self._catalog, self._rules, server=self._server, by=self._by
            )

    def _first_list(self) -> list[wire.JobRow]:
        scope = self._scope
        wanted = f"history {scope.history_id}" if scope.history_id else None
        wanted = f"invocation {scope.invocation_id}" if scope.invocation_id else wanted
        unknown = f"{wanted}: Galaxy does not know it, or does not show it to this user"
        try:
            rows = list(self._listed(self._since()))
        except (NotFoundError, InputError) as exc:
            if wanted is None:
                raise
            raise NotFoundError(unknown) from exc
        if scope.history_id and not rows and self._saver.cursor is None:
            # Galaxy lists no jobs of a history that does not exist, too.
            self._source.check_history(scope.history_id, unknown)
        return rows

    def _grows(self, job: JobRecord, growing: frozenset[str]) -> bool:
        if job.state != "ok" or not any(end.key in growing for end in job.output_collections):
            return False
        newest = max(self._times.values(), default=job.update_time)
        return newest - job.update_time < GROWING_AT_MOST

    def _listed(self, since: datetime | None, states: Iterable[str] = ()) -> Iterable[wire.JobRow]:
        return self._source.jobs(
            history_id=self._scope.history_id,
            invocation_id=self._scope.invocation_id,
            since=since,
            states=states,
        )

    def _since(self) -> datetime | None:
        cursor = self._saver.cursor
        times = [self._scope.since] if self._scope.since else []
        if cursor is not None:
            times.append(cursor.position - OVERLAP)
        return max(times, default=None)

    def _ended_meanwhile(self, cursor: Cursor | None) -> list[str]:
        """Jobs that earlier runs waited for, that are not in the list, and that wait no more."""
        known = cursor.waiting_job_ids if cursor else ()
        waiting = [i for i in known if i not in self._times and i not in self._not_now]
        if not waiting:
            return []
        still = {row.id for row in self._listed(None, _WAITING_STATES)}
        return [job_id for job_id in waiting if job_id not in still]

    def _note_twins(self, rows: Sequence[wire.JobRow]) -> None:
        """Jobs of one tool made in the same microsecond: their VIDs need one thing more."""
        groups: dict[tuple[str, datetime], list[str]] = {}
        for row in rows:
            groups.setdefault((row.tool_id or "", row.create_time), []).append(row.id)
        for ids in groups.values():
            if len(ids) > 1:
                self._ambiguous.update(ids)

    def _note_standing_twins(self, jobs: Sequence[JobRecord]) -> None:
        if not self._source.live:
            # Ids can't be compared: told apart only where a server's recording did so before.
            apart = {
                action_vid_of(job, server=self._server, ambiguous=True): job.id for job in jobs
            }
            self._ambiguous.update(apart[vid] or "" for vid in self._catalog.get(apart))
            return
        vids = {action_vid_of(job, server=self._server): job.id for job in jobs}
        for vid, standing in self._catalog.get(vids).items():
            action = standing.object
            known = action.galaxy if isinstance(action, Action) else None
            job_id = vids[vid]
            if known and job_id and known.job_id not in (None, job_id):
                self._ambiguous.add(job_id)

    def _is_ambiguous(self, job_id: str) -> bool:
        return job_id in self._ambiguous

    def _standing_cursor(self) -> Cursor | None:
        vid = identity.cursor_vid(self._cursor_name)
        standing = self._catalog.get([vid]).get(vid)
        return standing.object if standing and isinstance(standing.object, Cursor) else None


def record(
    catalog: Catalog,
    source: Source,
    *,
    server: str,
    history_id: str | None = None,
    invocation_id: str | None = None,
    since: datetime | None = None,
    study: str | None = None,
    rules: Rules | None = None,
    by: str = "recorder",
) -> Summary:
    """Record all jobs of the user's Galaxy, or those of one history or invocation.

    `server` is the server key (`client.server_key(url)` unless it has a name of its own); `study`
    the VID of the study for what no rule places. What was recorded before is not asked again.
    """
    recorder = Recorder(
        catalog,
        source,
        server=server,
        scope=Scope(history_id=history_id, invocation_id=invocation_id, since=since),
        rules=rules or Rules(),
        study=study,
        by=by,
    )
    recorder.link_references()
    return recorder.run(recorder.prepare())
