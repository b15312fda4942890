"""Calls besides chat: OpenAI's shapes, which pass with nothing but the model's name changed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import orjson
from mitmproxy import http

from tidegate.api import Event, EventResult, Exchange
from tidegate.api.upstream import BodyStream


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path that callers use: the kind of the call, and the path below a provider's base URL."""

    kind: str
    path: str


ENDPOINTS: Final = {
    f"{prefix}{path}": Endpoint(kind, path)
    for kind, paths in {
        "embeddings": ("/embeddings",),
        "images": ("/images/generations", "/images/edits", "/images/variations"),
        "speech": ("/audio/speech",),
        "transcription": ("/audio/transcriptions", "/audio/translations"),
        "moderations": ("/moderations",),
        "rerank": ("/rerank",),
    }.items()
    for path in paths
    for prefix in ("/v1", "/openai/v1", "/v2" if kind == "rerank" else "/v1")
}

_BOUNDARY: Final = re.compile(rb'boundary="?([^";,\s]{1,70})"?', re.IGNORECASE)
_NAMED_MODEL: Final = re.compile(rb'\bname="?model"?(?:\s*;|\s*$)', re.IGNORECASE)


def model_named(request: http.Request) -> str:
    """The model that a body names, in JSON or in a form; "": none. ValueError: it is no body."""
    content = request.data.content or b""
    boundary = _boundary(request)
    if boundary is not None:
        start, end = _model_part(content, boundary)
        return content[start:end].decode()
    body = orjson.loads(content)
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")
    name = body.get("model")
    return name if isinstance(name, str) else ""


def renamed(request: http.Request, model: str) -> bytes:
    """The body with another model."""
    content = request.data.content or b""
    boundary = _boundary(request)
    if boundary is not None:
        start, end = _model_part(content, boundary)
        return content[:start] + model.encode() + content[end:]
    body = orjson.loads(content)
    body["model"] = model
    return orjson.dumps(body)


def _boundary(request: http.Request) -> bytes | None:
    """The boundary of a form (RFC 7578); None: the body is none. ValueError: it has no boundary."""
    kind = _content_type(request)
    if not kind.lower().startswith(b"multipart/form-data"):
        return None
    found = _BOUNDARY.search(kind)
    if found is None:
        raise ValueError("the form has no boundary")
    return found[1]


def _model_part(content: bytes, boundary: bytes) -> tuple[int, int]:
    """Where the value of the part `model` stands; ValueError where there is not one of them.

    Two would be read differently by one who takes the first and one who takes the last.
    """
    found: list[tuple[int, int]] = []
    mark = b"\r\n--" + boundary
    at = 0 if content.startswith(mark[2:]) else content.find(mark)
    while at >= 0:
        following = content.find(mark, at + len(mark) - 2)
        head = content.find(b"\r\n\r\n", at)
        if following < 0 or head < 0:
            break
        if head < following and _names_model(content[at:head]):
            found.append((head + 4, following))
        at = following
    if len(found) != 1:
        raise ValueError("the form has no field `model`, or several")
    return found[0]


def _names_model(head: bytes) -> bool:
    lines = head.split(b"\r\n")
    return any(
        line.lower().startswith(b"content-disposition:") and _NAMED_MODEL.search(line)
        for line in lines
    )


def _content_type(request: http.Request) -> bytes:
    for name, value in request.data.headers.fields:
        if name.lower() == b"content-type":
            return value
    return b""


class Passing:
    """A codec that changes the path and the model, and nothing of the answer."""

    def __init__(self, path: str, model: str) -> None:
        self._path = path
        self._model = model

    def encode(self, exchange: Exchange, request: http.Request) -> http.Request:
        data = request.data
        query = data.path.partition(b"?")[2]
        data.path = self._path.encode() + (b"?" + query if query else b"")
        if model_named(request) != self._model:
            data.content = renamed(request, self._model)
        return request

    def decode(self, exchange: Exchange, response: http.Response) -> http.Response:
        return response

    def decode_head(self, exchange: Exchange, response: http.Response) -> BodyStream:
        return _Unchanged()

    def decode_event(self, exchange: Exchange, event: Event) -> EventResult:
        return event

    def decode_end(self, exchange: Exchange) -> EventResult:
        return None


class _Unchanged:
    """A body that passes."""

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""
