"""Runs whole exchanges through real addons and the real pipeline, without a socket.

What a carrier does with the network is played here: a body is there only for hooks that need
it, the answer comes from a script, an event stream is cut into its events.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mitmproxy import http

from tidegate.api import Attempt, Exchange, Plugin, SseEvent, Upstream
from tidegate.api.errors import (
    BODY_TOO_LARGE,
    UPSTREAM_BODY_TOO_LARGE,
    UPSTREAM_PROTOCOL_ERROR,
    ErrorCode,
)
from tidegate.api.sse import SseParser
from tidegate.runtime.faults import StreamCut
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.messages import copy_request, copy_response, error_response
from tidegate.runtime.problems import ConfigError, Problem, SourceMap
from tidegate.runtime.settings import Settings, build

from .exchanges import make_answer

if TYPE_CHECKING:
    from tidegate.runtime.pipeline import Pipeline
    from tidegate.runtime.step import SafeSink


@dataclass(frozen=True)
class Cut:
    """An answer whose body breaks off after what `response` holds of it."""

    response: http.Response


type Answer = http.Response | Cut | ErrorCode
"""What an upstream does: answer, answer in part, or fail with an error code."""
type Script = Answer | Callable[[http.Request], Answer]


@dataclass(frozen=True)
class Use:
    """One `[[addon]]` of a harness. `name` defaults to the class's name."""

    plugin: type[Plugin[Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    mode: str = "enforce"
    name: str = ""
    scope: Mapping[str, Sequence[str]] = field(default_factory=dict)
    on_error: str = "fail"

    @property
    def addon(self) -> str:
        """The addon's name."""
        return self.name or self.plugin.__name__


class Harness:
    """A worker without carriers: `async with Harness(Use(MyPlugin, {…})) as harness`.

    A bare plugin class stands for `Use(cls)`. `route` is the
    upstream of exchanges for which no addon names one (None: they are 404). `gateway` is the
    `[gateway]` table.

    Attributes:
        sent: the requests that went upstream, one per attempt.
        answer: the script of the upstream; set it at any time.
    """

    def __init__(
        self,
        *uses: Use | type[Plugin[Any]],
        answer: Script | None = None,
        route: Upstream | None = None,
        routed: bool = True,
        gateway: Mapping[str, Any] | None = None,
        workers: int = 1,
    ) -> None:
        self.answer: Script = make_answer() if answer is None else answer
        self.sent: list[http.Request] = []
        self._uses = [use if isinstance(use, Use) else Use(use) for use in uses]
        self._route = route or (
            Upstream("scripted", "http", "upstream.test", 80) if routed else None
        )
        self._gateway = dict(gateway or {})
        self._workers = workers
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.runtime: Runtime

    async def __aenter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="tidegate-")
        self.runtime = Runtime(Host(Path(self._folder.name), self._workers))
        try:
            await self._load(self._uses)
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._folder is not None
        await self.runtime.close()
        self._folder.cleanup()

    async def reload(self, *uses: Use | type[Plugin[Any]]) -> None:
        """Put other addons in force. Raises ConfigError; then the old ones stay."""
        await self._load([use if isinstance(use, Use) else Use(use) for use in uses])

    async def _load(self, uses: list[Use]) -> None:
        self.runtime.host.plugins = {use.addon: use.plugin for use in uses}
        settings = settings_of(uses, self._gateway)
        self.runtime.commit(await self.runtime.prepare(settings))

    def plugin(self, name: str = "") -> Any:
        """The running instance of an addon; without a name, of the first."""
        addons = self.runtime.current.addons
        return next(a.instance for a in addons if not name or a.name == name)

    def counters(self, name: str = "") -> dict[str, int]:
        """The counters of an addon; without a name, of the first."""
        values: dict[str, int] = self.plugin(name).context.counters.values
        return values

    async def send(self, exchange: Exchange) -> Exchange:
        """Run one exchange to its end, `log` hooks included.

        Afterwards `exchange.response` is what the caller got: the error envelope where the
        exchange was denied or failed.
        """
        await self.start(exchange)
        await self.runtime.flush()
        return exchange

    async def start(self, exchange: Exchange) -> Exchange:
        """The same without waiting for `log` hooks."""
        pipeline = self.runtime.begin(
            exchange.listener, exchange.host, exchange.path, exchange.request.method
        )
        try:
            if await self._request(pipeline, exchange):
                await self._upstream(pipeline, exchange)
            if exchange.response is not None and exchange.denial is None:
                await self._response(pipeline, exchange)
            if exchange.denial is not None:
                exchange.response = error_response(exchange.denial, exchange.id, exchange.now)
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
        if exchange.request.data.content is None:
            exchange.request.data.content = body
        if pipeline.body_at == len(pipeline.steps):
            return True
        if len(body or b"") > pipeline.request_limit:
            exchange.denial = BODY_TOO_LARGE.denial()
            return False
        return await pipeline.request(exchange, pipeline.body_at)

    async def _upstream(self, pipeline: Pipeline, exchange: Exchange) -> None:
        """Attempts, until one gives an answer or nothing is left to try."""
        chosen = exchange.upstream
        assert chosen is not None
        failure = UPSTREAM_PROTOCOL_ERROR
        while leaf := chosen.pick(exchange, exchange.attempts):
            attempt = Attempt(leaf, exchange.started)
            exchange.attempts.append(attempt)
            request = copy_request(exchange.request)
            if leaf.codec is not None:
                request = leaf.codec.encode(exchange, request)
            self.sent.append(request)
            answer = self.answer(request) if callable(self.answer) else self.answer
            if isinstance(answer, ErrorCode):
                failure = answer
                attempt.error = answer.code
                chosen.ended(exchange, attempt)
                continue
            response = copy_response(answer.response if isinstance(answer, Cut) else answer)
            attempt.status = response.status_code
            if leaf.codec is not None:
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


def settings_of(uses: Sequence[Use], gateway: Mapping[str, Any]) -> Settings:
    """The settings that an `addons.toml` with these addons would give. Raises ConfigError."""
    tables = [
        {
            **use.options,
            "use": use.addon,
            "mode": use.mode,
            "scope": dict(use.scope),
            "on_error": use.on_error,
        }
        for use in uses
    ]
    problems: list[Problem] = []
    source = SourceMap("")
    paths: list[tuple[str | int, ...]] = [("addon", i) for i in range(len(tables))]
    found = build({"gateway": dict(gateway), "addon": tables}, paths, source, problems)
    if problems:
        raise ConfigError(problems)
    core, intercepts, addons = found
    return Settings(core, addons, intercepts, source=source, paths=tuple(paths))
