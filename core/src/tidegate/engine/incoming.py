"""What an upstream answered: gathered or streamed, transformed, framed for the client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mitmproxy import http

from tidegate.api import errors
from tidegate.runtime.coding import Decoder, TooLarge, Undecodable, coding_of, within
from tidegate.runtime.messages import make_headers

from .answers import content_length, streamed, whole
from .call import Call
from .relay import Relay

if TYPE_CHECKING:
    from .bridge import Bridge

STREAM_OVER: Final = 64 * 1024
"""Bytes of Content-Length up to which an answer is held until it is whole, or for `HOLD`."""


async def receive_head(bridge: Bridge, call: Call, flow: http.HTTPFlow) -> None:
    """Decide how the body goes; where it streams, transform the head now."""
    exchange, pipeline = call.exchange, call.pipeline
    response = flow.response
    assert response is not None
    exchange.response = response
    if call.bodiless:
        return
    sse = media_type(response) == b"text/event-stream"
    length = content_length(response)
    gather = pipeline.gather_response
    if gather == "always" or (gather and not sse):
        call.response_limit = pipeline.response_limit
        if (length or 0) > call.response_limit:
            call.refused = errors.UPSTREAM_BODY_TOO_LARGE.denial()
        return
    small = length is not None and length <= STREAM_OVER and not sse
    if small and not call.held:
        call.held = True
        call.response_limit = STREAM_OVER
        return
    call.held = False
    try:
        sees = sse and pipeline.sees_events(response)
        decoder = decoder_of(response) if sees else None
    except Undecodable:
        call.refused = errors.UPSTREAM_PROTOCOL_ERROR.denial()
        return
    sinks = await bridge.drive(call, pipeline.response(exchange))
    response = exchange.response
    if exchange.denial is not None:
        call.refused = exchange.denial
    elif response.data.content is not None:  # a transform answered in its place
        call.replaced = True
        flow.response = whole(exchange, response, close=call.close)
    else:
        flow.response = streamed(
            exchange, response, keep_length=not (sees and pipeline.decodes), close=call.close
        )
        call.relay = Relay(exchange, pipeline, sinks, sse=sse, parsed=sees, decoder=decoder)


async def receive_whole(bridge: Bridge, call: Call, flow: http.HTTPFlow) -> None:
    """Transform a whole answer."""
    exchange, pipeline = call.exchange, call.pipeline
    response = flow.response
    assert response is not None
    call.end_attempt()
    if pipeline.gather_response:
        data = response.data
        try:
            within(data.headers.fields, data.content or b"", call.response_limit)
        except TooLarge:
            call.refused = errors.UPSTREAM_BODY_TOO_LARGE.denial()
            return
        except Undecodable:
            call.refused = errors.UPSTREAM_PROTOCOL_ERROR.denial()
            return
    await bridge.drive(call, pipeline.response(exchange))
    if exchange.denial is not None:
        call.refused = exchange.denial
        return
    assert exchange.response is not None
    flow.response = whole(exchange, exchange.response, close=call.close)


def media_type(message: http.Message) -> bytes:
    """The media type of a message, lower case, without parameters."""
    for name, value in message.data.headers.fields:
        if len(name) == 12 and name.lower() == b"content-type":
            return bytes(value.partition(b";")[0].strip().lower())
    return b""


def decoder_of(response: http.Response) -> Decoder | None:
    """Undoes the coding of a stream whose events hooks will see. Raises Undecodable."""
    coding = coding_of(response.data.headers.fields)
    if not coding:
        return None
    decoder = Decoder(coding)
    kept = [f for f in response.data.headers.fields if f[0].lower() != b"content-encoding"]
    response.data.headers = make_headers(tuple(kept))
    return decoder
