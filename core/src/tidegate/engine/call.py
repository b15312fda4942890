"""The state of one exchange on the engine, between mitmproxy's layers and the pipeline."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from mitmproxy import http

from tidegate.api import errors
from tidegate.api.errors import ErrorCode
from tidegate.api.exchange import Exchange
from tidegate.api.types import Denial
from tidegate.api.upstream import Attempt, Upstream
from tidegate.runtime.coding import TooLarge, Undecodable, within
from tidegate.runtime.drive import run_now
from tidegate.runtime.messages import error_response
from tidegate.runtime.pipeline import Pipeline

from .answers import whole

if TYPE_CHECKING:
    from .handler import Handler
    from .relay import Relay

CALL: Final = "tidegate"
"""Where a flow's metadata holds its call."""
UNREAD: Final = "tidegate.unread"
"""Where it says, from the head on, whether the end of the request has not come yet."""

HOLD: Final = 0.1
"""Seconds that a small body is waited for before its beginning is sent."""

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""RFC 9110 §9.2.2."""

_CONNECT_ERRORS: Final = {
    code.code: code
    for code in (
        errors.OVERLOADED,
        errors.UPSTREAM_ADDRESS_FORBIDDEN,
        errors.UPSTREAM_UNREACHABLE,
        errors.UPSTREAM_TLS_INVALID,
        errors.UPSTREAM_TIMEOUT,
    )
}


class Call:
    """One exchange, its pipeline, its attempt, and what the hooks decided for the layer.

    Attributes:
        ready: a hook said that the request may go upstream. False is the default.
        gathering: the request's body is needed whole before `ready` can be said.
        request_limit, response_limit: bytes that a body may have, streamed or gathered.
        refused: what a hook said no with after the answer's head had come.
        relay: passes the answer's body on where it streams.
        held: the small body of the answer is held back, to be sent whole.
        head_sent: the client has seen the head of the answer.
        body_since: when the body began, later by what others have held it up; monotonic.
        bodiless: the upstream's answer has no body.
        replaced: a transform gave an answer of its own in place of one that would stream.
        unread: the request's end has not come yet.
        may_retry: the attempt used a connection again that the upstream may just have closed.
    """

    __slots__ = (
        "attempt",
        "begun",
        "bodiless",
        "body_since",
        "close",
        "exchange",
        "finished",
        "gathering",
        "handler",
        "head_sent",
        "held",
        "last",
        "may_retry",
        "over",
        "pipeline",
        "ready",
        "refused",
        "relay",
        "replaced",
        "request_limit",
        "response_limit",
        "task",
        "unread",
        "upstream",
        "websocket",
    )

    def __init__(self, handler: Handler, exchange: Exchange, pipeline: Pipeline) -> None:
        self.handler = handler
        self.exchange = exchange
        self.pipeline = pipeline
        self.ready = False
        self.gathering = False
        self.request_limit = 0
        self.response_limit = 0
        self.refused: Denial | None = None
        self.relay: Relay | None = None
        self.held = False
        self.head_sent = False
        self.bodiless = False
        self.replaced = False
        self.unread = False
        self.may_retry = False
        self.attempt: Attempt | None = None
        self.upstream: Upstream | None = None
        self.begun = 0.0
        self.close = False
        self.websocket = False
        self.finished = False
        self.task: asyncio.Task[None] | None = None
        self.over = False
        self.last = self.body_since = time.monotonic()
        handler.calls.add(self)
        handler.head_since = 0.0

    # -- traffic ------------------------------------------------------------------------------

    def touch(self) -> None:
        """Something moved: idle deadlines start anew."""
        self.last = time.monotonic()

    def received(self, size: int) -> None:
        """Body bytes came from the client."""
        self.exchange.bytes_in += size
        self.touch()

    def got(self, size: int) -> None:
        """Body bytes came from the upstream."""
        if self.attempt is not None:
            self.attempt.bytes_received += size
        self.touch()

    def put(self, size: int) -> None:
        """Body bytes go to the upstream."""
        if self.attempt is not None:
            self.attempt.bytes_sent += size

    def sent(self, size: int) -> None:
        """Body bytes went to the client."""
        self.exchange.bytes_out += size
        self.touch()

    def interrupt(self) -> None:
        """The client has left: end the hook that is awaited."""
        if self.task is not None:
            self.task.cancel()

    # -- attempts -----------------------------------------------------------------------------

    def begin(self, upstream: Upstream) -> None:
        """An attempt begins."""
        self.upstream = upstream
        self.touch()
        self.begun = self.begun or self.last
        self.attempt = Attempt(upstream, self.last)

    def connected(self, *, reused: bool) -> None:
        """The attempt has its connection."""
        assert self.attempt is not None
        self.attempt.connected = time.monotonic()
        self.attempt.reused = reused
        method = self.exchange.request.data.method
        self.may_retry = reused and (method in IDEMPOTENT or self.attempt.upstream.safe_to_retry)
        self.touch()

    def answered(self, status: int) -> None:
        """The head of the upstream's answer has come."""
        assert self.attempt is not None
        self.attempt.first_byte = time.monotonic()
        self.attempt.status = status
        self.exchange.first_byte = self.attempt.first_byte
        self.may_retry = False
        self.touch()

    def retry(self) -> None:
        """The attempt failed on a connection that was closed while idle: another begins."""
        self.may_retry = False
        upstream = self.upstream
        self.end_attempt(errors.UPSTREAM_UNREACHABLE.code)
        assert upstream is not None
        self.begin(upstream)

    def end_attempt(self, error: str = "") -> None:
        """The attempt is over: its upstream is told, once."""
        attempt, self.attempt = self.attempt, None
        if attempt is None:
            return
        attempt.ended = time.monotonic()
        attempt.error = error
        self.exchange.attempts.append(attempt)
        self.handler.bridge.tell(self.exchange, attempt)

    def connect_failed(self, error: str) -> Denial:
        """What an attempt that got no connection means."""
        code = _CONNECT_ERRORS.get(error, errors.UPSTREAM_UNREACHABLE)
        return code.denial(retry_after=1.0 if code is errors.OVERLOADED else None)

    def take_body(self, content: bytes) -> Denial | None:
        """Give the hooks the gathered body; the denial where its coding is no good."""
        request = self.exchange.request
        request.data.content = content
        try:
            within(request.data.headers.fields, content, self.request_limit)
        except TooLarge:
            return errors.BODY_TOO_LARGE.denial()
        except Undecodable:
            return errors.BAD_REQUEST_BODY.denial()
        return None

    # -- deadlines ----------------------------------------------------------------------------

    def overdue(self, now: float) -> ErrorCode | None:
        """Called now and then by the handler: which deadline has passed, if one has."""
        idle = now - self.last
        if self.over or self.task is not None:
            return None  # hooks have their own
        code = self._overdue(now, idle)
        self.over = code is not None
        return code

    def _overdue(self, now: float, idle: float) -> ErrorCode | None:
        if self.unread and idle > self.handler.master.gateway.deadlines.body:
            return errors.REQUEST_TIMEOUT
        attempt = self.attempt
        if attempt is None:
            return None
        timeouts = attempt.upstream.timeouts
        if timeouts.total is not None and now - self.begun > timeouts.total:
            return errors.UPSTREAM_TIMEOUT
        if not attempt.connected or self.websocket:
            return None
        limit = timeouts.idle if attempt.first_byte else timeouts.first_byte
        return errors.UPSTREAM_TIMEOUT if idle > limit else None

    def stalled(self, now: float) -> bool:
        """Whether a small answer is held back whose rest does not come."""
        return self.held and now - self.exchange.first_byte > HOLD

    # -- ends ---------------------------------------------------------------------------------

    def error(self, denial: Denial) -> http.Response:
        """The answer that says `denial`."""
        response = error_response(denial, self.exchange.id, time.time(), self.exchange.path)
        self.exchange.response = response
        return whole(self.exchange, response, close=self.close)

    def stand_in(self, denial: Denial) -> http.Response | None:
        """What a cache answers in place of an upstream that gave no answer, or None.

        A layer can't wait: where hooks of the scope suspend there is only the error.
        """
        exchange, pipeline = self.exchange, self.pipeline
        if exchange.fallback is None or exchange.first_byte or pipeline.suspends:
            return None
        if not pipeline.stand_in(exchange, denial):
            return None
        run_now(pipeline.response(exchange))
        if exchange.denial is not None:
            return self.error(exchange.denial)
        assert exchange.response is not None
        return whole(exchange, exchange.response, close=self.close)

    def failed(self, denial: Denial) -> None:
        """The exchange ends with an error."""
        self.exchange.denial = denial
        self.end_attempt(denial.code)
        if self.relay is not None:
            self.relay.close(complete=False)

    def finish(self, outcome: str = "") -> None:
        """The exchange is over. Every way out comes here; only the first counts."""
        if self.finished:
            return
        self.finished = True
        self.handler.calls.discard(self)
        self.handler.idle_since = time.monotonic()
        self.handler.bridge.closed()
        if self.relay is not None:
            self.relay.close(complete=False)  # where it ended well, it is closed already
        self.end_attempt()
        if not outcome and self.exchange.denial is not None and self.exchange.attempts:
            outcome = "failed"
        self.pipeline.finish(self.exchange, outcome)

    def leave(self) -> None:
        """The client has left."""
        if not self.finished:
            self.end_attempt("client_cancelled" if self.attempt is not None else "")
            self.finish("client_cancelled")
