"""Tables that say which biological sample the data of an element identifier came from."""

from __future__ import annotations

from biobank_core.errors import InputError
from biobank_core.register.tables import read_table


def read_sheet(path: str, *, identifier: str, sample: str) -> dict[str, str]:
    """The label of the sample by element identifier, from the two columns of these names.

    A row that lacks one of them says nothing. Raises InputError with file and line for a file that
    is no such table, or that gives one identifier two samples.
    """
    table = read_table(path)
    if table.problems:
        raise table.problems[0]
    for column in (identifier, sample):
        if column not in table.columns:
            has = ", ".join(table.columns)
            raise InputError(f"has no such column; it has {has}", file=path, line=1, field=column)
    labels: dict[str, str] = {}
    for row in table.rows:
        name, label = row.cells.get(identifier), row.cells.get(sample)
        if name is None or label is None:
            continue
        if labels.setdefault(name, label) != label:
            raise InputError(
                f"{name!r} stands here with another sample than before: {labels[name]!r}",
                file=path,
                line=row.line,
                field=sample,
                value=label,
            )
    if not labels:
        raise InputError("no row has both columns", file=path)
    return labels
