#!/usr/bin/env bash
# Install what a goal of the Makefile needs: Debian packages, then .venv, then the servers.
# Usage: scripts/setup.sh test|demo|demo-full|demo-omero|services. A second run takes a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

goal=${1:?usage: scripts/setup.sh test|demo|demo-full|demo-omero|services}
python=${PYTHON:-python3}
galaxy=(graphviz postgresql)
genomes=(kleborate kleborate-examples mash minimap2 ncbi-blast+)
# Neo4j itself comes from Maven Central into the cache folder.
sync=(rabbitmq-server maven default-jre-headless)
# What zeroc-ice is built with, unless pip finds a wheel of it; openssl makes a certificate.
omero=(g++ libbz2-dev libssl-dev openssl)
case $goal in
  test) packages=("${galaxy[@]}" "${sync[@]}" "${omero[@]}" faketime systemd) ;;
  demo) packages=("${galaxy[@]}" "${genomes[@]}") ;;
  demo-full) packages=("${galaxy[@]}" "${genomes[@]}" "${sync[@]}") ;;
  demo-omero) packages=("${galaxy[@]}" "${genomes[@]}" "${omero[@]}") ;;
  services) packages=("${sync[@]}") ;;
  *) echo "unknown goal: $goal" >&2; exit 2 ;;
esac

say() { printf '==> %s\n' "$*" >&2; }

command -v "$python" >/dev/null || packages+=(python3 python3-venv)
"$python" -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
headers='import os, sysconfig; assert os.path.exists(sysconfig.get_path("include") + "/Python.h")'
[[ $goal != test && $goal != demo-omero ]] || "$python" -c "$headers" 2>/dev/null || packages+=(python3-dev)

# First of all, so that nothing has been changed yet when a person has to act.
missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
if ((${#missing[@]})); then
  install=(apt-get install --yes --no-install-recommends "${missing[@]}")
  if ((EUID != 0)); then
    say "These Debian packages are missing: ${missing[*]}"
    say "Nothing was changed. Install them, then start again:"
    say "    sudo apt-get update && sudo ${install[*]}"
    say "(Debian starts the servers among them; they may be stopped: ours are started apart.)"
    exit 2
  fi
  say "Installing Debian packages: ${missing[*]}"
  # Debian starts a server that it installs. Ours run in folders of their own, on request only.
  policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  apt-get update >&2
  DEBIAN_FRONTEND=noninteractive "${install[@]}" >&2
fi

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  say "$("$python" --version) is too old: set PYTHON to a Python 3.11 or newer"
  exit 2
fi

# pip does not mend a download that breaks off.
pip() {
  local try
  for try in 1 2 3; do
    if .venv/bin/python -m pip --disable-pip-version-check "$@" >&2; then return 0; fi
    say "pip failed (try $try of 3)"
    sleep 5
  done
  return 1
}

# Two runs in one checkout must not build the same environment at once.
exec 9<scripts/setup.sh
flock 9

wanted=$({ "$python" --version; pwd; cat pyproject.toml setup.cfg; } | sha256sum)
stamp=.venv/.installed
if [[ $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
  say "Installing the project into .venv"
  rm -f "$stamp"
  [[ -x .venv/bin/python ]] && .venv/bin/python -c 'import pip' || "$python" -m venv --clear .venv
  pip install --editable '.[dev,neo4j,sync]'
  printf '%s\n' "$wanted" >"$stamp"
fi

stamp=.venv/.omero
if [[ $goal == test || $goal == demo-omero ]] && [[ $(cat "$stamp" 2>/dev/null) != "$wanted" ]]; then
  rm -f "$stamp"
  wheels=$(.venv/bin/python -m scripts.zeroc_ice_wheel)
  pip install --find-links "$wheels" --editable '.[omero,omero-test]'
  printf '%s\n' "$wanted" >"$stamp"
fi

if [[ $goal != services ]]; then
  .venv/bin/python -m tests.servers.setup_galaxy >&2
fi
if [[ $goal == test ]]; then
  .venv/bin/python -m tests.servers.planemo >&2
fi
if [[ $goal != demo && $goal != demo-omero ]]; then
  .venv/bin/python -c 'from tests.servers.neo4j import jars; jars()' >&2
fi
if [[ $goal == demo* ]]; then
  .venv/bin/python -m examples.demo.prepare >&2
fi
