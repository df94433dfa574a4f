"""The JSON Schema of a line."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from biobank_core.model.registry import kinds

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
# Python's "end of the text". JSON Schema's regular expressions are those of ECMA-262, which does
# not know it; its `$` means the same, but in validators written in Python it forgives a line end.
_PYTHON_END: Final = r"\Z"
_END: Final = r"$(?!\n)"

# Cursors stand in a catalog but in no file.
_NOT_IN_FILES: Final = frozenset({"Cursor"})


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one line, kinds of installed plug-ins included."""
    classes = [cls for name, cls in kinds().items() if name not in _NOT_IN_FILES]
    references, components = msgspec.json.schema_components(classes, ref_template="#/$defs/{name}")
    return {
        "$schema": _DRAFT,
        "title": "One line of a biobank dump",
        "type": "object",
        "required": ["kind", "vid"],
        "oneOf": list(references),
        "$defs": {name: _portable(schema) for name, schema in sorted(components.items())},
    }


def _portable(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: value.replace(_PYTHON_END, _END)
            if key == "pattern" and isinstance(value, str)
            else _portable(value)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [_portable(part) for part in schema]
    return schema
