"""The log of the service: plain text, or a JSON object a line for a collector."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final

import msgspec

# What `extra` may bring; all else that a record holds is Python's own.
_EXTRAS: Final = ("part", "message_id", "tries", "by", "applied")


class JsonLines(logging.Formatter):
    """A JSON object a line: time, level, logger, message, and what `extra` brought."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "thread": record.threadName,
            "message": record.getMessage(),
        }
        told |= {name: getattr(record, name) for name in _EXTRAS if hasattr(record, name)}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(told).decode()


def set_up(*, as_json: bool, verbose: bool) -> None:
    """Let the service's log go to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonLines()
        if as_json
        else logging.Formatter("%(asctime)s %(levelname)s %(threadName)s: %(message)s")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.WARNING)
    for name in ("biobank_core", "sync_service"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    # It reports each failed attempt to connect with a traceback; we say it once, in a line.
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    # And it each retry of its own, and each connection that broke off.
    logging.getLogger("neo4j").setLevel(logging.CRITICAL)
