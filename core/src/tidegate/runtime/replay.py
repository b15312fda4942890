"""Event hooks over a stream that is there whole: cached, gathered, or made by a `route` hook.

What a stream meets as it passes it must meet here too: an event hook may be the redactor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mitmproxy import http

from tidegate.api import errors
from tidegate.api.coding import coding_of, decode
from tidegate.api.exchange import Exchange
from tidegate.api.sse import LIMIT, SseParser
from tidegate.api.types import SseEvent

from .faults import StreamCut

if TYPE_CHECKING:
    from .pipeline import Pipeline

_STREAM: Final = b"text/event-stream"
_HOOKS: Final = ("cache_lookup", "route")
"""Hooks whose answers meet all event hooks: the others' have passed them by."""


def transform_stream(pipeline: Pipeline, exchange: Exchange) -> None:
    """Put what the event hooks make of a whole stream in its place, or a denial."""
    response = exchange.response
    assert response is not None
    content = response.data.content
    answered = exchange.answered_by
    local = answered is not None and not exchange.from_cache
    if (
        not content
        or exchange.denial is not None
        or (local and answered.hook not in _HOOKS)
        or not is_stream(response)
        or not pipeline.sees_events(response)
    ):
        return
    fields = response.data.headers.fields
    coding = coding_of(fields)
    limit = pipeline.response_limit or pipeline.generation.settings.limits.gather
    try:
        if coding:
            content = decode(content, coding, limit)
        parser = SseParser(max(LIMIT, len(content)))
        out: list[bytes] = []
        for item in [*parser.feed(content), *parser.end()]:
            if isinstance(item, bytes):
                out.append(item)
            else:
                sent = pipeline.event(exchange, item)
                out += [event.encode() for event in sent if isinstance(event, SseEvent)]
    except StreamCut as cut:
        exchange.denial = cut.denial
    except ValueError:
        exchange.denial = errors.UPSTREAM_PROTOCOL_ERROR.denial()
    else:
        response.data.content = b"".join(out)
        if coding:
            response.data.headers.fields = tuple(
                field for field in fields if field[0].lower() != b"content-encoding"
            )


def is_stream(response: http.Response) -> bool:
    """Whether a response says that it is made of server-sent events."""
    for name, value in response.data.headers.fields:
        if len(name) == 12 and name.lower() == b"content-type":
            return value[:17].lower() == _STREAM
    return False
