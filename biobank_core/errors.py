"""One tree for every error that a user or a caller may see.

    BiobankError                      exit code 2
      InputError                      2   a file, a line, an option or a value is wrong
        CycleError                    2   something would come from itself
      NotFoundError                   2   unknown, or not readable by this user (one message)
      AmbiguousError                  2   an address fits several objects
      ConfigurationError              2   settings contradict each other or are missing
      StorageError                    2   the file is damaged, full, read-only, of a newer schema
        UnreadableError               2   one object of it can't be read back
      UnreachableError                3   retryable: a server is not there or breaks off
      NotPermittedError               4   the account may not do this
      ConflictError                   5   somebody else's state is in the way
        StaleVersionError             5   saved over a version that is not the newest
        DuplicateError                5   a label, code, barcode or VID that must be unique is taken
      RefusedError                    5   a change that the index could not take in, set aside
      TimeoutExceededError            3   retryable: waited long enough (freshness `wait`)

`retryable` answers "may the same call succeed later without anybody changing it?". Drivers
translate what their libraries raise at their edge, with `raise ... from exc`. A message names
the object and says what to do; it never holds a secret.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar, Self


class BiobankError(Exception):
    """Base of all errors of this project; its text is shown to the user as it is."""

    exit_code: ClassVar[int] = 2
    retryable: ClassVar[bool] = False


class InputError(BiobankError):
    """Something given to us is wrong; names file, line, field and value where they are known."""

    def __init__(
        self,
        reason: str,
        *,
        file: str | None = None,
        line: int | None = None,
        field: str | None = None,
        value: object = None,
    ) -> None:
        self.reason = reason
        self.file = file
        self.line = line
        self.field = field
        self.value = value
        super().__init__(self._text())

    def at(self, *, file: str | None = None, line: int | None = None) -> Self:
        """The same error with the place filled in, for the caller that knows it."""
        placed = copy.copy(self)
        placed.file = self.file or file
        placed.line = self.line if self.line is not None else line
        placed.args = (placed._text(),)
        return placed

    def _text(self) -> str:
        place = ", ".join(
            part
            for part in (
                self.file,
                f"line {self.line}" if self.line is not None else None,
                f"field {self.field!r}" if self.field else None,
                f"value {_shortened(self.value)}" if self.value is not None else None,
            )
            if part
        )
        return f"{place}: {self.reason}" if place else self.reason


class CycleError(InputError):
    """Objects that would come from themselves; `vids` are those on the cycle."""

    vids: tuple[str, ...] = ()

    @classmethod
    def of(cls, vids: Sequence[str]) -> Self:
        """The error for this cycle; its text is shortened when the cycle is long."""
        named = " -> ".join(vids[:_MAX_NAMED_IN_CYCLE])
        more = f" -> ... ({len(vids) - 1} objects)" if len(vids) > _MAX_NAMED_IN_CYCLE else ""
        error = cls(f"would close a cycle: {named}{more}")
        error.vids = tuple(vids)
        return error


class NotFoundError(BiobankError):
    """An object that is unknown or that this user may not read: the same text for both."""


class AmbiguousError(BiobankError):
    """An address that fits several objects; the text lists their VIDs."""


class ConfigurationError(BiobankError):
    """Settings that are missing or contradict each other."""


class StorageError(BiobankError):
    """The storage itself fails: damaged, full, read-only, or written by a newer release."""


class UnreadableError(StorageError):
    """One object that its storage can't give back: damaged, or changed by another program."""


class UnreachableError(BiobankError):
    """A server can't be reached, breaks off, or answers with something that is not its protocol."""

    exit_code = 3
    retryable = True


class TimeoutExceededError(BiobankError):
    """What was waited for did not happen in the time given."""

    exit_code = 3
    retryable = True


class RefusedError(BiobankError):
    """What was waited for was set aside as a dead letter: it will not come by waiting."""

    exit_code = 5


class NotPermittedError(BiobankError):
    """The account may not do this."""

    exit_code = 4


class ConflictError(BiobankError):
    """The state of the catalog does not allow this change; read it again and decide anew."""

    exit_code = 5


class StaleVersionError(ConflictError):
    """A save based on a version that is no longer the newest one."""


class DuplicateError(ConflictError):
    """A label, code, barcode or VID that must be unique is taken by another object."""


# Long hostile values must not flood a terminal or a log.
_MAX_SHOWN_CHARS = 120
# Enough to see how a cycle closes.
_MAX_NAMED_IN_CYCLE = 10


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}… (shortened)"
