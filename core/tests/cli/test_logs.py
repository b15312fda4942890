"""What goes to the log, and how much of it."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from tidegate.cli import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, ours = logging.getLogger(), logging.getLogger("tidegate")
    before = root.handlers[:], root.level, ours.level
    yield io.StringIO()
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.captureWarnings(False)


def test_json_lines_are_redacted(stream: io.StringIO) -> None:
    logs.setup(fmt="json", stream=stream)
    logging.getLogger("tidegate.x").warning("sent %s", "authorization: Bearer sk-abcdef123456789")
    entry = json.loads(stream.getvalue())
    assert entry["level"] == "warning"
    assert entry["logger"] == "tidegate.x"
    assert "abcdef" not in entry["message"]


def test_an_exception_is_redacted_too(stream: io.StringIO) -> None:
    logs.setup(stream=stream)
    try:
        raise ValueError("password=hunter2222")
    except ValueError:
        logging.getLogger("tidegate.x").exception("failed")
    assert "ValueError" in stream.getvalue()
    assert "hunter" not in stream.getvalue()


def record(at: float, text: str = "full: %s", *args: object) -> logging.LogRecord:
    made = logging.LogRecord("tidegate.x", logging.WARNING, "", 0, text, args, None)
    made.created = at
    return made


def test_a_flood_is_cut_and_counted() -> None:
    limit = logs.RateLimit()
    passed = [r for r in (record(100.0, "full: %s", "a") for _ in range(50)) if limit.filter(r)]
    assert len(passed) == logs.PER_SECOND
    other = record(100.0, "full: %s", "b")
    assert limit.filter(other)
    later = record(101.5, "full: %s", "a")
    assert limit.filter(later)
    assert later.getMessage() == "full: a (suppressed 45 like this)"
