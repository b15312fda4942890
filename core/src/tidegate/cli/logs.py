"""The log of a node on standard error: human lines or JSON, redacted, never a flood."""

from __future__ import annotations

import logging
import sys
import time
from typing import Final, TextIO

import orjson

from tidegate.runtime.redact import RedactingFilter, mask_text

PER_SECOND: Final = 5
"""Times that one message is written in one second; what is over is counted."""
KINDS: Final = 1000
"""Different messages that are counted at the same time."""


class Json(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = mask_text(self.formatException(record.exc_info))
        return orjson.dumps(entry).decode()


class Human(logging.Formatter):
    """`12:00:00.123 WARNING tidegate.supervisor: message`."""

    def format(self, record: logging.LogRecord) -> str:
        when = stamp(record.created)[11:23]
        name = record.name.removeprefix("tidegate.")
        text = f"{when} {record.levelname.lower():7} {name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + mask_text(self.formatException(record.exc_info))
        return text


def stamp(seconds: float) -> str:
    """RFC 3339, UTC, milliseconds."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03}Z"


class RateLimit(logging.Filter):
    """Lets one message pass `PER_SECOND` times a second, then says how many it kept back.

    A message is what the code says (its text before arguments are put in) and its first
    argument, which names the addon, the upstream or the worker.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[object, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        args = record.args
        first = args[0] if isinstance(args, tuple) and args else None
        key = (record.name, record.levelno, record.msg, first if isinstance(first, str) else None)
        since, count = self._seen.get(key, (0.0, 0))
        if record.created - since >= 1.0:
            if count > PER_SECOND:
                suppressed = f"{record.getMessage()} (suppressed {count - PER_SECOND} like this)"
                record.msg, record.args = suppressed, None
            if len(self._seen) >= KINDS:
                self._seen.clear()
            since, count = record.created, 0
        self._seen[key] = (since, count + 1)
        return count < PER_SECOND


def setup(level: str = "info", fmt: str = "human", stream: TextIO | None = None) -> None:
    """Send all logging of this process to `stream` (default: standard error)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Json() if fmt == "json" else Human())
    handler.addFilter(RateLimit())
    handler.addFilter(RedactingFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if level == "info" else level.upper())
    logging.getLogger("tidegate").setLevel(level.upper())
    logging.captureWarnings(True)
