"""Answers read from bytes and written again, whole or as a stream: what a cache needs."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import cast

from .events import (
    Cited,
    Collector,
    Delta,
    End,
    Event,
    Finished,
    PartStart,
    PartStop,
    Start,
    UsageUpdate,
)
from .format import Format, Framing, load_object
from .framing import CONTENT_TYPES, decoder, encoder
from .losses import Losses
from .model import Media, Part, Reasoning, Refusal, Request, Response, Text, ToolCall
from .wire import dumps

_UNREAD = (KeyError, TypeError, AttributeError, IndexError, AssertionError)


def read_answer(source: Format, content: bytes, *, stream: bool) -> Response:
    """The answer in a body of `source`. ValueError: it is none, it failed, or it is not whole."""
    try:
        if stream:
            return _read_stream(source, content)
        return source.parse_response(load_object(content, "the answer"))
    except _UNREAD as error:
        raise ValueError(f"the answer is not of the format {source.name}: {error!r}") from None


def _read_stream(source: Format, content: bytes) -> Response:
    wire, parser, collector = decoder(_framing(content)), source.stream_parser(), Collector()
    for event in [*wire.feed(content), *wire.end()]:
        for one in parser.feed(event):
            collector.add(one)
    for one in parser.end():
        collector.add(one)
    if collector.response is None or collector.failure is not None or not collector.ended:
        raise ValueError("the stream is not whole")
    return collector.response


def _framing(content: bytes) -> Framing:
    """How a stream is framed, by its first byte: none begins like another."""
    first = content.lstrip()[:1]
    if first == b"[":
        return "json-array"
    if first == b"{":
        return "ndjson"
    return "aws" if first == b"\0" else "sse"


def write_answer(
    target: Format, answer: Response, request: Request, *, stream: bool, path: str, query: str
) -> tuple[str, bytes]:
    """(content type, body) of an answer to `request` at `path`, in the format `target`."""
    losses = Losses(target.name)
    if not stream:
        return "application/json", _json(target.write_response(answer, losses, request))
    framing = target.response_framing(path, query)
    writer, wire = target.stream_writer(losses, request), encoder(framing)
    events = [wire_event for event in spread(answer) for wire_event in writer.write(event)]
    body = b"".join([wire.feed(event) for event in events]) + wire.end()
    return CONTENT_TYPES[framing], body


def _json(value: object) -> bytes:
    return dumps(value).encode()


def spread(answer: Response) -> Iterator[Event]:
    """The events that add up to a whole answer: each part in one piece."""
    yield Start(answer.family, answer.id, answer.model, answer.created, None, answer.extras)
    for candidate in answer.candidates:
        number = candidate.index
        for index, part in enumerate(candidate.parts):
            yield PartStart(index, _beginning(part), number)
            yield from _deltas(index, part, number)
            yield PartStop(index, number)
        if candidate.finish is not None:
            yield Finished(candidate.finish, number, candidate.extras)
    if answer.usage is not None:
        yield UsageUpdate(answer.usage)
    yield End()


def _beginning(part: Part) -> Part:
    """A part before any of its text has come."""
    match part:
        case Text():
            blank: Part = replace(part, text="", citations=None, logprobs=None, signature="")
        case Reasoning():
            blank = replace(part, text="", signature="", encrypted="")
        case ToolCall():
            blank = replace(part, arguments="", signature="")
        case Media():
            blank = replace(part, data="", transcript="")
        case Refusal():
            blank = replace(part, text="")
        case _:
            blank = part
    return deepcopy(blank)


def _deltas(index: int, part: Part, number: int) -> Iterator[Event]:
    match part:
        case Text() | Reasoning() | Refusal():
            logprobs = part.logprobs if isinstance(part, Text) else None
            if part.text or logprobs:
                yield Delta(index, part.text, "text", number, logprobs)
        case ToolCall():
            yield Delta(index, part.arguments, "arguments", number)
        case Media():
            if part.data:
                yield Delta(index, part.data, "data", number)
            if part.transcript:
                yield Delta(index, part.transcript, "transcript", number)
        case _:
            return
    if isinstance(part, Text):
        for citation in part.citations or ():
            yield Cited(index, citation, number)
    if isinstance(part, Reasoning) and part.encrypted:
        yield Delta(index, part.encrypted, "encrypted", number, origin=part.origin)
    signature = cast(str, getattr(part, "signature", ""))
    if signature:
        origin = cast(str, getattr(part, "origin", ""))
        yield Delta(index, signature, "signature", number, origin=origin)
