"""Passes the body of a streamed answer on: decoded, event by event, watched by sinks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mitmproxy import http

from tidegate.api import errors
from tidegate.api.exchange import Exchange
from tidegate.api.sse import SseParser
from tidegate.api.types import Denial, SseEvent
from tidegate.runtime.coding import Decoder, Undecodable
from tidegate.runtime.faults import StreamCut
from tidegate.runtime.messages import error_tail
from tidegate.runtime.pipeline import Pipeline
from tidegate.runtime.step import SafeSink


class Relay:
    """One streamed answer. `feed` and `end` give what goes to the client; StreamCut ends it.

    Sinks see the body before the event transforms.
    """

    __slots__ = ("_decoder", "_exchange", "_parser", "_pipeline", "_sinks", "_sse", "trailers")

    def __init__(
        self,
        exchange: Exchange,
        pipeline: Pipeline,
        sinks: Sequence[SafeSink],
        *,
        sse: bool,
        parsed: bool,
        decoder: Decoder | None = None,
    ) -> None:
        self._exchange = exchange
        self._pipeline = pipeline
        self._sinks = sinks
        self._sse = sse
        self._parser = SseParser() if parsed else None
        self._decoder = decoder
        self.trailers: http.Headers | None = None

    def feed(self, data: bytes) -> Iterable[bytes]:
        """What the client gets for these bytes, now."""
        if self._decoder is None:
            return self._pass(data)
        try:
            return [out for piece in self._decoder.feed(data) for out in self._pass(piece)]
        except Undecodable:
            raise StreamCut(errors.UPSTREAM_PROTOCOL_ERROR.denial()) from None

    def _pass(self, data: bytes) -> Iterable[bytes]:
        for sink in self._sinks:
            sink.write(data)
        if self._parser is None:
            return (data,)
        try:
            blocks = self._parser.feed(data)
        except ValueError:
            raise StreamCut(errors.UPSTREAM_BODY_TOO_LARGE.denial()) from None
        return self._events(blocks)

    def _events(self, blocks: list[SseEvent | bytes]) -> Iterable[bytes]:
        out: list[bytes] = []
        for block in blocks:
            if isinstance(block, bytes):
                out.append(block)
                continue
            for event in self._pipeline.event(self._exchange, block):
                assert isinstance(event, SseEvent)
                out.append(event.encode())
        return (b"".join(out),) if out else ()

    def end(self) -> Iterable[bytes]:
        """What is still to be sent at the body's end."""
        out: Iterable[bytes] = ()
        if self._decoder is not None and not self._decoder.complete:
            raise StreamCut(errors.UPSTREAM_PROTOCOL_ERROR.denial())
        if self._parser is not None:
            out = self._events(self._parser.end())
        self.close(complete=True)
        return out

    def close(self, *, complete: bool) -> None:
        """Tell the sinks that nothing more comes."""
        sinks, self._sinks = self._sinks, ()
        for sink in sinks:
            sink.close(complete=complete, trailers=self.trailers if complete else None)

    def cut(self, denial: Denial) -> bytes:
        """The last bytes of a stream that ends with an error, in its own grammar."""
        return error_tail(self._exchange, denial, events=True) if self._sse else b""
