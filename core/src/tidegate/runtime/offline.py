"""Runs whole exchanges through a runtime's pipelines without a socket: a carrier of no bytes.

What a carrier does with the network is played here: a body is there only for hooks that need
it, the answer comes from a script, an event stream is cut into its events. The test kit and
`tidegate whatif` run on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mitmproxy import http

from tidegate.api.errors import (
    BODY_TOO_LARGE,
    UPSTREAM_BODY_TOO_LARGE,
    UPSTREAM_PROTOCOL_ERROR,
    ErrorCode,
)
from tidegate.api.exchange import Exchange
from tidegate.api.recording import Answer as Recorded
from tidegate.api.recording import Recording
from tidegate.api.sse import SseParser
from tidegate.api.types import Client, SseEvent
from tidegate.api.upstream import Attempt, Upstream

from .faults import StreamCut
from .heads import parse_path
from .lifecycle import Runtime
from .messages import copy_request, copy_response, error_response, make_request, make_response
from .pipeline import Pipeline
from .step import SafeSink

UNKNOWN: Final = "192.0.2.1"
"""The client of a recording that names none (RFC 5737)."""


@dataclass(frozen=True)
class Cut:
    """An answer whose body breaks off after what `response` holds of it."""

    response: http.Response


type Answer = http.Response | Cut | ErrorCode
"""What an upstream does: answer, answer in part, or fail with an error code."""
type Script = Answer | Callable[[http.Request], Answer]


class Offline:
    """Carries exchanges through the pipelines of `runtime`.

    `route` is the upstream of exchanges for which no addon names one (None: they are 404).
    `codecs`: translate as upstreams ask; False where `answer` speaks the caller's format.

    Attributes:
        sent: the requests that went upstream, one per attempt.
        answer: the script of the upstream; set it at any time.
    """

    def __init__(
        self,
        runtime: Runtime,
        answer: Script,
        route: Upstream | None = None,
        *,
        codecs: bool = True,
    ) -> None:
        self.runtime = runtime
        self.answer = answer
        self.sent: list[http.Request] = []
        self._route = route
        self._codecs = codecs

    async def run(self, exchange: Exchange) -> Exchange:
        """Run one exchange to its end, but for `log` hooks, which follow in the background.

        Afterwards `exchange.response` is what the caller got: the error envelope where the
        exchange was denied or failed.
        """
        pipeline = self.runtime.enter(exchange)
        try:
            if await self._request(pipeline, exchange):
                await self._upstream(pipeline, exchange)
            if exchange.response is not None and exchange.denial is None:
                await self._response(pipeline, exchange)
            if exchange.denial is not None:
                exchange.response = error_response(
                    exchange.denial, exchange.id, exchange.now, exchange.path
                )
        finally:
            pipeline.finish(exchange)
        return exchange

    async def _request(self, pipeline: Pipeline, exchange: Exchange) -> bool:
        """The request phases. A body is hidden from hooks until one needs it."""
        data = exchange.request.data
        body, data.content = data.content, None
        if exchange.upstream is None:
            exchange.upstream = self._route
        if not await pipeline.request(exchange, 0, pipeline.body_at):
            return False
        gathers = pipeline.gathers(exchange, len(body or b""))
        if gathers and exchange.request.data.content is None:
            exchange.request.data.content = body
        if gathers and len(body or b"") > pipeline.request_limit:
            exchange.denial = BODY_TOO_LARGE.denial()
            return False
        passed = await pipeline.request(exchange, pipeline.body_at)
        if exchange.request.data.content is None:
            exchange.request.data.content = body
        return passed

    async def _upstream(self, pipeline: Pipeline, exchange: Exchange) -> None:
        """Attempts, until one gives an answer or nothing is left to try."""
        chosen = exchange.upstream
        assert chosen is not None
        failure = UPSTREAM_PROTOCOL_ERROR
        while leaf := chosen.pick(exchange, exchange.attempts):
            attempt = Attempt(leaf, exchange.started)
            exchange.attempts.append(attempt)
            request = copy_request(exchange.request)
            if leaf.codec is not None and self._codecs:
                encoded = leaf.codec.encode(exchange, request)
                if isinstance(encoded, http.Response):
                    attempt.status = encoded.status_code
                    exchange.response = encoded
                    chosen.ended(exchange, attempt)
                    return
                request = encoded
            self.sent.append(request)
            answer = self.answer(request) if callable(self.answer) else self.answer
            if isinstance(answer, ErrorCode):
                failure = answer
                attempt.error = answer.code
                chosen.ended(exchange, attempt)
                continue
            response = copy_response(answer.response if isinstance(answer, Cut) else answer)
            attempt.status = response.status_code
            if leaf.codec is not None and self._codecs:
                response = leaf.codec.decode(exchange, response)
            exchange.response = response
            attempt.error = UPSTREAM_PROTOCOL_ERROR.code if isinstance(answer, Cut) else ""
            chosen.ended(exchange, attempt)
            return
        exchange.denial = failure.denial()

    async def _response(self, pipeline: Pipeline, exchange: Exchange) -> None:
        """The response phases. A body is hidden from hooks unless one needs it."""
        response = exchange.response
        assert response is not None
        cut = bool(exchange.attempts and exchange.attempts[-1].error)
        local = exchange.answered_by is not None
        stream = response.headers.get("content-type", "").startswith("text/event-stream")
        gather = pipeline.gather_response
        if local or gather == "always" or (gather and not stream):
            size = len(response.data.content or b"")
            if not local and size > pipeline.response_limit:
                exchange.denial = UPSTREAM_BODY_TOO_LARGE.denial()
            elif cut:
                exchange.denial = UPSTREAM_PROTOCOL_ERROR.denial()
            else:
                await pipeline.response(exchange)
            return
        body, response.data.content = response.data.content or b"", None
        sinks = await pipeline.response(exchange)
        response = exchange.response
        if exchange.denial is None and response is not None and response.data.content is None:
            response.data.content = self._body(pipeline, exchange, sinks, body, stream, cut)

    def _body(
        self,
        pipeline: Pipeline,
        exchange: Exchange,
        sinks: Sequence[SafeSink],
        body: bytes,
        stream: bool,
        cut: bool,
    ) -> bytes:
        """What the caller gets of a body that streams."""
        for sink in sinks:
            sink.write(body)
        for sink in sinks:
            sink.close(complete=not cut, trailers=None)
        if not (stream and pipeline.events):
            return body
        parser = SseParser()
        out = []
        try:
            for event in [*parser.feed(body), *parser.end()]:
                if isinstance(event, bytes):
                    out.append(event)
                    continue
                for one in pipeline.event(exchange, event):
                    assert isinstance(one, SseEvent)
                    out.append(one.encode())
        except StreamCut as error:
            exchange.denial = error.denial
        return b"".join(out)


# -- recordings -------------------------------------------------------------------------------


def exchange_of(recording: Recording, started: float) -> Exchange:
    """The exchange that a recording tells of, at its beginning; clock and chance are its own.

    Raises `heads.HeadError` where its path is none.
    """
    target = recording.path + (f"?{recording.query}" if recording.query else "")
    raw = target.encode("latin-1", "replace")
    host = recording.host
    fields = [(b"host", host.encode())]
    fields += [(n.encode("latin-1"), v.encode("latin-1")) for n, v in recording.headers]
    if recording.body:
        fields.append((b"content-length", b"%d" % len(recording.body)))
    scheme, _, _ = recording.url.partition("://")
    request = make_request(
        recording.method.encode(),
        scheme.encode(),
        b"",
        host,
        443 if scheme == "https" else 80,
        raw,
        tuple(fields),
        recording.body,
        recording.now,
    )
    client = recording.client or UNKNOWN
    exchange = Exchange(
        recording.id or recording.name,
        request,
        Client(client, 0, client),
        listener=recording.listener,
        host=host,
        path=parse_path(raw.partition(b"?")[0]).decode(),
        now=recording.now,
        started=started,
        seed=recording.seed,
    )
    exchange.bytes_in = len(recording.body)
    return exchange


def response_of(answer: Recorded, now: float) -> http.Response:
    """The response that a recording holds."""
    body = answer.body
    fields = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in answer.headers]
    fields.append((b"content-length", b"%d" % len(body)))
    return make_response(answer.status, answer.reason.encode("latin-1"), tuple(fields), body, now)
