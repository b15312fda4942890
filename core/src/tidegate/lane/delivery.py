"""Sends an exchange upstream: attempt after attempt until one gets an answer."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from mitmproxy import http

from tidegate.api import errors
from tidegate.api.errors import ErrorCode
from tidegate.api.upstream import Attempt, Upstream
from tidegate.runtime.dial import DialError
from tidegate.runtime.heads import merge_trailers
from tidegate.runtime.messages import copy_request, make_response

from .answer import Answer
from .framing import chunk, last_chunk
from .heads import request_head
from .stages import CONNECT, NEVER, SEND, WAIT

if TYPE_CHECKING:
    from .exchange import Carriage
    from .origin import Origin

log = logging.getLogger("tidegate.lane")

KEPT: Final = 64 * 1024
"""Bytes of a streamed body that are kept, so that they can be sent again."""


class Delivery:
    """The attempts of one exchange. The pool and the upstream's connection call its methods.

    The body that is sent is `_content` where it is whole; else it streams, and `_kept` is what
    of it was sent so far (None: too much to keep, it can't be sent again).
    """

    __slots__ = (
        "_attempt",
        "_chunked",
        "_content",
        "_exchange",
        "_head",
        "_kept",
        "_rejected",
        "_retried_stale",
        "_sent",
        "carriage",
        "origin",
        "sent_all",
    )

    def __init__(self, carriage: Carriage) -> None:
        self.carriage = carriage
        self.origin: Origin | None = None
        self.sent_all = False
        self._exchange = carriage.exchange
        self._attempt: Attempt | None = None
        self._head = b""
        self._content: bytes | None = None
        self._kept: list[bytes] | None = []
        self._rejected: http.Response | None = None
        """The error of the last attempt, which is the answer where no other can be made."""
        self._chunked = False
        self._sent = 0
        self._retried_stale = False

    # -- choosing -------------------------------------------------------------------------------

    def next(self, last: ErrorCode = errors.UPSTREAM_BUSY) -> None:
        """Choose the upstream of the next attempt, or end with the last error."""
        carriage, exchange = self.carriage, self._exchange
        chosen = exchange.upstream
        leaf = chosen.pick(exchange, exchange.attempts) if chosen is not None else None
        if leaf is None and self._rejected is not None:
            self._give(self._rejected)
        elif leaf is None:
            carriage.fail(last.denial())
        elif exchange.attempts and chosen is not None and (delay := chosen.delay(exchange)) > 0.0:
            carriage.stage = WAIT
            carriage.connection.deadline = NEVER
            carriage.lane.loop.call_later(delay, self._delayed, leaf)
        elif (
            leaf.codec is not None
            and exchange.request.data.content is None
            and carriage.incoming.length != 0
        ):
            limit = max(carriage.lane.gather_limit, getattr(leaf.codec, "limit", 0))
            carriage.gather(limit, lambda: self._try(leaf))
        else:
            self._try(leaf)

    def _delayed(self, leaf: Upstream) -> None:
        if self.carriage.stage == WAIT:
            try:
                self._try(leaf)
            except Exception:
                self.carriage.crashed()

    def _try(self, leaf: Upstream) -> None:
        carriage, exchange = self.carriage, self._exchange
        carriage.stage = CONNECT
        now = time.monotonic()
        self._attempt = Attempt(leaf, now)
        self._rejected = None
        if leaf.timeouts.total is not None and not exchange.attempts:
            carriage.connection.total = now + leaf.timeouts.total
        self._take_body()
        try:
            refusal = self._build_head(leaf)
        except Exception:
            log.exception("upstream %s: its codec failed (exchange %s)", leaf.name, exchange.id)
            carriage.fail(errors.PLUGIN_TRANSFORM_FAILED.denial())
            return
        if refusal is None:
            self._take_connection(leaf, fresh=False)
            return
        carriage.stage = SEND  # no connection is awaited
        self._attempt.status = refusal.status_code
        if not self.rejected(refusal):
            self._end_attempt("")
            self._give(refusal)

    def rejected(self, response: http.Response) -> bool:
        """Ask the upstream about an error: True where another attempt is made instead."""
        exchange, attempt = self._exchange, self._attempt
        chosen = exchange.upstream
        if attempt is not None and (attempt.status or 0) < 400:
            attempt.status = response.status_code  # of a stream that began with its failure
        if chosen is None or not chosen.judges or attempt is None or not self.replayable:
            return False
        if not chosen.rejects(exchange, attempt, response):
            return False
        self._rejected = response
        exchange.response = self.carriage.answer = None
        self.complete()
        self.next()
        return True

    def _give(self, response: http.Response) -> None:
        """Answer with an error of an attempt that is over."""
        answer = self.carriage.answer = Answer(self.carriage)
        answer.give(response)

    def _take_connection(self, leaf: Upstream, *, fresh: bool) -> None:
        lane = self.carriage.lane
        origin = lane.pool.endpoint(leaf).take(self, fresh=fresh)
        if origin is not None:
            self._send(origin)
        else:
            self.carriage.stage = CONNECT
            self.carriage.connection.deadline = lane.now + leaf.timeouts.connect + 0.5

    # -- the request that is sent ---------------------------------------------------------------

    def _take_body(self) -> None:
        """Find out what the body is: whole, or a stream."""
        content = self._exchange.request.data.content
        if content is not None:
            self._content = content
            return
        incoming = self.carriage.incoming
        if incoming.complete and self._kept is not None and incoming.trailers is None:
            self._content = b"".join((*self._kept, incoming.take()))
            self._kept = [self._content]

    def _build_head(self, leaf: Upstream) -> http.Response | None:
        """Make what is sent; the answer of a codec that can't."""
        request = self._exchange.request
        if leaf.codec is not None:
            encoded = leaf.codec.encode(self._exchange, copy_request(request))
            if isinstance(encoded, http.Response):
                return encoded
            request = encoded
            if request.data.content is not None:
                self._content = request.data.content
        self._head, self._chunked = request_head(self.carriage, request, leaf, self._content)
        return None

    # -- sending --------------------------------------------------------------------------------

    def connected(self, origin: Origin) -> None:
        """The pool has a connection for this attempt."""
        try:
            self._send(origin)
        except Exception:
            self.carriage.crashed()

    def _send(self, origin: Origin) -> None:
        carriage, attempt = self.carriage, self._attempt
        assert attempt is not None
        self.origin = origin
        attempt.connected = time.monotonic()
        attempt.reused = origin.used
        carriage.stage = SEND
        origin.begin(self, head_only=self._head.startswith(b"HEAD "))
        content = self._content
        if content is not None:
            self.sent_all = True
            self._sent = len(content)
            carriage.connection.deadline = carriage.lane.now + attempt.upstream.timeouts.first_byte
            origin.write(self._head + content if content else self._head)
            return
        self.sent_all = False
        self._sent = 0
        origin.write(self._head)
        if self._kept:
            self._write(b"".join(self._kept))
        carriage.want_body()
        self.send_more()

    def _write(self, data: bytes) -> None:
        self._sent += len(data)
        origin = self.origin
        assert origin is not None
        origin.write(chunk(data) if self._chunked else data)

    def send_more(self) -> None:
        """Send what has come of a body that streams."""
        carriage, origin, attempt = self.carriage, self.origin, self._attempt
        if self.sent_all or origin is None or not origin.alive or attempt is None:
            return
        incoming = carriage.incoming
        data = incoming.take()
        if data:
            kept = self._kept
            if kept is not None:
                kept.append(data)
                if incoming.size > KEPT:
                    self._kept = None
            self._write(data)
        if incoming.complete:
            self.sent_all = True
            if self._chunked:
                trailers = merge_trailers(incoming.trailers)
                origin.write(last_chunk(trailers.fields if trailers else None))
            carriage.connection.deadline = carriage.lane.now + attempt.upstream.timeouts.first_byte
        elif origin.writable:
            carriage.check_rate()

    def upstream_full(self) -> None:
        """The upstream takes no more for now."""
        carriage, attempt = self.carriage, self._attempt
        if not self.sent_all and attempt is not None:
            carriage.connection.hold_reading()
            carriage.connection.deadline = carriage.lane.now + attempt.upstream.timeouts.idle

    def upstream_ready(self) -> None:
        """The upstream takes more again."""
        if not self.sent_all:
            self.carriage.resume_body()

    # -- what comes back ------------------------------------------------------------------------

    def received(self) -> None:
        """The upstream's connection has parsed more, or is gone."""
        try:
            self._received()
        except Exception:
            self.carriage.crashed()

    def _received(self) -> None:
        carriage = self.carriage
        if carriage.stage != SEND:
            if carriage.answer is not None:
                carriage.answer.more()
            return
        origin = self.origin
        assert origin is not None
        reader = origin.reader
        if reader.interim:
            interim, reader.interim = reader.interim, []
            for status, fields in interim:
                carriage.connection.send_interim(status, fields)
        if reader.headed and not (reader.failed and reader.complete):
            self._answered(origin)
        elif reader.switched:
            self._failed(errors.UNEXPECTED_UPGRADE, "it switched protocols")
        elif reader.failed:
            self._failed_early(origin)

    def _failed_early(self, origin: Origin) -> None:
        """The connection failed before a head: on a reused one, go on with a fresh one."""
        attempt = self._attempt
        assert attempt is not None
        stale = origin.used and not origin.reader.touched
        if stale and not self._retried_stale and self.replayable:
            self._retried_stale = True
            self._drop_origin()
            attempt.connected = 0.0
            self._take_connection(attempt.upstream, fresh=True)
        elif origin.reader.touched:
            self._failed(errors.UPSTREAM_PROTOCOL_ERROR, origin.reader.failed)
        else:
            self._failed(errors.UPSTREAM_UNREACHABLE, origin.reader.failed)

    def _answered(self, origin: Origin) -> None:
        """The head of the answer has come."""
        carriage, exchange, attempt = self.carriage, self._exchange, self._attempt
        assert attempt is not None
        now = time.monotonic()
        reader = origin.reader
        attempt.first_byte = exchange.first_byte = now
        attempt.status = reader.status
        exchange.response = make_response(
            reader.status,
            reader.reason,
            reader.fields,
            None,
            exchange.now + now - exchange.started,
        )
        answer = carriage.answer = Answer(carriage)
        answer.receive(self, origin, attempt.upstream)

    # -- ends -----------------------------------------------------------------------------------

    @property
    def replayable(self) -> bool:
        """Whether the request can be sent again."""
        return self._content is not None or self._kept is not None

    def not_connected(self, error: DialError) -> None:
        """The pool could not make a connection."""
        if self.carriage.stage == CONNECT:
            try:
                self._failed(error.code, str(error))
            except Exception:
                self.carriage.crashed()

    def expired(self) -> None:
        """The deadline of what is awaited from the upstream has passed."""
        carriage, attempt = self.carriage, self._attempt
        if attempt is None:
            return
        if carriage.stage == SEND and not self.sent_all and self.origin and self.origin.writable:
            carriage.fail(errors.REQUEST_TIMEOUT.denial())
        elif carriage.stage == CONNECT:
            full = carriage.lane.pool.endpoint(attempt.upstream).full
            code = errors.UPSTREAM_BUSY if full else errors.UPSTREAM_TIMEOUT
            self._failed(code, "no connection in time")
        elif carriage.stage == SEND:
            self._failed(errors.UPSTREAM_TIMEOUT, "no answer in time")
        else:
            carriage.fail(errors.UPSTREAM_TIMEOUT.denial())

    def _failed(self, code: ErrorCode, why: str) -> None:
        """An attempt failed before its answer began."""
        attempt = self._attempt
        assert attempt is not None
        log.warning("upstream %s: %s: %s", attempt.upstream.name, code.code, why)
        self.abandon(code.code)
        if self.replayable:
            self.next(code)
        else:
            self.carriage.fail(code.denial())

    def abandon(self, error: str) -> None:
        """Give up the attempt that is under way."""
        self._drop_origin()
        self._end_attempt(error)

    def complete(self) -> None:
        """The attempt has its answer: the connection goes back, where nothing is to come on it."""
        origin, self.origin = self.origin, None
        if origin is not None:
            if self._attempt is not None:
                self._attempt.bytes_received = origin.reader.size
            if self.sent_all and origin.reader.complete:
                origin.release()
            else:
                origin.close()
        self._end_attempt("")

    def _drop_origin(self) -> None:
        origin, self.origin = self.origin, None
        if origin is not None:
            if self._attempt is not None:
                self._attempt.bytes_received = origin.reader.size
            origin.close()
        elif self._attempt is not None and self.carriage.stage == CONNECT:
            self.carriage.lane.pool.endpoint(self._attempt.upstream).leave(self)

    def _end_attempt(self, error: str) -> None:
        """Tell the exchange and the chosen upstream how the attempt ended, once."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        attempt.ended = time.monotonic()
        attempt.error = error
        attempt.bytes_sent = self._sent
        exchange = self._exchange
        exchange.attempts.append(attempt)
        if exchange.upstream is not None:
            try:
                exchange.upstream.ended(exchange, attempt)
            except Exception:
                log.exception("upstream %s failed in `ended`", exchange.upstream.name)
