"""The whole demonstration: `python -m examples.demo.run` (or `make demo`).

A real Galaxy and real genomes: record, ask the lineage, select, reanalyse, report. It checks what
it claims and exits with 1 when something is not so.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from bioblend import ConnectionError as BioblendError
from bioblend.galaxy import GalaxyInstance

from examples.demo.laboratory import Laboratory
from examples.demo.prepare import (
    NEW_RELEASE,
    OLD_RELEASE,
    TOOLS,
    WORKFLOW,
    DemoError,
    Prepared,
    install_new_kleborate,
    prepare,
    provide_old_kleborate,
)
from examples.demo.terminal import Terminal, end, table
from tests.servers.galaxy import GalaxyServer
from tests.servers.processes import ServerError

TABLES = Path(__file__).with_name("tables")
OUTPUT = Path("demo-output")

# Which tube each isolate is in; as in tables/tubes.tsv.
TUBES = {"KP-01": "HS11286", "KP-02": "Kp1084", "KP-03": "MGH78578", "KP-04": "NTUH-K2044"}
WITHDRAWN = "KP-04"
CAMPAIGN = "Kleborate 3"
ANALYST = "ada@biobank.example"
# The old results are those of 2.x.
SELECTION = ("--study", "KPN", "--tool", "kleborate_typing", "--release", "<3")

# When the campaign is killed, from when Galaxy has begun its first sample on: with jobs of half a
# minute, before its end.
_KILL_WITHIN_S = 10.0
_BEGINS_WITHIN_S = 300.0


def main() -> int:
    """Run all steps; 0 when every claim held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    servers = parser.add_mutually_exclusive_group()
    servers.add_argument(
        "--full", action="store_true", help="with RabbitMQ, and Neo4j as the lineage index"
    )
    servers.add_argument(
        "--omero",
        action="store_true",
        help="with the catalog on OMERO: the server that OMERO_TEST_URL names, else a stand-in",
    )
    parser.add_argument("--seed", type=int, help="of the moment at which the campaign is killed")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    seed = arguments.seed if arguments.seed is not None else random.randrange(10_000)  # noqa: S311
    try:
        with ExitStack() as running:
            chosen = Demo
            if arguments.full:
                # Its servers' libraries are extras.
                from examples.demo.full import FullDemo  # noqa: PLC0415

                chosen = FullDemo
            elif arguments.omero:
                from examples.demo.omero import OmeroDemo  # noqa: PLC0415

                chosen = OmeroDemo
            chosen(arguments.output.absolute(), running, seed=seed).run()
    except KeyboardInterrupt:
        print("\ninterrupted; everything that the demo started has been stopped", file=sys.stderr)
        return 130
    except subprocess.CalledProcessError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except (DemoError, ServerError, BioblendError, RuntimeError, OSError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    return 0


class Demo:
    """The seven steps. What has to be stopped at the end is put on `running`."""

    # For `biobank lineage`.
    lineage_options: tuple[str, ...] = ()

    def __init__(self, output: Path, running: ExitStack, *, seed: int) -> None:
        self._output = output
        self._running = running
        self._random = random.Random(seed)  # noqa: S311  # no secret
        self._seed = seed
        catalog = f"sqlite:///{output}/biobank.db"
        self._terminal = Terminal({"BIOBANK_CATALOG": catalog}, steps=7)
        self._report = output / "report.html"
        self._picture = output / "lineage.svg"
        self._facts: list[str] = []

    def run(self) -> None:
        """Do all of it."""
        step = self._terminal.step
        with step("Prepare the genomes and the two releases of Kleborate"):
            prepared = prepare()
            for name, path in prepared.genomes.items():
                self._terminal.say(f"{name}: {path.stat().st_size / 1e6:.1f} MB")
            self._new_output_folder()
        with step("Start Galaxy with PostgreSQL and a celery worker, in a folder of its own"):
            server = self._start_galaxy()
            self.start_services()
        with step("Register isolates, consents, tubes; type the genomes in Galaxy"):
            self._register()
            laboratory = self._type_genomes(server, prepared)
        with step("Record every job of that Galaxy; ask where things came from"):
            self._record(server)
            self._show_lineage()
        with step(f"Kleborate {NEW_RELEASE} arrives: which samples need it?"):
            self._upgrade_and_select(server, prepared)
        with step("Reanalyse them; kill the campaign once, and resume it"):
            self._reanalyse(server, laboratory)
        with step("Nothing more to do"):
            self._select_again()
            self.check_services()
        self._summarise()

    def start_services(self) -> None:
        """Start what else is needed: nothing, with the index in the catalog's file."""

    def check_services(self) -> None:
        """Check claims about that."""

    def _new_output_folder(self) -> None:
        # Only what an earlier demo made: the folder may be anybody's.
        self._output.mkdir(parents=True, exist_ok=True)
        for path in self._output.glob("biobank.db*"):
            path.unlink()
        for path in (self._report, self._report.with_suffix(".tsv"), self._picture):
            path.unlink(missing_ok=True)
        (self._output / "relay.json").unlink(missing_ok=True)

    def _start_galaxy(self) -> GalaxyServer:
        server = GalaxyServer(tool_folders=[TOOLS], test_tools=False, warm_up=False)
        self._running.callback(server.stop)
        provide_old_kleborate(server)
        server.start()
        self._terminal.say(f"Galaxy answers at {server.url}, its folder is {server.folder}")
        self._terminal.set("GALAXY_URL", server.url)
        return server

    def _register(self) -> None:
        biobank = self._terminal.biobank
        biobank("init")
        biobank("register", "Study", TABLES / "study.tsv")
        for kind, name in (
            ("Individual", "isolates.tsv"),
            ("Consent", "consents.tsv"),
            ("Tube", "tubes.tsv"),
        ):
            biobank("register", kind, TABLES / name, "--study", "KPN")

    def _type_genomes(self, server: GalaxyServer, prepared: Prepared) -> Laboratory:
        self._analyst_key = server.create_user(ANALYST)
        laboratory = Laboratory(
            GalaxyInstance(server.url, key=self._analyst_key),
            check_alive=server.ensure_alive,
            say=self._terminal.say,
        )
        self._expect(
            sorted(prepared.genomes) == sorted(TUBES.values()),
            f"the genomes are those of the four tubes ({', '.join(sorted(prepared.genomes))})",
        )
        collection = laboratory.upload_genomes(prepared.genomes)
        self._workflow = laboratory.import_workflow(WORKFLOW)
        laboratory.run_workflow(self._workflow, collection)
        laboratory.run_failing_job(collection)
        return laboratory

    def _record(self, server: GalaxyServer) -> None:
        # The administrator sees everybody's jobs.
        self._terminal.set("GALAXY_API_KEY", server.admin_key)
        self._terminal.biobank("record", "--study", "KPN", live=True)
        self._terminal.set("GALAXY_API_KEY", self._analyst_key)
        self._terminal.biobank("status")

    def _show_lineage(self) -> None:
        code = "KP-01"
        answer = table(
            self._terminal.biobank(
                "lineage", f"KPN:{code}", "--direction", "downstream", *self.lineage_options
            )
        )
        labels = " ".join(row["label"] for row in answer)
        self._expect(TUBES[code] in labels, f"the lineage of {code} holds its tube {TUBES[code]}")
        others = [tube for tube in TUBES.values() if tube != TUBES[code] and tube in labels]
        self._expect(not others, "and nothing of the other isolates")
        self._terminal.biobank(
            *("lineage", f"KPN:{code}", "--direction", "downstream"),
            *("--format", "svg", "--output", self._picture),
            *self.lineage_options,
        )

    def _upgrade_and_select(self, server: GalaxyServer, prepared: Prepared) -> None:
        install_new_kleborate(server, prepared)
        versions = sorted(set(server.tool_versions("kleborate_typing")))
        self._expect(
            versions == [OLD_RELEASE, NEW_RELEASE],
            f"Galaxy has kleborate_typing {' and '.join(versions)}",
        )
        self._expect_selected(TUBES.values(), "all four samples need reanalysis")
        self._terminal.biobank("consent", "withdraw", f"KPN:{WITHDRAWN}")
        rest = [tube for code, tube in TUBES.items() if code != WITHDRAWN]
        self._expect_selected(rest, f"without {WITHDRAWN}, whose consent is withdrawn")
        every = table(self._terminal.biobank("select", *SELECTION, "--all"))
        out = [row for row in every if row["label"] == TUBES[WITHDRAWN]]
        self._expect(
            [row["code"] for row in out] == ["consent-withdrawn"],
            f"{TUBES[WITHDRAWN]} is left out because the consent was withdrawn",
        )

    def _expect_selected(self, tubes: object, claim: str) -> None:
        rows = table(self._terminal.biobank("select", *SELECTION))
        labels = sorted(row["label"] for row in rows)
        assert not isinstance(tubes, str)
        self._expect(labels == sorted(tubes), f"{claim}: {', '.join(labels) or 'none'}")  # type: ignore[call-overload]

    def _reanalyse(self, server: GalaxyServer, laboratory: Laboratory) -> None:
        before = laboratory.invocations()
        plan = ("reanalyse", "plan", *SELECTION, "--workflow", self._workflow, "--name", CAMPAIGN)
        self._terminal.biobank(*plan)
        self._expect(laboratory.invocations() == before, "planning did nothing in Galaxy")
        run = ("reanalyse", "run", f"KPN:{CAMPAIGN}", "--jobs", "2")
        self._kill_once(run, lambda: laboratory.invocations() != before)
        self._terminal.biobank("reanalyse", "status", f"KPN:{CAMPAIGN}")
        items = table(self._terminal.biobank(*run, live=True))
        self._expect(
            [item["state"] for item in items] == ["ok"] * (len(TUBES) - 1),
            "all samples of the campaign ended well",
        )
        new = laboratory.invocations() - before
        expected = Counter({item["history"]: 1 for item in items})
        self._expect(
            new == expected,
            f"Galaxy counts exactly one invocation for each of the {len(items)} samples",
        )
        server.ensure_alive()
        self._terminal.biobank(
            *("reanalyse", "report", f"KPN:{CAMPAIGN}"),
            *("--html", self._report, "--tsv", self._report.with_suffix(".tsv")),
        )
        self._check_report()

    def _kill_once(self, run: tuple[str, ...], begun: Callable[[], bool]) -> None:
        after_s = self._random.uniform(0.0, _KILL_WITHIN_S)
        process = self._terminal.start(*run)
        try:
            until = time.monotonic() + _BEGINS_WITHIN_S
            while not begun() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
            time.sleep(after_s)
            self._expect(begun() and process.poll() is None, "the campaign is under way")
            process.kill()
            process.communicate()
        finally:
            end(process)
        self._terminal.say(
            f"killed with SIGKILL {after_s:.1f} s after the first sample (--seed {self._seed})"
        )

    def _check_report(self) -> None:
        rows = table(self._report.with_suffix(".tsv").read_text(encoding="utf-8"))
        changes = Counter(row["change"] for row in rows)
        self._expect(
            changes["cell"] > 0 and changes["column-gone"] > 0 and changes["column-new"] > 0,
            f"the two releases differ: {changes['cell']} cells, {changes['column-gone']} columns "
            f"gone, {changes['column-new']} columns new",
        )
        labels = {row["label"] for row in rows if row["change"] == "left-out"}
        self._expect(labels == {TUBES[WITHDRAWN]}, "the report names the sample left out")

    def _select_again(self) -> None:
        self._terminal.biobank("record", "--study", "KPN")
        self._expect_selected([], "nothing needs reanalysis any more")

    def _summarise(self) -> None:
        print(f"\nAll {len(self._facts)} claims held, in {self._terminal.elapsed()} minutes:")
        for fact in self._facts:
            print(f"  ✓ {fact}")
        print(f"\nReport:   {self._report}")
        print(f"as table: {self._report.with_suffix('.tsv')}")
        print(f"Picture:  {self._picture}")
        print(f"Catalog:  {self.catalog_place}", flush=True)

    @property
    def catalog_place(self) -> str:
        """Where the catalog is after the demo."""
        return str(self._output / "biobank.db")

    def _expect(self, held: bool, claim: str) -> None:
        if not held:
            raise DemoError(f"this does not hold: {claim}")
        self._terminal.say(f"✓ {claim}")
        self._facts.append(claim)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # A second one must not break into the stopping of what we started.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
