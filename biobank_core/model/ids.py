"""VIDs: `V0` and the 32 upper-case hex digits of a UUID.

Random (UUIDv4) for people and material; derived (UUIDv5, RFC 9562) for what Galaxy made and for
what is its own content, so that recording twice gives the same object. Never derived from a
donor's code: a derived identifier of a person could be found again by trying codes.
"""

from __future__ import annotations

import re
import uuid
from typing import Annotated, Final

import msgspec

Vid = Annotated[str, msgspec.Meta(pattern=r"^V0[0-9A-F]{32}\Z")]

VID_PATTERN: Final = re.compile(r"V0[0-9A-F]{32}")

# The one namespace of all derived VIDs. Changing it would give every recorded job a second VID.
NAMESPACE: Final = uuid.UUID("6f0f3c1e-5f0e-5d9a-9d5b-2c7a1b0e4d11")

# Separates the parts of a derived name; it can't stand in a part (U+001F is refused there).
_SEPARATOR: Final = "\x1f"


def new_vid() -> str:
    """A random VID, for people and material."""
    return from_uuid(uuid.uuid4())


def from_uuid(value: uuid.UUID) -> str:
    """The VID that spells this UUID."""
    return f"V0{value.hex.upper()}"


def derived_vid(kind: str, *parts: str) -> str:
    """The VID of the thing that `kind` and `parts` name; the same parts always give the same one.

    Raises ValueError when a part holds the separator U+001F, which would let two things share one.
    """
    if any(_SEPARATOR in part for part in parts):
        raise ValueError("a part of a derived VID must not hold U+001F")
    return from_uuid(uuid.uuid5(NAMESPACE, _SEPARATOR.join((kind, *parts))))


def is_vid(text: str) -> bool:
    """Whether the text is spelled like a VID (not whether such an object exists)."""
    return VID_PATTERN.fullmatch(text) is not None
