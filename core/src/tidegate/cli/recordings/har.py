"""HAR 1.2 (http://www.softwareishard.com/blog/har-12-spec/): documents as values, both ways.

What HAR has no place for (the pieces of a stream with their times, the seed, the principal) goes
into one field of ours per entry, `_tidegate`; other readers pass over it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from tidegate.api.cassette import principal_of
from tidegate.api.recording import UNRECORDED, Answer, Fields, Recording, media_type, value_of

from .extra import chunks_of, chunks_to_json, cut_events

EXTRA: Final = "_tidegate"


def from_har(document: Mapping[str, Any], name: str) -> list[Recording]:
    """The exchanges of a HAR document. Raises ValueError where it is none."""
    try:
        entries = document["log"]["entries"]
        return [_recording(entry, f"{name}#{i}") for i, entry in enumerate(entries, 1)]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a HAR document: {type(error).__name__}: {error}") from None


def _recording(entry: Mapping[str, Any], name: str) -> Recording:
    asked, extra = entry["request"], entry.get(EXTRA, {})
    headers = _fields(asked["headers"])
    posted = asked.get("postData", {})
    body = _content(posted.get("text", ""), posted.get("encoding", ""))
    if not body and posted.get("params"):
        pairs = (f"{p['name']}={p.get('value', '')}" for p in posted["params"])
        body = "&".join(pairs).encode()
    return Recording(
        method=asked["method"],
        url=asked["url"].partition("#")[0],
        headers=headers,
        body=body,
        answer=_answer(entry["response"], extra),
        id=extra.get("id") or value_of(_fields(asked["headers"], keep_all=True), "x-request-id"),
        now=_seconds(entry.get("startedDateTime", "")),
        seed=int(extra.get("seed", 0)),
        client=extra.get("client", ""),
        listener=extra.get("listener", "gateway"),
        principal=principal_of(extra.get("principal", "")),
        name=name,
    )


def _answer(got: Mapping[str, Any], extra: Mapping[str, Any]) -> Answer | None:
    if not got.get("status"):
        return None  # blocked, or never answered: browsers write 0
    content = got.get("content", {})
    body = _content(content.get("text", ""), content.get("encoding", ""))
    headers = tuple(f for f in _fields(got["headers"]) if f[0].lower() != "content-encoding")
    answer = Answer(int(got["status"]), got.get("statusText", ""), headers, body)
    if "chunks" in extra:
        return replace(answer, content=b"", chunks=chunks_of(extra["chunks"]))
    return cut_events(answer)


def _fields(items: Iterable[Mapping[str, str]], *, keep_all: bool = False) -> Fields:
    pairs = [(str(item["name"]), str(item["value"])) for item in items]
    return tuple(
        (name, value.encode("utf-8").decode("latin-1") if not value.isascii() else value)
        for name, value in pairs
        if not name.startswith(":") and (keep_all or name.lower() not in UNRECORDED)
    )


def _content(text: str, encoding: str) -> bytes:
    return base64.b64decode(text) if encoding == "base64" else text.encode()


def _seconds(stamp: str) -> float:
    try:
        return round(datetime.fromisoformat(stamp).timestamp(), 3)
    except ValueError:
        return 0.0


# -- writing ----------------------------------------------------------------------------------


def to_har(recordings: Iterable[Recording], version: str) -> dict[str, Any]:
    """A HAR document of these exchanges."""
    return {
        "log": {
            "version": "1.2",
            "creator": {"name": "tidegate", "version": version},
            "entries": [_entry(recording) for recording in recordings],
        }
    }


def _entry(recording: Recording) -> dict[str, Any]:
    answer = recording.answer
    chunks = None if answer is None else answer.chunks
    spent = sum(chunk.delay for chunk in chunks) * 1000 if chunks else 0
    extra: dict[str, Any] = {
        "id": recording.id,
        "seed": str(recording.seed),
        "client": recording.client,
        "listener": recording.listener,
        "principal": recording.principal.id if recording.principal else "",
    }
    if chunks is not None:
        extra["chunks"] = chunks_to_json(chunks)
    request: dict[str, Any] = {
        "method": recording.method,
        "url": recording.url,
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _named(recording.headers),
        "queryString": _named(parse_qsl(urlsplit(recording.url).query, keep_blank_values=True)),
        "headersSize": -1,
        "bodySize": len(recording.body),
    }
    if recording.body:
        request["postData"] = {"mimeType": recording.media_type, **_text(recording.body)}
    return {
        "startedDateTime": datetime.fromtimestamp(recording.now, UTC).isoformat(),
        "time": spent,
        "request": request,
        "response": _response(answer),
        "cache": {},
        "timings": {"send": 0, "wait": spent, "receive": 0},
        EXTRA: extra,
    }


def _response(answer: Answer | None) -> dict[str, Any]:
    found = answer or Answer(0)
    content = {"size": len(found.body), "mimeType": media_type(found.headers), **_text(found.body)}
    return {
        "status": found.status,
        "statusText": found.reason,
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": _named(found.headers),
        "content": content,
        "redirectURL": "",
        "headersSize": -1,
        "bodySize": len(found.body),
    }


def _named(pairs: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in pairs]


def _text(content: bytes) -> dict[str, str]:
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:
        return {"text": base64.b64encode(content).decode(), "encoding": "base64"}
