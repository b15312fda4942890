"""The JSON lines of an access log, as far as they tell of an exchange: heads without bodies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import orjson

from tidegate.api.cassette import principal_of
from tidegate.api.recording import Answer, Recording


def from_lines(lines: Iterable[bytes], name: str) -> Iterator[Recording]:
    """A recording for each line that names method and path. Raises ValueError."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = orjson.loads(line)
        except ValueError:
            raise ValueError(f"line {number} is not JSON") from None
        if not isinstance(entry, dict) or not entry.get("method") or not entry.get("path"):
            raise ValueError(f'line {number}: "method" and "path" are needed')
        yield _recording(entry, f"{name}#{number}")


def _recording(entry: dict[str, Any], name: str) -> Recording:
    query = entry.get("query")
    headers = entry.get("headers") or {}
    answered = entry.get("outcome", "answered") == "answered" and entry.get("status")
    return Recording(
        method=entry["method"],
        url=f"http://{entry.get('host') or 'unknown'}{entry['path']}{f'?{query}' if query else ''}",
        headers=tuple((str(n), str(v)) for n, v in headers.items()),
        answer=Answer(int(entry["status"])) if answered else None,
        id=entry.get("request_id", ""),
        now=datetime.fromisoformat(entry["time"]).timestamp() if entry.get("time") else 0.0,
        client=entry.get("client") or "",
        listener=entry.get("listener") or "gateway",
        principal=principal_of(entry.get("principal") or ""),
        name=name,
    )
