"""One exchange on the lane, from its parsed head to its last byte.

`Carriage` is a state machine that callbacks push on; no task runs for an exchange whose hooks
don't suspend. Its `Delivery` sends the request upstream, its `Answer` sends what comes back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, cast

from mitmproxy import http

from tidegate.api import errors
from tidegate.api.exchange import Exchange
from tidegate.api.messages import PreparedResponse
from tidegate.api.types import Denial
from tidegate.runtime.coding import TooLarge, Undecodable, within
from tidegate.runtime.drive import drive, resumed
from tidegate.runtime.heads import HeadError, open_exchange
from tidegate.runtime.messages import error_response
from tidegate.runtime.pipeline import Pipeline
from tidegate.runtime.step import SafeSink

from .answer import Answer
from .delivery import Delivery
from .prepared import send_prepared
from .stages import COLLECT, DONE, GATHER, HOOKS, NEVER, RESPOND, SEND, STREAM

if TYPE_CHECKING:
    from .client import ClientConnection
    from .requests import Incoming

MIN_RATE: Final = 1024
"""Bytes per second that a request body must have on average, after `GRACE` seconds."""
GRACE: Final = 10.0
log = logging.getLogger("tidegate.lane")

HELD: Final = 64 * 1024
"""Bytes of a body that may wait before its sender is paused."""


class Carriage:
    """Drives one exchange. The client's connection calls its methods."""

    __slots__ = (
        "_body_since",
        "_limit",
        "_task",
        "_then",
        "answer",
        "connection",
        "delivery",
        "exchange",
        "incoming",
        "lane",
        "pipeline",
        "stage",
    )

    exchange: Exchange
    pipeline: Pipeline

    def __init__(self, connection: ClientConnection, incoming: Incoming) -> None:
        self.connection = connection
        self.lane = connection.lane
        self.incoming = incoming
        self.stage = HOOKS
        self.delivery: Delivery | None = None
        self.answer: Answer | None = None
        self._task: asyncio.Task[None] | None = None
        self._then: Callable[[], None] | None = None
        self._limit = 0
        self._body_since = 0.0

    # -- hooks ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the exchange and run its first hooks."""
        connection, incoming, lane = self.connection, self.incoming, self.lane
        try:
            exchange = open_exchange(
                incoming.method,
                incoming.target,
                incoming.fields,
                connection.client_of(incoming),
                listener=connection.listener.name,
                http_version=incoming.version,
                paths=lane.paths,
            )
        except HeadError as error:
            self.stage = DONE
            connection.refuse(error.denial)
            return
        self.exchange = exchange
        self.pipeline = lane.runtime.enter(exchange)
        lane.active += 1
        try:
            self._admit()
        except Exception:
            self.crashed()

    def _admit(self) -> None:
        """Run the first hooks, unless the head alone says no."""
        lane, incoming, pipeline = self.lane, self.incoming, self.pipeline
        length = incoming.length
        if incoming.refusal is not None:
            self.fail(incoming.refusal.denial())
        elif length is not None and length > lane.body_limit:
            self.fail(errors.BODY_TOO_LARGE.denial())
        elif lane.shedding:
            self.fail(errors.OVERLOADED.denial(retry_after=1.0))
        else:
            self.run(pipeline.request(self.exchange, 0, pipeline.body_at), self._headed)

    def fetch(self, exchange: Exchange) -> None:
        """Carry what no client waits for: from `route` on (`AddonContext.fetch`)."""
        self.exchange = exchange
        pipeline = self.pipeline = self.lane.runtime.begin(
            exchange.listener, exchange.host, exchange.path, exchange.request.method
        )
        self.lane.active += 1
        try:
            self.run(pipeline.request(exchange, pipeline.fetch_at), self._bodied)
        except Exception:
            self.crashed()

    def run[T](self, coro: Coroutine[Any, Any, T], then: Callable[[T], None]) -> None:
        """Run hooks; `then` gets their result: in this very call where none suspends."""
        if not self.pipeline.suspends:
            try:
                waiting = coro.send(None)
            except StopIteration as stop:
                result: T = stop.value
            else:
                self._await(cast("Coroutine[Any, Any, T]", resumed(coro, waiting)), then)
                return
            then(result)
            return
        self._await(coro, then)

    def _await[T](self, coro: Coroutine[Any, Any, T], then: Callable[[T], None]) -> None:
        """Run hooks that suspend, in a task."""
        self.connection.deadline = NEVER  # hooks have a deadline of their own
        task = asyncio.Task(self._drive(coro, then), loop=self.lane.loop, eager_start=True)
        if not task.done():
            self._task = task

    async def _drive[T](self, coro: Coroutine[Any, Any, T], then: Callable[[T], None]) -> None:
        seconds = self.lane.hooks
        if self.stage == HOOKS:
            seconds = max(0.1, seconds - (time.monotonic() - self.exchange.started))
        try:
            result = await drive(coro, self.pipeline, self.exchange, seconds)
        except asyncio.CancelledError:
            return  # the client is gone: `client_gone` has ended the exchange
        self._task = None
        if self.stage != DONE:
            try:
                then(result)
            except Exception:
                self.crashed()

    def _headed(self, passed: bool) -> None:
        """The hooks that see the head only have run."""
        if not passed:
            self._answer_here()
        elif self.pipeline.body_at == len(self.pipeline.steps):
            self._deliver()
        elif self.pipeline.gathers(
            self.exchange, None if self.incoming.expects_continue else self.incoming.length
        ):
            self.gather(self.pipeline.request_limit, self._resume)
        else:
            self._resume()

    def _resume(self) -> None:
        self.stage = HOOKS
        pipeline = self.pipeline
        self.run(pipeline.request(self.exchange, pipeline.body_at), self._bodied)

    def _bodied(self, passed: bool) -> None:
        if passed:
            self._deliver()
        else:
            self._answer_here()

    def _deliver(self) -> None:
        self.delivery = Delivery(self)
        self.delivery.next()

    # -- the request body -----------------------------------------------------------------------

    def gather(self, limit: int, then: Callable[[], None]) -> None:
        """Await the whole body, up to `limit` decoded bytes; then it is the request's content."""
        self.stage = GATHER
        self._limit = limit
        self._then = then
        self.want_body()
        self._body_arrived()

    def want_body(self) -> None:
        """The body is wanted: say so to a client that waits to be told."""
        incoming = self.incoming
        if incoming.expects_continue and not incoming.complete and not incoming.size:
            self.connection.send_continue()
        incoming.expects_continue = False
        self._body_since = self.lane.now
        self.connection.deadline = self.lane.now + self.lane.body_idle
        self.connection.release_reading()

    def body_arrived(self) -> None:
        """More of the request has come, or something is wrong with it."""
        try:
            self._body_arrived()
        except Exception:
            self.crashed()

    def _body_arrived(self) -> None:
        incoming = self.incoming
        if incoming.refusal is not None:
            self.fail(incoming.refusal.denial())
        elif incoming.size > self.lane.body_limit:
            self.fail(errors.BODY_TOO_LARGE.denial())
        elif self.stage == SEND:
            assert self.delivery is not None
            self.delivery.send_more()
        elif self.stage == GATHER:
            if incoming.size > self._limit or (incoming.length or 0) > self._limit:
                self.fail(errors.BODY_TOO_LARGE.denial())
            elif incoming.complete:
                self._gathered()
            else:
                self.check_rate()
        elif self.stage >= COLLECT:
            incoming.take()  # the answer came first: the rest of the body is not wanted
        elif not incoming.complete and sum(map(len, incoming.body)) > HELD:
            self.connection.hold_reading()

    def _gathered(self) -> None:
        self.connection.deadline = NEVER
        data = self.exchange.request.data
        data.content = content = self.incoming.take()
        try:
            within(data.headers.fields, content, self._limit)
        except TooLarge:
            self.fail(errors.BODY_TOO_LARGE.denial())
            return
        except Undecodable:
            self.fail(errors.BAD_REQUEST_BODY.denial())
            return
        then, self._then = self._then, None
        assert then is not None
        then()

    def check_rate(self) -> None:
        """A body that trickles is not waited for: it has `MIN_RATE` or ends here."""
        now = self.lane.now
        self.connection.deadline = now + self.lane.body_idle
        elapsed = now - self._body_since
        if elapsed > GRACE and self.incoming.size < MIN_RATE * elapsed:
            self.fail(errors.REQUEST_TIMEOUT.denial())

    def resume_body(self) -> None:
        """The upstream takes more again: time that it took is not the client's."""
        self._body_since = self.lane.now - self.incoming.size / MIN_RATE
        self.connection.release_reading()
        self.connection.deadline = self.lane.now + self.lane.body_idle

    # -- the answer -----------------------------------------------------------------------------

    def _answer_here(self) -> None:
        """A hook has answered."""
        exchange = self.exchange
        if exchange.denial is not None:
            self.fail(exchange.denial)
        elif exchange.from_cache and not (self.pipeline.after_cache or self.pipeline.events):
            response = exchange.response  # a hit that no transform sees
            assert response is not None
            if type(response) is PreparedResponse and send_prepared(self, response):
                self.end()
            else:
                self._send_whole(response)
        else:
            self.stage = RESPOND
            self.run(self.pipeline.response(exchange), self._answered_here)

    def _answered_here(self, _sinks: tuple[SafeSink, ...]) -> None:
        exchange = self.exchange
        if exchange.denial is not None:
            self.fail(exchange.denial)
        else:
            assert exchange.response is not None
            self._send_whole(exchange.response)

    def _send_whole(self, response: http.Response) -> None:
        self.stage = STREAM
        answer = self.answer = Answer(self)
        answer.send_whole(response, response.data.content or b"")
        self.end()

    def fail(self, denial: Denial) -> None:
        """End with an error: its envelope, or a cut where the answer has begun."""
        if self.stage == DONE:
            return
        exchange = self.exchange
        exchange.denial = denial
        if self.delivery is not None:
            self.delivery.abandon(denial.code)
        self._then = None
        answer = self.answer
        if answer is not None and answer.begun:
            answer.cut(denial)
            self.end()
            return
        if answer is not None:
            answer.close_sinks(complete=False)
        elif exchange.fallback is not None and self.pipeline.stand_in(exchange, denial):
            self._answer_here()
            return
        response = error_response(denial, exchange.id, exchange.now, exchange.path)
        exchange.response = response
        self._send_whole(response)

    # -- the end --------------------------------------------------------------------------------

    def end(self, outcome: str = "") -> None:
        """The last byte is on its way, or there will be none: tell the pipeline, once."""
        if self.stage == DONE:
            return
        self.stage = DONE
        exchange = self.exchange
        exchange.bytes_in = self.incoming.size
        self.lane.active -= 1
        self.delivery = self.answer = None  # no cycles: what is over is freed at once
        self.pipeline.finish(exchange, outcome)
        self.connection.answered(self)

    def crashed(self) -> None:
        """A fault of ours, or of an upstream object: log it, answer 500, leave nothing open."""
        log.exception("exchange %s crashed", self.exchange.id)
        try:
            self.fail(errors.INTERNAL_ERROR.denial())
        except Exception:
            log.exception("exchange %s can't be answered", self.exchange.id)
            self.connection.abort()

    def client_gone(self) -> None:
        """Nobody waits for the answer any more: stop all that is done for it."""
        if self.stage == DONE:
            return
        task, self._task = self._task, None
        if self.delivery is not None:
            self.delivery.abandon("client_cancelled")
        if self.answer is not None:
            self.answer.close_sinks(complete=False)
        self.end("client_cancelled")
        if task is not None:
            task.cancel()

    def expired(self) -> None:
        """The connection's deadline has passed."""
        if self.stage == GATHER:
            self.fail(errors.REQUEST_TIMEOUT.denial())
        elif self.delivery is not None:
            self.delivery.expired()

    def out_of_time(self) -> None:
        """The upstream's total time has passed."""
        if self.delivery is not None:
            self.fail(errors.UPSTREAM_TIMEOUT.denial())
