"""What an answer is kept as, and how it is given again."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any, Final

import orjson

from tidegate.api.coding import decode
from tidegate.api.formats import AiAnswer, AiUsage, find_format, format_names

from .asked import Asked

STREAMS: Final = ("text/event-stream", "application/x-ndjson", "application/vnd.amazon.eventstream")


class Unfit(Exception):
    """Why an answer is not kept, in words."""


def load_formats() -> None:
    """Import all formats: on the first call that would block the loop. In a thread."""
    for name in format_names():
        with suppress(ValueError):
            find_format(name).read_answer(b"", stream=True)


def plain(body: bytes, coding: str, most: int) -> bytes:
    """A body without its content coding. Raises Unfit."""
    if not coding:
        return body
    try:
        return decode(body, coding, most)
    except ValueError as error:
        raise Unfit(f"its content coding can't be undone within bounds: {error}") from None


def to_keep(asked: Asked, body: bytes, finishes: Collection[str]) -> tuple[bytes, AiUsage | None]:
    """(the whole answer as JSON of the caller's format, usage). Raises Unfit."""
    call = asked.call
    if call is None:
        return body, _embedded(body)
    own = find_format(call.format)
    streamed = asked.stream and asked.content_type in (*STREAMS, "application/json")
    if asked.content_type not in (*STREAMS, "application/json"):
        raise Unfit(f"an answer of type {asked.content_type or 'none'} is not kept")
    answer = _read(asked, body, stream=streamed)
    for finish in answer.finishes or ("",):
        if finish not in finishes:
            raise Unfit(f"it ended with {finish or 'nothing'}")
    usage = answer.usage
    if streamed:
        _, body = own.write_answer(answer, call.request, stream=False)
    return body, usage


def _read(asked: Asked, body: bytes, *, stream: bool) -> AiAnswer:
    """A stream passes as the provider sent it, or gathered and translated: either is read."""
    call = asked.call
    assert call is not None
    error = ""
    for name in dict.fromkeys((call.provider_format or call.format, call.format)):
        try:
            return find_format(name).read_answer(body, stream=stream)
        except (ValueError, LookupError) as caught:
            error = error or str(caught)
    raise Unfit(f"it can't be read: {error}")


class _Embedded:
    """The usage of embeddings: what went in."""

    output = cache_read = cache_write = cache_write_1h = reasoning = 0
    audio_input = audio_output = 0

    def __init__(self, tokens: int) -> None:
        self.input = tokens


def _embedded(body: bytes) -> AiUsage | None:
    """The usage of an answer with embeddings. Raises Unfit where it has none."""
    try:
        value: Any = orjson.loads(body)
    except ValueError:
        raise Unfit("it is not JSON") from None
    kinds = ("data", "embedding", "embeddings")
    if not isinstance(value, dict) or not any(value.get(kind) for kind in kinds):
        raise Unfit("it has no embeddings")
    usage = value.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return _Embedded(tokens) if isinstance(tokens, int) else None


def replayed(asked: Asked, body: bytes, target: str) -> tuple[str, bytes, AiUsage | None]:
    """(content type, body, usage) of what is kept, as the caller wants it. ValueError."""
    call = asked.call
    if call is None:
        return "application/json", body, None
    own = find_format(call.format)
    answer = own.read_answer(body, stream=False)
    usage = call.usage = answer.usage
    call.finish = answer.finishes[0] if answer.finishes else ""
    if not call.request.stream:
        return "application/json", body, usage
    kind, stream = own.write_answer(answer, call.request, stream=True, target=target)
    return kind, stream, usage
