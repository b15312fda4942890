"""Writes the pages that are made from the code: `uv run python docs/build.py`.

A test fails when a page and the code say different things.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from tidegate.api.errors import CORE_CODES, ErrorCode

HERE = Path(__file__).parent


def errors() -> str:
    """`errors.md`: every error code that a caller can meet."""
    rows: dict[tuple[str, int], tuple[ErrorCode, str]] = {}
    for code in CORE_CODES:
        rows[code.code, code.status] = (code, "core")
    for point in sorted(entry_points(group="tidegate.plugins"), key=lambda p: p.name):
        for code in point.load().codes:
            rows.setdefault((code.code, code.status), (code, point.name))
    table = [
        f"| `{code.code}` | {code.status} | {code.message} | {where} |"
        for _, (code, where) in sorted(rows.items(), key=lambda r: (r[0][1], r[0][0]))
    ]
    return "\n".join(
        [
            "# Error codes",
            "",
            "An error of the gateway is JSON, whatever went wrong, and carries the request id that",
            "`X-Request-Id` has too:",
            "",
            "```json",
            '{"error": {"code": "rate_limited", "message": "…", "request_id": "…"}}',
            "```",
            "",
            "The code is stable; the message may change. 429 and 503 carry `Retry-After`. Once a",
            "stream has begun, an error is an event of the stream, which then ends without its",
            "normal end mark.",
            "",
            "| code | status | message | from |",
            "| --- | --- | --- | --- |",
            *table,
            "",
            "Made from the code by `uv run python docs/build.py`.",
            "",
        ]
    )


PAGES = {"errors.md": errors}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")
        print(f"wrote docs/{name}")
