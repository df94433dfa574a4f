"""What a test can have go wrong: each fault waits for a call that it fits and strikes there."""

from __future__ import annotations

import fnmatch
import threading
import time
from dataclasses import dataclass
from typing import Any

import Ice
import omero

from tests.servers.omero.errors import server_error, validation

KINDS = frozenset(
    {
        "late-event-log",  # ids are taken at the call's begin, the commit comes seconds later
        "remove-session",  # the session is gone when the call comes
        "drop-before-commit",  # the connection goes, nothing is saved
        "drop-after-commit",  # it is saved, the connection goes before the answer
        "drop-then-commit",  # the connection goes, the commit comes seconds later
        "try-again",  # a deadlock's loser
        "optimistic-lock",
        "namespace-race",
        "short-read",  # a read of a stored file gives half of what was asked for
        "delay",  # seconds before the call does anything
        "login-internal-error",  # a server without its database: also PermissionDenied
    }
)


@dataclass
class Fault:
    """One fault: strikes the calls whose name fits, after `skip` and then `count` of them.

    `call` is a pattern like `IUpdate.*` or `Delete2`; `seconds` is the delay of the kinds that
    have one.
    """

    kind: str
    call: str = "IUpdate.*"
    count: int = 1
    skip: int = 0
    seconds: float = 1.0
    struck: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no such fault: {self.kind}; there are {', '.join(sorted(KINDS))}")


class Faults:
    """The faults that are switched on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Switch a fault on."""
        with self._lock:
            self._faults.append(fault)

    def clear(self) -> list[Fault]:
        """Switch all off and return them, with how often each struck."""
        with self._lock:
            old, self._faults = self._faults, []
        return old

    def struck(self) -> int:
        """Return how often those that are on have struck."""
        with self._lock:
            return sum(fault.struck for fault in self._faults)

    def take(self, call: str, *kinds: str) -> Fault | None:
        """Return the first fault of these kinds that fits the call, and count it."""
        with self._lock:
            for fault in self._faults:
                if fault.kind not in kinds or not fnmatch.fnmatchcase(call, fault.call):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.struck < fault.count:
                    fault.struck += 1
                    return fault
        return None

    def before_call(self, call: str) -> None:
        """Delay the call, or raise the error that its fault stands for."""
        if fault := self.take(call, "delay"):
            time.sleep(fault.seconds)
        if self.take(call, "try-again"):
            raise server_error(omero.TryAgain, "could not update; deadlock detected")
        if self.take(call, "optimistic-lock"):
            raise server_error(
                omero.OptimisticLockException,
                "Batch update returned unexpected row count from update [0]",
            )
        if self.take(call, "namespace-race"):
            raise validation(
                "could not insert: [ome.model.annotations.MapAnnotation]; SQL [...]; constraint"
                " [namespace_name]; nested exception is"
                " org.hibernate.exception.ConstraintViolationException: could not insert"
            )

    def drop(self, call: str, current: Any, *kinds: str) -> Fault | None:
        """Close the caller's connection without a word, if such a fault fits."""
        fault = self.take(call, *kinds)
        if fault is not None:
            current.con.close(True)
        return fault


def remove_session_error() -> Ice.ObjectNotExistException:
    """Return what a call gets whose session is gone."""
    return Ice.ObjectNotExistException()
