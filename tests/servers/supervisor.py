"""Run one server as a child and take its whole process tree down when the owner goes away.

Started by `processes.ManagedProcess`, never by hand. Standard input is the owner's lifeline: the
kernel closes it however the owner ends, SIGKILL included. A word on it asks for an end:
`stop` (the server's own stop signal, then SIGKILL after the grace time) or `kill` (SIGKILL now).

A child sub-reaper inherits every orphan below it, so also jobs that a server started in sessions
of their own are found as our descendants, and nothing that is not ours is ever signalled.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.1


def _prctl(option: int, value: int) -> None:
    """Call prctl(2), which the standard library does not offer."""
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def descendants(root_pid: int) -> list[int]:
    """Return the pids of all live processes below `root_pid`, parents before children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as stat_file:
                stat = stat_file.read()
        except OSError:
            continue
        # The command name stands in parentheses and may itself hold spaces and parentheses.
        state, parent_pid = stat.rpartition(b")")[2].split()[:2]
        if state != b"Z":
            children.setdefault(int(parent_pid), []).append(int(name))
    found: list[int] = []
    queue = [root_pid]
    while queue:
        below = children.get(queue.pop(0), [])
        found.extend(below)
        queue.extend(below)
    return found


def _signal(pid: int, signal_number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)


def _reap(wait_for_pid: int | None) -> int | None:
    """Collect ended children; return the exit status of `wait_for_pid` if it was among them."""
    status_of_child = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status_of_child
        if pid == 0:
            return status_of_child
        if pid == wait_for_pid:
            status_of_child = os.waitstatus_to_exitcode(status)


def _kill_descendants() -> None:
    while pids := descendants(os.getpid()):
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        _reap(None)
        time.sleep(0.02)
    _reap(None)


def main() -> int:
    """Read the order as one JSON line, run the child, report its pid, wait for the end."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    lifeline = sys.stdin.fileno()
    order = json.loads(_read_line(lifeline))

    def prepare_child() -> None:
        # Runs after the change of user, which would clear the death signal again.
        for restored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(restored, signal.SIG_DFL)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    with open(order["log"], "ab", buffering=0) as log:
        try:
            child = subprocess.Popen(
                order["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=order["folder"],
                env=order["environment"],
                user=order["user"],
                group=order["group"],
                extra_groups=None if order["user"] is None else [],
                start_new_session=True,
                preexec_fn=prepare_child,  # noqa: PLW1509 - this process has one thread
            )
        except OSError as error:
            print(json.dumps({"error": str(error)}), flush=True)
            return 127
    print(json.dumps({"pid": child.pid}), flush=True)

    exit_code: int | None = None
    word = b""
    while exit_code is None and not word:
        readable, _, _ = select.select([lifeline], [], [], _POLL_S)
        if readable:
            word = os.read(lifeline, 64) or b"stop"
        exit_code = _reap(child.pid)
    if exit_code is None and not word.startswith(b"kill"):
        _signal(child.pid, order["stop_signal"])
        give_up_at = time.monotonic() + order["grace_s"]
        while exit_code is None and time.monotonic() < give_up_at:
            time.sleep(0.02)
            exit_code = _reap(child.pid)
    _kill_descendants()
    return 0 if exit_code is None else abs(exit_code) % 256


def _read_line(file_descriptor: int) -> bytes:
    """Read up to a line's end without taking what follows it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(file_descriptor, 1)
        if not byte:
            raise SystemExit("the owner ended before it said what to run")
        line += byte
    return line


if __name__ == "__main__":
    sys.exit(main())
