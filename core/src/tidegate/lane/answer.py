"""Sends the answer of an exchange to its client: collected, transformed, framed, streamed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from mitmproxy import http

from tidegate.api import errors
from tidegate.api.types import Denial
from tidegate.api.upstream import BodyStream, Codec, Upstream
from tidegate.runtime.faults import StreamCut
from tidegate.runtime.heads import client_fields, merge_trailers
from tidegate.runtime.messages import error_tail

from .collecting import decoding_failed, may_fail, opened, take_whole
from .events import EventPipe, bound
from .framing import BODYLESS, CHUNKED, chunk, fields_block, last_chunk, status_line
from .stages import COLLECT, NEVER, RESPOND, STREAM

if TYPE_CHECKING:
    from tidegate.runtime.step import SafeSink

    from .delivery import Delivery
    from .exchange import Carriage
    from .origin import Origin

log = logging.getLogger("tidegate.lane")

EVENT_STREAM: Final = b"text/event-stream"
BACKLOG: Final = 256 * 1024
"""Bytes of an answer that may wait for hooks before the upstream is paused."""


class Answer:
    """One answer. `begun`: its first byte was sent; from then on it can only be cut."""

    __slots__ = (
        "_chunked",
        "_codec",
        "_delivery",
        "_events",
        "_idle",
        "_opens",
        "_origin",
        "_silent",
        "_sinks",
        "_translated",
        "begun",
        "carriage",
        "events",
    )

    def __init__(self, carriage: Carriage) -> None:
        self.carriage = carriage
        self.begun = False
        self.events = False
        self._chunked = False
        self._silent = False
        """Whether the answer has no body by its method or status."""
        self._sinks: tuple[SafeSink, ...] = ()
        self._delivery: Delivery | None = None
        self._origin: Origin | None = None
        self._events: EventPipe | None = None
        self._codec: Codec | None = None
        self._translated: BodyStream | None = None
        """What the codec wants the body to pass through, where that is not events to events."""
        self._idle = NEVER
        self._opens = False
        """Whether the first event of the stream is awaited."""

    # -- from the upstream ----------------------------------------------------------------------

    def receive(self, delivery: Delivery, origin: Origin, upstream: Upstream) -> None:
        """The head of an upstream's answer has come: see what is to be done with it."""
        carriage = self.carriage
        pipeline = carriage.pipeline
        self._delivery = delivery
        self._origin = origin
        self._codec = codec = upstream.codec
        self._idle = upstream.timeouts.idle
        reader = origin.reader
        self.events = reader.content_type[:17].lower() == EVENT_STREAM
        gather = pipeline.gather_response
        if codec is not None and not self._enter(codec, reader.status, gathered=gather == "always"):
            return
        passes = self.events or self._translated is not None
        whole = gather == "always" or (not passes and (gather or codec is not None))
        if reader.status >= 400:  # an error is decoded and judged whole, whatever its type
            chosen = carriage.exchange.upstream
            whole = whole or codec is not None or (chosen is not None and chosen.judges)
        self._opens = passes and not whole and may_fail(carriage.exchange.upstream, codec, reader)
        if self._opens:
            carriage.stage = COLLECT
            self._open()
        elif whole and not reader.head_only:
            carriage.stage = COLLECT
            self._collect()
        else:
            self._respond()

    def _enter(self, codec: Codec, status: int, *, gathered: bool) -> bool:
        """Show the head to a codec that asks for it; False where that failed."""
        decode_head = getattr(codec, "decode_head", None)
        if decode_head is None or gathered or status >= 400:
            return True
        exchange = self.carriage.exchange
        response = exchange.response
        assert response is not None
        try:
            self._translated = decode_head(exchange, response)
        except Exception:
            decoding_failed(self.carriage)
            return False
        if self._translated is not None:
            kind = response.headers.get("content-type", "")
            self.events = kind[:17].lower().encode() == EVENT_STREAM
        return True

    def give(self, response: http.Response) -> None:
        """Answer with what was made here in the upstream's place."""
        self.carriage.exchange.response = response
        self._respond()

    def more(self) -> None:
        """More of the upstream's answer has come."""
        stage = self.carriage.stage
        if stage == STREAM:
            self._stream()
        elif stage == COLLECT:
            self._open() if self._opens else self._collect()
        elif stage == RESPOND and self._origin is not None:
            reader = self._origin.reader
            if not reader.complete and sum(map(len, reader.body)) > BACKLOG:
                self.client_full()

    def _open(self) -> None:
        """Wait for the first event of a stream: a failure there is judged as a status is."""
        carriage, origin, codec = self.carriage, self._origin, self._codec
        assert origin is not None
        assert codec is not None
        assert self._delivery is not None
        try:
            found = opened(codec, carriage.exchange, origin.reader)
        except Exception:
            decoding_failed(self.carriage)
            return
        if found is False:
            carriage.connection.deadline = carriage.lane.now + self._idle
            return
        if found is not True:
            carriage.exchange.response = found
        if found is True or not self._delivery.rejected(found):
            self._respond()

    def _collect(self) -> None:
        """Wait for the whole body, within bounds; then it is the response's content."""
        carriage, origin = self.carriage, self._origin
        assert origin is not None
        assert self._delivery is not None
        reader = origin.reader
        limit = bound(carriage, self._codec)
        if reader.failed:
            carriage.fail(errors.UPSTREAM_PROTOCOL_ERROR.denial())
        elif reader.size > limit or (reader.length or 0) > limit:
            carriage.fail(errors.UPSTREAM_BODY_TOO_LARGE.denial())
        elif not reader.complete:
            carriage.connection.deadline = carriage.lane.now + self._idle
        else:
            response = take_whole(carriage, self._codec, reader, limit)
            if response is None:
                return
            if reader.status >= 400 and self._delivery.rejected(response):
                return
            self._respond()

    def _respond(self) -> None:
        carriage = self.carriage
        carriage.stage = RESPOND
        carriage.run(carriage.pipeline.response(carriage.exchange), self._responded)

    def _responded(self, sinks: tuple[SafeSink, ...]) -> None:
        """The response hooks have run: begin to send."""
        carriage, origin, delivery = self.carriage, self._origin, self._delivery
        exchange = carriage.exchange
        self._sinks = tuple(sink for sink in sinks if sink.open)
        if exchange.denial is not None:
            carriage.fail(exchange.denial)
            return
        response = exchange.response
        assert response is not None
        content = response.data.content
        if content is not None or origin is None:
            if delivery is None:
                pass  # made here
            elif origin is not None and origin.reader.complete:
                delivery.complete()
            else:  # a hook put another body in its place: the upstream's is not wanted
                delivery.abandon("")
            carriage.stage = STREAM
            self.send_whole(response, content or b"")
            carriage.end()
            return
        assert delivery is not None
        reader = origin.reader
        carriage.stage = STREAM
        if reader.failed:
            carriage.fail(errors.UPSTREAM_PROTOCOL_ERROR.denial())
            return
        if not reader.head_only and (
            self._translated
            or (self.events and (self._codec or carriage.pipeline.sees_events(response)))
        ):
            try:
                self._events = EventPipe(carriage, self._codec, response, self._translated)
            except ValueError:  # encoded in a way that is not known here
                carriage.fail(errors.UPSTREAM_PROTOCOL_ERROR.denial())
                return
        if reader.complete and reader.trailers is None and not self._rewrites:
            self._send_complete(response, origin, delivery)
            return
        self._begin_stream(response, origin)
        if carriage.connection.writable:
            self.client_ready()
        self._stream()

    def _send_complete(self, response: http.Response, origin: Origin, delivery: Delivery) -> None:
        """The usual answer: it has come whole, and nobody changes its body."""
        carriage = self.carriage
        reader = origin.reader
        content = reader.take()
        if self._events is not None:
            content = self._events.feed(content, complete=True)
        declared = reader.length if reader.head_only or response.status_code == 304 else None
        delivery.complete()
        if self._sinks:
            for sink in self._sinks:
                sink.write(content)
            self.close_sinks(complete=True)
        self.send_whole(response, content, declared)
        carriage.end()

    # -- whole answers --------------------------------------------------------------------------

    def send_whole(
        self, response: http.Response, content: bytes, declared: int | None = None
    ) -> None:
        """Send head and body in one write. `declared`: the length that a HEAD is told."""
        carriage = self.carriage
        fields = client_fields(carriage.exchange, response)
        status = response.data.status_code
        head_only = carriage.incoming.method == b"HEAD"
        if head_only or status in BODYLESS:
            if content and head_only:
                declared = len(content)
            if declared is not None and status != 204:
                fields.append((b"content-length", b"%d" % declared))
            content = b""
        else:
            fields.append((b"content-length", b"%d" % len(content)))
        carriage.exchange.bytes_out = len(content)
        self._write_head(response, fields, content)

    def _write_head(
        self, response: http.Response, fields: list[tuple[bytes, bytes]], rest: bytes
    ) -> None:
        carriage = self.carriage
        connection = carriage.connection
        self.begun = True
        data = response.data
        connection.write(
            b"%b%b%b%b\r\n%b"
            % (
                status_line(data.status_code, data.reason),
                fields_block(fields),
                CHUNKED if self._chunked else b"",
                connection.persistence(carriage.incoming),
                rest,
            )
        )

    # -- streams --------------------------------------------------------------------------------

    def _begin_stream(self, response: http.Response, origin: Origin) -> None:
        carriage = self.carriage
        reader = origin.reader
        fields = client_fields(carriage.exchange, response)
        if reader.head_only or response.data.status_code in BODYLESS:
            self._silent = True
        elif reader.length is not None and not self._rewrites and reader.trailers is None:
            fields.append((b"content-length", b"%d" % reader.length))
        elif carriage.incoming.version == b"HTTP/1.1":
            self._chunked = True
        else:
            carriage.connection.last = True
        rest = b""
        if self._events is None:
            rest = self._framed(self._pass(reader.take()))
        self._write_head(response, fields, rest)

    @property
    def _rewrites(self) -> bool:
        """Whether what is sent of a stream may differ from what came."""
        rewriting = self._codec is not None or self.carriage.pipeline.decodes
        return self._events is not None and rewriting

    def _pass(self, data: bytes) -> bytes:
        if data:
            for sink in self._sinks:
                sink.write(data)
            self.carriage.exchange.bytes_out += len(data)
        return data

    def _framed(self, data: bytes) -> bytes:
        if not data or self._silent:
            return b""
        return chunk(data) if self._chunked else data

    def _stream(self) -> None:
        """Pass on what has come."""
        carriage, origin = self.carriage, self._origin
        assert origin is not None
        reader = origin.reader
        data = reader.take()
        try:
            if self._events is None:
                out = self._pass(data)
            else:
                for sink in self._sinks:
                    sink.write(data)
                out = self._events.feed(data, complete=reader.complete)
                carriage.exchange.bytes_out += len(out)
        except StreamCut as cut:
            carriage.fail(cut.denial)
            return
        except ValueError as error:
            log.warning("an event stream is cut: %s (exchange %s)", error, carriage.exchange.id)
            carriage.fail(errors.UPSTREAM_PROTOCOL_ERROR.denial())
            return
        if reader.complete:
            self._finish(out, origin)
            return
        if out:
            carriage.connection.write(self._framed(out))
        if reader.failed:
            log.warning("an answer is cut: %s (exchange %s)", reader.failed, carriage.exchange.id)
            carriage.fail(errors.UPSTREAM_PROTOCOL_ERROR.denial())
        elif carriage.connection.writable:
            carriage.connection.deadline = carriage.lane.now + self._idle

    def _finish(self, out: bytes, origin: Origin) -> None:
        carriage, delivery = self.carriage, self._delivery
        assert delivery is not None
        trailers = merge_trailers(origin.reader.trailers)
        end = self._framed(out)
        if self._chunked:
            end += last_chunk(trailers.fields if trailers else None)
        if end:
            carriage.connection.write(end)
        delivery.complete()
        for sink in self._sinks:
            sink.close(complete=True, trailers=trailers)
        self._sinks = ()
        carriage.end()

    # -- ends and pressure ----------------------------------------------------------------------

    def cut(self, denial: Denial) -> None:
        """End what has begun so that nobody takes it for whole."""
        carriage = self.carriage
        if (self.events or self._translated is not None) and not self._silent:
            tail = error_tail(carriage.exchange, denial, events=self.events)
            carriage.connection.write(self._framed(tail))
        self.close_sinks(complete=False)
        carriage.connection.last = True

    def close_sinks(self, *, complete: bool) -> None:
        """Tell the sinks how the body ended."""
        sinks, self._sinks = self._sinks, ()
        for sink in sinks:
            sink.close(complete=complete, trailers=None)

    def client_full(self) -> None:
        """The client takes no more for now."""
        origin = self._origin
        if origin is not None and origin.transport is not None and not origin.reader.complete:
            origin.transport.pause_reading()
            origin.paused = True
            self.carriage.connection.deadline = NEVER

    def client_ready(self) -> None:
        """The client takes more again."""
        origin = self._origin
        if origin is not None and origin.transport is not None and origin.paused:
            origin.paused = False
            origin.transport.resume_reading()
            self.carriage.connection.deadline = self.carriage.lane.now + self._idle
