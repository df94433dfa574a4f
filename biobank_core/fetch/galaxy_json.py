"""The file by which a Galaxy tool tells what its collection holds: `galaxy.json`.

With it an element has any identifier and datatype; found by file names it would have only what a
file name can say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

from biobank_core.fetch.manifest import Entry
from biobank_core.fetch.wanted import Wanted

# Column element_identifier of Galaxy's table dataset_collection_element.
MAX_IDENTIFIER_CHARS: Final = 255
_FALLBACK_EXTENSION: Final = "data"
# What Galaxy calls otherwise than file names do; the others are the same, or unknown to it.
_DATATYPES: Final = {
    "fa": "fasta",
    "fna": "fasta",
    "faa": "fasta",
    "fa.gz": "fasta.gz",
    "fna.gz": "fasta.gz",
    "fq": "fastq",
    "fq.gz": "fastq.gz",
    "tsv": "tabular",
    "htm": "html",
    "jsonl": "txt",
    "vcf.gz": "vcf_bgzip",
}


def element_identifiers(wanted: Sequence[Wanted]) -> dict[Wanted, str]:
    """A name for each in one flat list, unique: the identifiers joined by `_`.

    The identifier of one collection around all of them is left out.
    """
    around = {item.identifiers[0] for item in wanted if len(item.identifiers) > 1}
    all_inside = len(around) == 1 and all(len(item.identifiers) > 1 for item in wanted)
    taken: set[str] = set()
    found: dict[Wanted, str] = {}
    for item in wanted:
        name = "_".join(item.identifiers[1:] if all_inside else item.identifiers)
        number = 1
        while True:
            more = "" if number == 1 else f" ({number})"
            unique = f"{name[: MAX_IDENTIFIER_CHARS - len(more)]}{more}"
            if unique not in taken:
                break
            number += 1
        taken.add(unique)
        found[item] = unique
    return found


def write(stream: TextIO, entries: Sequence[Entry], *, output: str, folder: Path) -> None:
    """Write the elements of the output collection of this name; `folder` is where they are."""
    elements = [
        {
            "name": entry.element,
            "filename": str(folder / entry.path),
            "ext": _datatype(entry.extension),
        }
        for entry in entries
    ]
    json.dump({output: {"elements": elements}}, stream, ensure_ascii=False)


def _datatype(extension: str | None) -> str:
    known = (extension or _FALLBACK_EXTENSION).lower()
    return _DATATYPES.get(known, known)
