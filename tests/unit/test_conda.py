"""The conda recipe says what setup.cfg says."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
# What conda-forge calls otherwise.
NAMES = {
    "graphviz": "python-graphviz",
    "neo4j": "neo4j-python-driver",
    "neo4j-rust-ext": "neo4j-python-driver-rust-ext",
    "prometheus-client": "prometheus_client",
}
# Beside Python packages: the program `dot`, which draws the pictures.
PROGRAMS = {"graphviz", "python"}
# What catalogs and indexes that are servers need, and biobank-sync: a Galaxy may use any of them.
EXTRAS = ("neo4j", "omero", "sync")


def recipe() -> dict[str, Any]:
    text = (ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(re.sub(r"\{\{.*?\}\}", "X", text))
    return found


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def conda_of(requirement: str) -> str:
    name, bounds = re.fullmatch(r"([A-Za-z0-9_.-]+)(.*)", requirement).groups()  # type: ignore[union-attr]
    name = NAMES.get(name.lower(), name.lower())
    return f"{name} {bounds}".strip()


def test_name_version_and_programs_are_those_of_the_package() -> None:
    said, meta = recipe(), setup()
    assert said["package"] == {
        "name": meta["metadata"]["name"],
        "version": meta["metadata"]["version"],
    }
    assert said["about"]["summary"] == meta["metadata"]["description"]
    assert said["about"]["license"] == meta["metadata"]["license"]
    assert said["build"]["entry_points"] == lines(meta["options.entry_points"]["console_scripts"])


def test_what_it_needs_to_run_is_what_pip_would_install() -> None:
    meta = setup()
    wanted = lines(meta["options"]["install_requires"])
    for extra in EXTRAS:
        wanted += lines(meta["options.extras_require"][extra])
    run = recipe()["requirements"]["run"]
    packages = [entry for entry in run if entry.split()[0] not in PROGRAMS]
    assert packages == sorted(map(conda_of, wanted))
    assert f"python {meta['options']['python_requires']}" in run
    assert "graphviz" in run
