"""What is awaited of an answer before any of it is passed on: all of it, or how a stream begins."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from mitmproxy import http

from tidegate.api import Exchange, errors
from tidegate.api.upstream import Codec, Upstream
from tidegate.runtime.coding import TooLarge, Undecodable, within

from .responses import ResponseReader

if TYPE_CHECKING:
    from .exchange import Carriage

log = logging.getLogger("tidegate.lane")

HELD: Final = 64 * 1024
"""Bytes of a stream that are held at most until it is known how it begins."""


def take_whole(
    carriage: Carriage, codec: Codec | None, reader: ResponseReader, limit: int
) -> http.Response | None:
    """The answer with its body, decoded; None: it was not fit, and the exchange has failed."""
    exchange = carriage.exchange
    response = exchange.response
    assert response is not None
    content = response.data.content = reader.take()
    try:
        within(reader.fields, content, limit)
    except TooLarge:
        carriage.fail(errors.UPSTREAM_BODY_TOO_LARGE.denial())
        return None
    except Undecodable:
        carriage.fail(errors.UPSTREAM_PROTOCOL_ERROR.denial())
        return None
    if codec is not None:
        try:
            response = exchange.response = codec.decode(exchange, response)
        except Exception:
            decoding_failed(carriage)
            return None
    return response


def decoding_failed(carriage: Carriage) -> None:
    """The codec raised: the exchange fails."""
    log.exception("the codec failed to decode (exchange %s)", carriage.exchange.id)
    carriage.fail(errors.PLUGIN_TRANSFORM_FAILED.denial())


def may_fail(chosen: Upstream | None, codec: Codec | None, reader: ResponseReader) -> bool:
    """Whether the codec is asked how a stream begins: where another attempt could be made."""
    return (
        chosen is not None
        and chosen.judges
        and hasattr(codec, "decode_first")
        and reader.status < 400
        and not reader.head_only
        and not any(name.lower() == b"content-encoding" for name, _ in reader.fields)
    )


def opened(codec: Codec, exchange: Exchange, reader: ResponseReader) -> http.Response | bool:
    """True: the stream has begun. False: more must come. A response: the failure it begins with."""
    data = b"".join(reader.body)
    decode_first = getattr(codec, "decode_first")  # noqa: B009, it is optional in the protocol
    found: http.Response | bool = bool(data) and decode_first(exchange, data)
    if found is False:
        return bool(reader.complete or reader.failed or len(data) >= HELD)
    return found
