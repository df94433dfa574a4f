"""What two catalogs must have in common: their dumps, and the digests of their indexes."""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from biobank_core.catalog.registry import open_catalog
from biobank_core.config import load_settings
from biobank_core.interchange import dump, load
from biobank_core.lineage.verify import verify
from biobank_core.model.ids import VID_PATTERN, derived_vid
from biobank_core.stores import open_stores

# When Galaxy was asked; no two recordings have it in common.
_ASKED: Final = re.compile(rb'"as_of":"[^"]*"')


def dump_and_digest(folder: Path, *, index: str | None = None) -> tuple[bytes, str]:
    """The dump of a folder's catalog, without the times of asking, and its index's digest.

    The index must hold just what the catalog says.
    """
    settings = load_settings(
        catalog=f"sqlite:///{folder}/c.db",
        index=f"sqlite:///{folder}/{index}" if index else None,
        environment={},
    )
    out = io.BytesIO()
    with open_stores(settings, write=False) as stores:
        dump(stores.catalog, out)
        assert list(verify(stores.catalog, stores.index)) == []
        return _ASKED.sub(b'"as_of":"then"', out.getvalue()), stores.index.digest()


def by_names(dumped: bytes) -> tuple[bytes, str]:
    """The same for a catalog whose VIDs are random: each in place of its VID has its name."""
    objects = {line["vid"]: line for line in map(json.loads, dumped.splitlines())}
    names: dict[str, str] = {}
    for vid, line in objects.items():
        name = line.get("label") or line.get("code")
        if name:
            names[vid] = f"{line['kind']} {name}"
    # What has no name of its own is named by what it is for, or by what it made.
    for line in objects.values():
        if line["kind"] == "Enrollment":
            names[line["individual"]] = f"Individual {line['code']}"
    for vid, line in objects.items():
        if line["kind"] == "Consent":
            names[vid] = f"Consent {names[line['enrollment']]} {line['scope']} {line['status']}"
        elif line["kind"] == "Action":
            names[vid] = f"Action {sorted(names[port['object']] for port in line['outputs'])}"
    assert names.keys() == objects.keys(), "an object without a name"
    assert not _doubles(names), "two objects of one name"
    text = VID_PATTERN.sub(
        lambda found: derived_vid("Named", names[found[0]]), dumped.decode("utf-8")
    )
    with tempfile.TemporaryDirectory() as folder:
        with open_catalog(f"sqlite:///{folder}/c.db", create=True) as catalog:
            load(catalog, io.BytesIO(text.encode()), by="test")
        return dump_and_digest(Path(folder))


def _doubles(names: dict[str, str]) -> dict[str, list[str]]:
    owners: dict[str, list[Any]] = defaultdict(list)
    for vid, name in names.items():
        owners[name].append(vid)
    return {name: vids for name, vids in owners.items() if len(vids) > 1}
