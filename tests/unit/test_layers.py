"""Who may import whom: model <- ports <- services <- cli, sync_service; drivers stand apart."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The longest prefix decides. What is not named here is a service.
LAYERS = {
    "biobank_core": 0,
    "biobank_core.errors": 0,
    "biobank_core.garbage": 0,
    "biobank_core.model": 0,
    # Words that ports, drivers and services share: how releases compare, how tools are named.
    "biobank_core.selection.releases": 0,
    "biobank_core.selection.tools": 0,
    # Ports, and the code that all drivers of a port share.
    "biobank_core.catalog": 1,
    "biobank_core.lineage": 1,
    "biobank_core.sqlite_file": 1,
    "biobank_core.sqlite_place": 1,
    "biobank_core.catalog.registry": 2,
    "biobank_core.lineage.registry": 2,
    "biobank_core.lineage.service": 2,
    "biobank_core.cli": 3,
    "sync_service": 3,
}
SERVICE = 2
DRIVERS = (
    "biobank_core.catalog.sqlite",
    "biobank_core.catalog.omero",
    "biobank_core.lineage.sqlite",
    "biobank_core.lineage.neo4j",
)
REGISTRIES = ("biobank_core.catalog.registry", "biobank_core.lineage.registry")
# Libraries of servers that not everybody has, and one that is slow to import.
NOT_AT_IMPORT = ("omero", "Ice", "neo4j", "pika", "bioblend")


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def layer(module: str) -> int:
    named = [prefix for prefix in LAYERS if within(module, prefix)]
    longest = max(named, key=len, default="")
    if longest in ("", "biobank_core") and module != "biobank_core":
        return SERVICE
    return LAYERS[longest]


def driver(module: str) -> str | None:
    return next((name for name in DRIVERS if within(module, name)), None)


def modules() -> dict[str, Path]:
    found = {}
    for folder in ("biobank_core", "sync_service"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(module: str, path: Path) -> Iterator[tuple[int, str]]:
    """Each module of ours that is imported, wherever in the file, with its line."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, base] if base else up)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield node.lineno, name if name in MODULES else base


def test_the_rule_covers_the_whole_tree() -> None:
    assert "biobank_core.model.kinds" in MODULES
    assert layer("biobank_core.model.kinds") == 0
    assert layer("biobank_core.lineage.sqlite.read") == 1
    assert layer("biobank_core.register.service") == SERVICE
    assert layer("biobank_core.cli.status") == 3


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_its_own_layer_and_those_below(module: str) -> None:
    wrong = [
        f"line {line}: {target}"
        for line, target in imports(module, MODULES[module])
        if target in MODULES and layer(target) > layer(module)
    ]
    assert not wrong


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_a_driver_imports_itself(module: str) -> None:
    wrong = [
        f"line {line}: {target}"
        for line, target in imports(module, MODULES[module])
        if (named := driver(target)) is not None and named != driver(module)
    ]
    assert not wrong


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_a_registry_names_a_driver(module: str) -> None:
    if module in REGISTRIES or driver(module):
        return
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    assert not [text for text in texts if isinstance(text, str) and text.startswith(DRIVERS)]


@pytest.mark.parametrize(
    "program",
    [
        "import biobank_core",
        "import biobank_core.model.registry, biobank_core.catalog.port, biobank_core.lineage.port",
        "from biobank_core.cli import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass",
        "import biobank_core.stores, biobank_core.register, biobank_core.consent",
    ],
)
def test_no_library_of_a_server_is_imported_before_it_is_needed(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint('LOADED', *sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = done.stdout.rpartition("LOADED")[2].split()
    assert "biobank_core" in loaded
    assert not {name.partition(".")[0] for name in loaded} & set(NOT_AT_IMPORT)


def test_help_imports_no_command_and_no_heavy_library() -> None:
    program = "from biobank_core.cli import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint('LOADED', *sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = done.stdout.rpartition("LOADED")[2].split()
    ours = {name for name in loaded if name.startswith("biobank_core.")}
    assert ours == {"biobank_core.cli", "biobank_core.errors"}
    assert not {"msgspec", "rich", "jinja2", "sqlite3", "requests", "yaml"} & set(loaded)
