"""What Galaxy's administrator installs beside the tools: data tables, and this program itself."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from biobank_core import addressing
from biobank_core.catalog.port import Catalog
from biobank_core.errors import ConfigurationError
from biobank_core.model.kinds import Action, Device, Study

# The name that the tools' <requirement> has.
PACKAGE: Final = "galaxy-biobank"
STUDIES: Final = "biobank_studies.loc"
DEVICES: Final = "biobank_devices.loc"
_HEADERS: Final = {
    STUDIES: "#value\tname\tcatalog",
    DEVICES: "#value\tname\ttool\trelease\tcatalog",
}
# A form's drop-down shows no more of a name.
_MAX_NAME_CHARS: Final = 120


def table_rows(
    catalog: Catalog, studies: Sequence[str], *, catalog_id: str
) -> dict[str, list[tuple[str, ...]]]:
    """The rows of both tables: these studies (labels or VIDs), and the devices used in them.

    Nothing else of the catalog is in them, because every user of Galaxy sees them. Raises
    NotFoundError for an unknown study.
    """
    chosen = {found.vid: found for found in (addressing.study(catalog, s) for s in studies)}
    used: set[str] = set()
    for vid in chosen:
        for item in catalog.find("Action", {"study": vid}):
            if isinstance(item.object, Action) and item.object.device is not None:
                used.add(item.object.device)
    devices = [
        item.object for item in catalog.get(used).values() if isinstance(item.object, Device)
    ]
    devices.sort(key=lambda device: (device.label, device.release or "", device.vid))
    return {
        STUDIES: [_study_row(chosen[vid], catalog_id) for vid in chosen],
        DEVICES: [_device_row(device, catalog_id) for device in devices],
    }


def table_text(name: str, rows: Iterable[Sequence[str]]) -> str:
    """A table's file: a comment that names the columns, then a row a line."""
    lines = [_HEADERS[name], *("\t".join(row) for row in rows)]
    return "\n".join(lines) + "\n"


def install_dependency(folder: Path) -> Path:
    """Write FOLDER/galaxy-biobank/VERSION for Galaxy's resolver `galaxy_packages`; its env.sh.

    Raises ConfigurationError when this program is not installed, so that a job could not run it.
    """
    try:
        number = version(PACKAGE)
    except PackageNotFoundError as exc:
        raise ConfigurationError(
            f"{PACKAGE} is not installed in {sys.prefix}: install it with pip, then run this again"
        ) from exc
    home = (folder / PACKAGE / number).absolute()
    program = home / "bin" / "biobank"
    program.parent.mkdir(parents=True, exist_ok=True)
    # One that stands there is what running jobs use: it gives way only to one that runs.
    new = program.with_name(f".{program.name}.{os.getpid()}")
    # Galaxy sets PYTHONPATH for its own modules, which are not ours. A link to the program would
    # do, too, but for environments without one.
    new.write_text(
        "#!/bin/sh\n"
        "unset PYTHONPATH PYTHONHOME\n"
        f'exec {shlex.quote(sys.executable)} -P -m biobank_core.cli "$@"\n',
        encoding="utf-8",
    )
    new.chmod(0o755)
    said = subprocess.run(  # noqa: S603  # the program that was just written
        [str(new), "--version"], cwd="/", capture_output=True, text=True, check=False
    )
    if said.returncode != 0 or said.stdout.split()[-1:] != [number]:
        new.unlink()
        raise ConfigurationError(
            f"{sys.executable} does not find {PACKAGE} {number} without PYTHONPATH: install it "
            "with pip into the environment that Galaxy's jobs are to use"
        )
    new.replace(program)
    script = home / "env.sh"
    script.write_text(
        f"PATH={shlex.quote(str(program.parent))}:$PATH\nexport PATH\n", encoding="utf-8"
    )
    return script


def _study_row(study: Study, catalog_id: str) -> tuple[str, ...]:
    return study.vid, _cell(study.label), catalog_id


def _device_row(device: Device, catalog_id: str) -> tuple[str, ...]:
    name = " ".join(part for part in (device.label, device.release) if part)
    tool, release = _cell(device.label), _cell(device.release or "")
    return device.vid, _cell(name), tool, release, catalog_id


def _cell(text: str) -> str:
    """Galaxy's tables know no quoting: what could end a cell or a line becomes a blank."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(plain.split())[:_MAX_NAME_CHARS]
