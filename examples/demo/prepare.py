"""Fetch what the demo works on and with: `python -m examples.demo.prepare` (Debian packages first).

The genomes and the two releases of Kleborate that the demo's Galaxy tool comes in.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.servers.cache import cache_folder, exclusive, virtual_environment
from tests.servers.galaxy import GalaxyServer

DEMO = Path(__file__).parent
TOOLS = DEMO / "galaxy_tools"
UPGRADED_TYPING_TOOL = TOOLS / "upgrade" / "kleborate_typing_3.2.4.xml"
WORKFLOW = DEMO / "typing.gxwf.yml"

# The Debian package 2.3.1-2 calls itself by the name of the release that it carries.
OLD_RELEASE = "2.2.0"
NEW_RELEASE = "3.2.4"
# No `mash`: what has that name at PyPI, and what Kleborate's metadata ask for, is an unrelated
# library. The program that Kleborate runs is Debian's.
_NEW_KLEBORATE_LOCK = DEMO / "kleborate3-requirements.lock"
_OLD_KLEBORATE = Path("/usr/bin/kleborate")
_PACKAGED_GENOMES = Path("/usr/share/doc/kleborate/examples/data")


class DemoError(RuntimeError):
    """Something that the demo needs is not there, or is not what it should be."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What `prepare` made ready: {strain: FASTA file} and the newer Kleborate's environment."""

    genomes: dict[str, Path]
    new_kleborate: Path


def prepare() -> Prepared:
    """Unpack the genomes and install the newer Kleborate, both into the cache folder, once."""
    if not _OLD_KLEBORATE.exists() or not _PACKAGED_GENOMES.is_dir():
        raise DemoError("missing: apt-get install kleborate kleborate-examples")
    new_kleborate = virtual_environment("kleborate", _NEW_KLEBORATE_LOCK)
    _check_release(_OLD_KLEBORATE, OLD_RELEASE)
    _check_release(new_kleborate / "bin" / "kleborate", NEW_RELEASE)
    return Prepared(genomes=_unpack_genomes(), new_kleborate=new_kleborate)


def provide_old_kleborate(server: GalaxyServer) -> None:
    """Make the requirement kleborate 2.2.0 available to the jobs of a Galaxy server."""
    server.add_requirement("kleborate", OLD_RELEASE, _env_sh(_OLD_KLEBORATE.parent))


def install_new_kleborate(server: GalaxyServer, prepared: Prepared) -> None:
    """Install Kleborate 3 as the new version of the same Galaxy tool, while the server runs."""
    # Matplotlib would otherwise build its font cache anew in each job's own home folder.
    cache = prepared.new_kleborate / "matplotlib"
    env_sh = _env_sh(prepared.new_kleborate / "bin") + f"export MPLCONFIGDIR='{cache}'\n"
    server.add_requirement("kleborate", NEW_RELEASE, env_sh)
    server.add_tool(UPGRADED_TYPING_TOOL)


def _env_sh(bin_folder: Path) -> str:
    return f"export PATH='{bin_folder}':\"$PATH\"\n"


def _check_release(program: Path, release: str) -> None:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    if f"v{release}" not in done.stdout.split():
        raise DemoError(f"{program} is {done.stdout.strip()}, the demo needs {release}")


def _unpack_genomes() -> dict[str, Path]:
    folder = cache_folder() / "klebsiella-genomes"
    genomes = {}
    with exclusive(folder.with_suffix(".lock")):
        folder.mkdir(exist_ok=True)
        for packed in sorted(_PACKAGED_GENOMES.glob("*.fna.xz")):
            strain = packed.name.removesuffix(".fna.xz").removeprefix("Klebs_")
            genomes[strain] = folder / f"{strain}.fna"
            if not genomes[strain].exists():
                half_unpacked = folder / f"{strain}.part"
                with lzma.open(packed) as source, half_unpacked.open("wb") as target:
                    shutil.copyfileobj(source, target)
                half_unpacked.replace(genomes[strain])
    if not genomes:
        raise DemoError(f"no genomes in {_PACKAGED_GENOMES}: reinstall kleborate-examples")
    return genomes


if __name__ == "__main__":
    try:
        for genome_strain, fasta in prepare().genomes.items():
            print(f"{genome_strain}\t{fasta}")
    except (DemoError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
