"""`biobank record`."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from biobank_core.cli.common import catalog_options, progress, settings_of, stores_of, tsv_cell

if TYPE_CHECKING:
    from biobank_core.galaxy.hashing import Hashed
    from biobank_core.galaxy.recorder import Summary
    from biobank_core.galaxy.refresh import Refreshed
    from biobank_core.galaxy.rounds import LiveRounds
    from biobank_core.galaxy.source import Source

_MAX_TOLD = 20
_SIZE = re.compile(
    r"(?P<number>\d+(\.\d+)?)\s*(?P<prefix>[KMGTP])?(?P<binary>i)?B?", re.IGNORECASE | re.ASCII
)


def _moment(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    """A day or a time with its zone; a day begins in UTC, as Galaxy's own times do."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as exc:
        text = f"{value!r} is no time; write 2026-01-31 or 2026-01-31T12:00:00Z"
        raise click.BadParameter(text) from exc
    if moment.tzinfo is None:
        if len(value) > len("2026-01-31"):
            raise click.BadParameter(f"{value!r} needs a time zone, such as {value}Z")
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC)


def _size(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    """Bytes of `500M`, `2 GB`, `10GiB` or a plain number."""
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; write 500M, 2G, 10GiB or bytes")
    prefixes = " KMGTP"
    base = 1024 if match["binary"] else 1000
    power = prefixes.index((match["prefix"] or " ").upper())
    return int(float(match["number"]) * base**power)


@click.command()
@click.option("--galaxy", metavar="URL", help="The Galaxy server; default: GALAXY_URL.")
@click.option(
    "--galaxy-name",
    metavar="NAME",
    help="What the server is called in the catalog, for ever; default: the host in its URL. "
    "Required with --archive, which does not say where it comes from.",
)
@click.option(
    "--archive",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Record an exported history or invocation (tar.gz, bag.tgz, rocrate.zip) instead of a "
    "server. It is checked as a whole first; nothing of it is put on disk.",
)
@click.option(
    "--study", metavar="LABEL", help="The study of what no rule places; default: 'unassigned'."
)
@click.option(
    "--rules",
    "rules_file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="A YAML file that says which study and which sample Galaxy's data belong to. Without: "
    "a dataset tag biobank:LABEL, or an element identifier that is a vessel's label.",
)
@click.option("--history", metavar="ID", help="Only the jobs of this history.")
@click.option("--invocation", metavar="ID", help="Only the jobs of this workflow invocation.")
@click.option(
    "--since",
    metavar="T",
    callback=_moment,
    help="Only jobs that changed since this day (UTC) or this time.",
)
@click.option(
    "--hashes",
    type=click.Choice(["existing", "none", "compute"]),
    default="existing",
    show_default=True,
    help="The SHA-256 of data: as far as Galaxy has computed it, none, or all: Galaxy is asked to "
    "compute what is missing, also of data recorded earlier. No data leave the server.",
)
@click.option(
    "--max-size",
    "max_bytes",
    metavar="S",
    callback=_size,
    default="10G",
    show_default=True,
    help="With --hashes compute: only of data up to this size, such as 500M or 2T.",
)
@click.option(
    "--refresh",
    is_flag=True,
    help="Ask again about data recorded earlier: what was deleted, purged, renamed or hashed "
    "since. One request a history.",
)
@click.option(
    "--follow",
    is_flag=True,
    help="Go on recording what is new until SIGINT or SIGTERM; says on stderr what was recorded.",
)
@click.option(
    "--interval",
    "interval_s",
    metavar="S",
    type=click.FloatRange(1, 3600),
    default=60,
    show_default=True,
    help="With --follow: how long to wait at most, in seconds, when nothing happens.",
)
@catalog_options
@click.pass_context
def command(
    ctx: click.Context,
    *,
    galaxy: str | None,
    galaxy_name: str | None,
    archive: str | None,
    study: str | None,
    rules_file: str | None,
    history: str | None,
    invocation: str | None,
    since: datetime | None,
    hashes: str,
    max_bytes: int,
    refresh: bool,
    follow: bool,
    interval_s: float,
) -> None:
    """Record the jobs of a Galaxy server, or of an exported archive, as actions.

    The key is GALAXY_API_KEY; an administrator's records the jobs of all users. Run it again, as
    often as you like: it goes on where it was, and nothing is recorded twice. A job that has not
    ended is recorded by a later run. An archive and its server give the same objects: the second
    one fills in what the first did not know.

    With --follow it goes on by itself: it looks again within --interval, or sooner when Galaxy
    says that something changed. When Galaxy is away it says so once and waits. It ends at SIGINT
    or SIGTERM (exit code 0), with what it has in hand saved.
    """
    from biobank_core import addressing  # noqa: PLC0415
    from biobank_core.config import operator  # noqa: PLC0415
    from biobank_core.galaxy import again  # noqa: PLC0415
    from biobank_core.galaxy.live import LiveSource  # noqa: PLC0415
    from biobank_core.galaxy.recorder import Recorder, Scope  # noqa: PLC0415
    from biobank_core.galaxy.refresh import Refresher  # noqa: PLC0415
    from biobank_core.galaxy.rounds import Hashes, LiveRounds  # noqa: PLC0415
    from biobank_core.galaxy.rules import load_rules  # noqa: PLC0415

    rules = load_rules(rules_file)
    which = Hashes(hashes)
    with_hashes = which is not Hashes.NONE
    scope = Scope(history_id=history, invocation_id=invocation, since=since)
    if archive is not None and (follow or refresh or which is Hashes.COMPUTE):
        raise click.UsageError(
            "an archive does not change: it goes without --follow, --refresh, --hashes compute"
        )
    if follow and refresh:
        raise click.UsageError("--refresh goes without --follow: run it beside, when you want to")
    source: Source
    if archive is None:
        source, server = _live(ctx, galaxy, galaxy_name, hashes=with_hashes)
    else:
        if galaxy or history or invocation:
            raise click.UsageError("--archive goes with none of --galaxy, --history, --invocation")
        if not galaxy_name:
            raise click.UsageError("--archive needs --galaxy-name: which server is it from?")
        source, server = _archive(archive, hashes=with_hashes), galaxy_name
    with stores_of(ctx, write=True) as stores:
        study_vid = addressing.study(stores.catalog, study).vid if study else None
        if isinstance(source, LiveSource) and follow:
            rounds = LiveRounds(
                catalog=stores.catalog,
                connect=lambda: source.client,
                server=server,
                scope=scope,
                rules=rules,
                study=study_vid,
                by=operator(),
                hashes=which,
                max_bytes=max_bytes,
            )
            _follow(rounds, interval_s)
            return
        recorder = Recorder(
            stores.catalog,
            source,
            server=server,
            scope=scope,
            rules=rules,
            study=study_vid,
            by=operator(),
        )
        recorder.link_references()
        todo = recorder.prepare()
        with progress("recording", total=len(todo)) as advance:
            summary = recorder.run(todo, advance)
        _tell(summary, click.echo)
        if isinstance(source, LiveSource) and (refresh or which is Hashes.COMPUTE):
            refresher = Refresher(stores.catalog, source, server=server, by=operator())
            if refresh:
                again.refresh(refresher, history_id=history, progress=progress)
                _tell_refreshed(refresher.done, click.echo)
            if which is Hashes.COMPUTE:
                hashed = again.compute_hashes(
                    source, refresher, max_bytes=max_bytes, progress=progress
                )
                _tell_hashed(hashed, click.echo)


def _live(
    ctx: click.Context, galaxy: str | None, galaxy_name: str | None, *, hashes: bool
) -> tuple[Source, str]:
    from biobank_core.galaxy.client import GalaxyClient, server_key  # noqa: PLC0415
    from biobank_core.galaxy.live import LiveSource  # noqa: PLC0415

    settings = settings_of(ctx)
    url = galaxy or settings.require_galaxy_url()
    client = GalaxyClient.connect(url, settings.require_secret("GALAXY_API_KEY").reveal())
    return LiveSource(client, hashes=hashes), galaxy_name or server_key(url)


def _follow(rounds: LiveRounds, interval_s: float) -> None:
    import logging  # noqa: PLC0415

    from biobank_core.cli.common import stopping_at_signals  # noqa: PLC0415
    from biobank_core.galaxy.follow import Follower  # noqa: PLC0415

    # Who follows wants to read what is done, without --verbose's lines about everything else.
    logging.getLogger("biobank_core.galaxy").setLevel(logging.INFO)
    follower = Follower(rounds, interval_s=interval_s)
    rounds.ring = follower.wake
    with rounds, stopping_at_signals(follower.stop):
        done = follower.run()
    for name, number in (
        ("rounds", done.rounds),
        ("recorded", done.recorded),
        ("data linked to samples", done.linked),
    ):
        click.echo(f"{name}\t{number}")


def _archive(path: str, *, hashes: bool) -> Source:
    from pathlib import Path  # noqa: PLC0415

    from biobank_core.galaxy.archive import open_archive  # noqa: PLC0415

    return open_archive(Path(path), hashes=hashes)


def _tell(summary: Summary, say: Callable[..., None]) -> None:
    for name, number in (
        ("jobs seen", summary.seen),
        ("recorded", summary.recorded),
        ("unchanged", summary.unchanged),
        ("not ended yet", summary.waiting),
        ("left out by the rules", summary.left_out),
        ("failed to record", len(summary.failed)),
        ("data linked to samples", summary.linked),
        ("new data unlinked", len(summary.unlinked)),
    ):
        say(f"{name}\t{number}")
    if summary.referenced:
        say(f"references linked since\t{summary.referenced}")
    if summary.unknown_references:
        say(
            f"biobank: {summary.unknown_references} jobs name reference data that are not "
            "registered; `biobank unlinked --references` lists them",
            err=True,
        )
    for job_id, reason in sorted(summary.failed.items())[:_MAX_TOLD]:
        say(f"biobank: job {job_id} was not recorded: {tsv_cell(reason)}", err=True)
    if len(summary.failed) > _MAX_TOLD:
        say(f"biobank: and {len(summary.failed) - _MAX_TOLD} more", err=True)
    for label in sorted(summary.unknown_studies):
        say(f"biobank: the rules name a study that is unknown: {tsv_cell(label)}", err=True)
    if summary.unlinked:
        say("biobank: `biobank unlinked` lists data without a sample", err=True)


def _tell_refreshed(done: Refreshed, say: Callable[..., None]) -> None:
    say(f"data asked again\t{done.data}")
    say(f"objects changed\t{done.changed}")
    if done.differing:
        say(f"biobank: {done.differing} files have another SHA-256 in Galaxy now", err=True)
    if done.hidden:
        say(f"biobank: {len(done.hidden)} histories are not shown to this user", err=True)


def _tell_hashed(done: Hashed, say: Callable[..., None]) -> None:
    for name, number in (
        ("hashes found", done.found),
        ("hashes computed", done.computed),
        ("hashes not there yet", done.late),
        ("data left without hash", done.left_out),
        ("hashes failed", len(done.failed)),
    ):
        say(f"{name}\t{number}")
    for vid, reason in sorted(done.failed.items())[:_MAX_TOLD]:
        say(f"biobank: {vid} has no hash: {tsv_cell(reason)}", err=True)
