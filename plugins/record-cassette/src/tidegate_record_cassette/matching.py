"""When two requests are the same: a canonical form of each, compared. Values in, values out.

An LLM call is told by its path and its body. Of it count the format ("provider"), the model, the
messages, the tools and the sampling options; ids count by where they occur again, not by what
they are; fields of the head don't count. Of any other request count method, path, query and
body. Both forms are JSON-able and are shown, as they are, where a request has no cassette.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from pydantic import field_validator

from tidegate.api import Model
from tidegate.api.recording import Recording, value_of
from tidegate.api.scrub import Path, json_paths

FORMATS: Final[tuple[tuple[str, re.Pattern[str], str], ...]] = (
    ("openai chat", re.compile(r"/chat/completions$"), "messages"),
    ("openai responses", re.compile(r"/responses$"), "model"),
    ("openai embeddings", re.compile(r"/embeddings$"), "input"),
    ("openai completions", re.compile(r"/completions$"), "prompt"),
    ("anthropic messages", re.compile(r"/messages$"), "messages"),
    ("gemini", re.compile(r":(?:streamG|g)enerateContent$"), "contents"),
    ("gemini embeddings", re.compile(r":(?:e|batchE)mbedContents?$"), ""),
)
"""Name, path, and a key that the body then has ("": any)."""

BOOKKEEPING: Final = frozenset(
    {"metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user"}
)
"""Options of an LLM call that say nothing about the answer."""

IDS: Final = frozenset(
    {"call_id", "id", "item_id", "previous_response_id", "tool_call_id", "tool_use_id"}
)

_DATES: Final = re.compile(
    r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?\b"
)
_UUIDS: Final = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)
_BOUNDARY: Final = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)

SHOWN: Final = 60
"""Lines of a difference that are shown."""
LONGEST: Final = 160


class Matching(Model):
    """`match = { … }`: what counts.

    `host`: the request's host as well. `headers`: these fields as well. `ignore`: values of JSON
    bodies that don't count, such as "seed" or "messages.*.name". `ignore_query`: parameters
    that don't. `ignore_text`: in texts of LLM calls, dates and UUIDs count only where several
    cassettes differ in nothing else.
    """

    host: bool = False
    headers: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    ignore_query: tuple[str, ...] = ()
    ignore_text: bool = True

    @field_validator("ignore")
    @classmethod
    def _paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        json_paths(paths)
        return paths

    def canonical(self, recording: Recording) -> dict[str, Any]:
        """What counts of a (scrubbed) request."""
        path = recording.path
        query = parse_qsl(recording.query, keep_blank_values=True)
        kept = sorted(pair for pair in query if pair[0] not in self.ignore_query)
        form: dict[str, Any] = {"method": recording.method, "path": path}
        if self.host:
            form["host"] = recording.host
        if kept:
            form["query"] = [f"{name}={value}" for name, value in kept]
        wanted = {name.lower(): value_of(recording.headers, name.lower()) for name in self.headers}
        if wanted:
            form["headers"] = wanted
        value = json_of(recording)
        for ignored in json_paths(self.ignore):
            remove(value, ignored)
        name = llm_format(recording, value)
        if name and isinstance(value, dict):
            body = {k: v for k, v in value.items() if k not in BOOKKEEPING}
            return {"call": name, **form, "body": numbered(body, {})}
        if value is not None:
            return {**form, "body": value}
        return {**form, "body": digest(unbounded(recording))} if recording.body else form


def json_of(recording: Recording) -> Any:
    """The JSON value of a request's body, or None."""
    if not recording.body or recording.body.lstrip()[:1] not in b"{[":
        return None
    try:
        return orjson.loads(recording.body)
    except ValueError:
        return None


def llm_format(recording: Recording, body: Any) -> str:
    """The format of an LLM call, or ""."""
    if recording.method != "POST" or not isinstance(body, Mapping):
        return ""
    path = recording.path.rstrip("/")
    return next((n for n, at, key in FORMATS if at.search(path) and (not key or key in body)), "")


def numbered(value: Any, seen: dict[str, str]) -> Any:
    """`value` with each id replaced by its place in the order of first occurrence."""
    if isinstance(value, dict):
        return {
            k: seen.setdefault(v, f"id {len(seen) + 1}")
            if k in IDS and isinstance(v, str)
            else numbered(v, seen)
            for k, v in value.items()
        }
    return [numbered(v, seen) for v in value] if isinstance(value, list) else value


def remove(value: Any, path: Path) -> None:
    """Take out of `value` what `path` leads to."""
    name, rest = path[0], path[1:]
    if isinstance(value, dict):
        for key in list(value) if name == "*" else [name] if name in value else []:
            if rest:
                remove(value[key], rest)
            else:
                del value[key]
    elif isinstance(value, list) and name == "*":
        for item in value if rest else ():
            remove(item, rest)


def unbounded(recording: Recording) -> bytes:
    """A body; that of a form without its boundary, which chance makes (RFC 2046 §5.1.1)."""
    found = _BOUNDARY.search(value_of(recording.headers, "content-type"))
    body = recording.body
    return body.replace(found[1].encode("latin-1"), b"boundary") if found else body


def digest(content: bytes) -> str:
    """A body as its length and digest."""
    return f"{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()[:16]}"


def key_of(form: dict[str, Any]) -> bytes:
    """Equal for equal canonical forms."""
    return orjson.dumps(form, option=orjson.OPT_SORT_KEYS)


def loose(key: bytes) -> bytes:
    """The key without the dates and UUIDs of its texts."""
    text = key.decode("utf-8", "replace")
    return _UUIDS.sub("<uuid>", _DATES.sub("<date>", text)).encode()


# -- what differs -----------------------------------------------------------------------------


def lines_of(form: dict[str, Any]) -> list[str]:
    """A canonical form as lines for a person."""
    text = json.dumps(form, indent=2, ensure_ascii=False, sort_keys=True)
    return [line if len(line) <= LONGEST else line[:LONGEST] + "…" for line in text.split("\n")]


def nearest(
    form: dict[str, Any], others: Iterable[tuple[str, dict[str, Any]]]
) -> tuple[str, dict[str, Any]] | None:
    """Of `others`, the (name, form) that has most in common with `form`; None without any."""
    wanted = set(lines_of(form))

    def likeness(other: tuple[str, dict[str, Any]]) -> tuple[bool, float]:
        lines = set(lines_of(other[1]))
        same = form["method"] == other[1]["method"] and form["path"] == other[1]["path"]
        return same, len(wanted & lines) / len(wanted | lines)

    return max(others, key=likeness, default=None)


def difference(name: str, old: dict[str, Any], new: dict[str, Any]) -> str:
    """A unified diff from a cassette to a request, in canonical form, within bounds."""
    lines = list(
        difflib.unified_diff(lines_of(old), lines_of(new), name, "this request", lineterm="", n=2)
    )
    if len(lines) > SHOWN:
        lines[SHOWN:] = [f"… {len(lines) - SHOWN} lines more"]
    return "\n".join(lines)
