"""Provide a wheel of zeroc-ice 3.6.5, which omero-py needs: `python -m scripts.zeroc_ice_wheel`.

Prints the folder for pip's --find-links. First pip itself is asked, so PIP_FIND_LINKS and an index
with wheels count; else the wheel in our cache folder that fits this Python; else one is built from
the sources, once: about 3 minutes of two cores. That needs g++, libbz2-dev, libssl-dev and Python's
headers, and two changes, because the sources are older than Python 3.11.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.servers.cache import cache_folder, exclusive, run_pip

_VERSION = "3.6.5"
_SETUPTOOLS = "setuptools<75"  # newer ones no longer read this setup.py
# Compiles one extension's 230 sources in two threads, which distutils does one by one.
_BUILD = """
import runpy, sys
from concurrent.futures import ThreadPoolExecutor
import setuptools
from distutils.ccompiler import CCompiler

def compile(self, sources, output_dir=None, macros=None, include_dirs=None, debug=0,
            extra_preargs=None, extra_postargs=None, depends=None):
    macros, objects, extra_postargs, pp_opts, build = self._setup_compile(
        output_dir, macros, include_dirs, sources, depends, extra_postargs)
    cc_args = self._get_cc_args(pp_opts, debug, extra_preargs)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(
            lambda name: self._compile(name, *build[name], cc_args, extra_postargs, pp_opts),
            [name for name in objects if name in build]))
    return objects

CCompiler.compile = compile
sys.argv = ["setup.py", "bdist_wheel", "--dist-dir", sys.argv[1]]
runpy.run_path("setup.py", run_name="__main__")
"""
_PATCHES = {
    "Slice.cpp": ("#include <eval.h>", ""),
    "Util.cpp": ("PyThreadState_GET()->frame", "PyEval_GetFrame()"),
}


def main() -> None:
    """Print the folder that holds a fitting wheel; what is done meanwhile goes to stderr."""
    folder = cache_folder() / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / "zeroc-ice.lock"):
        if not _downloaded(folder) and not _cached(folder):
            _build(folder)
    print(folder)


def _pip(*arguments: str | Path, quiet: bool = False) -> int:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    errors = subprocess.DEVNULL if quiet else sys.stderr
    return subprocess.run(pip, stdout=errors, stderr=errors, check=False).returncode


def _downloaded(folder: Path) -> bool:
    what = ("--no-deps", "--only-binary", ":all:", "--dest", folder, f"zeroc-ice=={_VERSION}")
    return _pip("download", *what, quiet=True) == 0


def _cached(folder: Path) -> bool:
    offline = ("--no-index", "--find-links", folder, "--dest", folder, f"zeroc-ice=={_VERSION}")
    return _pip("download", "--no-deps", "--only-binary", ":all:", *offline, quiet=True) == 0


def _build(folder: Path) -> None:
    print("Building zeroc-ice, once: some 3 minutes", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="zeroc-ice-") as name:
        work = Path(name)
        python = _build_environment(work)
        sources = _sources(work, python)
        environment = {
            **os.environ,
            "CFLAGS": "-O1 -g0 -w",
            "LDFLAGS": "-Wl,-s",
            "PYTHONPATH": "",
        }
        subprocess.run(
            [python, "-c", _BUILD, str(folder)],
            cwd=sources,
            env=environment,
            stdout=sys.stderr,
            check=True,
        )


def _build_environment(work: Path) -> Path:
    subprocess.run([sys.executable, "-m", "venv", str(work / "venv")], check=True)
    python = work / "venv" / "bin" / "python"
    run_pip(python, "install", _SETUPTOOLS, "wheel")
    return python


def _sources(work: Path, python: Path) -> Path:
    """Download, unpack and mend the sources."""
    what = ("--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--dest", work)
    run_pip(python, "download", *what, f"zeroc-ice=={_VERSION}")
    (archive,) = work.glob("zeroc*ice-*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(work / "sources", filter="data")
    (root,) = (work / "sources").iterdir()
    for name, (old, new) in _PATCHES.items():
        (path,) = root.glob(f"src/{name}")
        text = path.read_text()
        if old not in text:
            raise SystemExit(f"{path.name} of zeroc-ice {_VERSION} is not what we know")
        path.write_text(text.replace(old, new))
    return root


if __name__ == "__main__":
    main()
