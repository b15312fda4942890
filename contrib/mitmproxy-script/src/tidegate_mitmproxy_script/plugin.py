"""The plugin: a script's hooks, called in the phases of an exchange.

| hook of the script | phase |
| --- | --- |
| requestheaders, request | transform_request; a body is there where the script has `request` |
| a request sent elsewhere | route |
| responseheaders, response | transform_response; likewise, where it has `response` |
| websocket_… | transform_event |
| error | log |

Each script gets a class with the hooks that it needs and no others, so that what it does not look
at streams by.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final, Literal, Self

from mitmproxy import exceptions, http, websocket
from mitmproxy.flow import Error
from pydantic import Field
from wsproto.frame_protocol import Opcode

from tidegate.api import (
    PUSH,
    AddonConfig,
    AddonContext,
    Body,
    ByteSize,
    Denial,
    ErrorCode,
    Event,
    EventResult,
    Exchange,
    Plugin,
    StashKey,
    Upstream,
    WsMessage,
    hook,
    upstream_from_url,
)

from .flows import make_flow, run_stream, tell_server
from .names import REQUEST, RESPONSE, WEBSOCKET
from .script import Hook, Script, ScriptError

KILLED: Final = ErrorCode("flow_killed", 403, "This request is not allowed here.")

type Hooks = tuple[list[Hook], http.HTTPFlow]
type Phase[T] = Generator[Hooks, None, T]
"""Gives the hooks to call next; whoever drives it awaits them where need be."""
type Origin = tuple[str, str, int]
"""Scheme, host, port."""


class ScriptConfig(AddonConfig):
    """`script`: the file, relative to the configuration. `options`: its own and mitmproxy's.

    `body_limit` bounds the bodies that its hooks see (default: the gateway's `limits.gather`).
    `unsupported`: what to do with hooks that have no meaning here. `private_upstreams`: whether a
    request may be sent on to an address of a private network or of this machine.
    """

    script: str
    options: dict[str, Any] = Field(default_factory=dict)
    body_limit: ByteSize | None = None
    unsupported: Literal["refuse", "warn"] = "refuse"
    private_upstreams: bool = False


class MitmproxyScript(Plugin[ScriptConfig]):
    """Runs a script of mitmproxy."""

    Config = ScriptConfig
    codes = (KILLED,)

    def __new__(cls, config: ScriptConfig, context: AddonContext) -> Self:
        script = Script(context.base / config.script, config.options, context.log, context.code)
        judge(script, config, context.carriers)
        made: Self = super().__new__(with_hooks(cls, script, config))
        made.script = script
        return made

    script: Script

    def __init__(self, config: ScriptConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._flow = StashKey[http.HTTPFlow]("mitmproxy-script.flow")
        self._to = StashKey[Origin]("mitmproxy-script.to")

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """`running` of the script."""
        for fn in self.script.hooks.get("running", ()):
            if inspect.isawaitable(result := fn()):
                await result

    @hook
    async def shutdown(self) -> None:
        """`done` of the script."""
        for fn in self.script.hooks.get("done", ()):
            if inspect.isawaitable(result := fn()):
                await result

    def connection_hooks(self) -> Mapping[str, Sequence[Hook]]:
        """Its hooks about connections, for the engine."""
        return self.script.about_connections(self.context.carriers)

    # -- phases -------------------------------------------------------------------------------

    def flow_of(self, exchange: Exchange) -> http.HTTPFlow:
        """The exchange's flow. In shadow mode its messages are copies, anew in each phase."""
        flow = exchange.stash.get(self._flow)
        if flow is None:
            flow = exchange.stash[self._flow] = make_flow(exchange)
        flow.request = exchange.request
        flow.response = exchange.response
        return flow

    def hooks(self, name: str, flow: http.HTTPFlow) -> Hooks:
        """The functions of the script for one hook."""
        return self.script.hooks.get(name, []), flow

    def on_request(self, exchange: Exchange) -> Phase[http.Response | Denial | None]:
        """requestheaders and request; response for an answer that they give."""
        flow = self.flow_of(exchange)
        before = origin_of(flow.request)
        for name in REQUEST:
            yield self.hooks(name, flow)
            if flow.error is not None:
                return KILLED.denial()
            if callable(flow.request.stream):
                raise ScriptError("request.stream: request bodies are not changed as they stream")
            flow.request.stream = False  # it streams wherever no hook needs the body
        exchange.request = flow.request
        if flow.response is not None:
            yield self.hooks("response", flow)
            return KILLED.denial() if flow.error is not None else flow.response
        now = origin_of(flow.request)
        if now != before:
            exchange.stash[self._to] = now
        return None

    def on_route(self, exchange: Exchange) -> Upstream | None:
        """Where the script sent the request, if it did."""
        to = exchange.stash.get(self._to)
        return None if to is None else upstream(*to, trusted=self.config.private_upstreams)

    def on_response(self, exchange: Exchange) -> Phase[Denial | None]:
        """responseheaders, the body through a stream function, response."""
        flow = self.flow_of(exchange)
        flow.error, flow.live = None, True  # in shadow mode a flow survives that it was killed
        tell_server(flow, exchange)
        for name in RESPONSE:
            yield self.hooks(name, flow)
            if flow.error is not None:
                return KILLED.denial()
            if flow.response is not None and flow.response.stream:
                run_stream(flow.response)
        exchange.response = flow.response
        return None

    def on_event(self, exchange: Exchange, event: Event) -> EventResult:
        """One WebSocket message; it is the only one in `flow.websocket.messages`."""
        if not isinstance(event, WsMessage):
            return None
        flow = self.flow_of(exchange)
        if flow.websocket is None:
            flow.websocket = websocket.WebSocketData()
            push = exchange.stash.get(PUSH)
            if push is not None:
                flow.metadata[PUSH.name] = partial(push, exchange)
            call(*self.hooks("websocket_start", flow))
            exchange.at_end(self.on_websocket_end)
        message = websocket.WebSocketMessage(
            Opcode.TEXT if event.text else Opcode.BINARY, event.from_client, event.content
        )
        flow.websocket.messages = [message]
        call(*self.hooks("websocket_message", flow))
        if flow.error is not None:
            return KILLED.denial()
        event.content = message.content
        return [] if message.dropped else event

    def on_websocket_end(self, exchange: Exchange) -> None:
        """The WebSocket of an exchange is over."""
        flow = self.flow_of(exchange)
        assert flow.websocket is not None
        flow.websocket.timestamp_end = exchange.now + exchange.ended - exchange.started
        flow.live = False
        call(*self.hooks("websocket_end", flow))

    def on_log(self, exchange: Exchange) -> Phase[None]:
        """error, where no answer came, or the flow was killed."""
        flow = exchange.stash.get(self._flow)
        killed = flow is not None and flow.error is not None
        if not killed and exchange.outcome not in ("failed", "client_cancelled"):
            return
        flow = self.flow_of(exchange)
        tell_server(flow, exchange)
        flow.live = False
        if flow.error is None:
            denial = exchange.denial
            flow.error = Error(exchange.outcome if denial is None else denial.message)
        yield self.hooks("error", flow)


# -- the class of a script --------------------------------------------------------------------


def judge(script: Script, config: ScriptConfig, carriers: frozenset[str]) -> None:
    """Refuse, or warn of, what has no meaning here. Raises ScriptError."""
    if script.is_async(*WEBSOCKET):
        raise ScriptError(f"{script.file}: websocket hooks must be plain def here")
    refused = script.refused(carriers)
    told = "; ".join(f"{name}: {reason}" for name, reason in sorted(refused.items()))
    if told and config.unsupported == "refuse":
        raise ScriptError(f'{script.file}: {told} (`unsupported = "warn"` leaves it out)')
    if told:
        script.log.warning("%s: these hooks are not called: %s", script.file, told)
    if script.ignored:
        script.log.warning("%s: left out: %s", script.file, ", ".join(script.ignored))


def with_hooks(cls: type[MitmproxyScript], script: Script, config: ScriptConfig) -> Any:
    """A subclass that has the hooks for which the script has functions."""
    limit = config.body_limit
    found: dict[str, Any] = {}
    if script.has(*REQUEST):
        needs = Body(request=True, limit=limit) if script.has("request") else None
        found["transform_request"] = hook(needs=needs)(
            phase("on_request", is_async=script.is_async(*REQUEST, "response"))
        )
        found["route"] = hook(route)
    if script.has(*RESPONSE):
        whole = script.has("response") or script.streams
        needs = Body(response=True, limit=limit) if whole else None
        found["transform_response"] = hook(needs=needs)(
            phase("on_response", is_async=script.is_async(*RESPONSE))
        )
    if script.has(*WEBSOCKET):
        found["transform_event"] = hook(transform_event)
    if script.has("error"):
        found["log"] = hook(phase("on_log", is_async=script.is_async("error")))
    return type(cls.__name__, (cls,), found)


def phase(name: str, *, is_async: bool) -> Any:
    """A hook that drives a phase; async only where the script is."""

    def run(self: MitmproxyScript, exchange: Exchange) -> Any:
        return drive(getattr(self, name)(exchange))

    async def run_async(self: MitmproxyScript, exchange: Exchange) -> Any:
        return await drive_async(getattr(self, name)(exchange))

    return run_async if is_async else run


def route(self: MitmproxyScript, exchange: Exchange) -> Upstream | None:
    """The hook `route`."""
    return self.on_route(exchange)


def transform_event(self: MitmproxyScript, exchange: Exchange, event: Event) -> EventResult:
    """The hook `transform_event`."""
    return self.on_event(exchange, event)


def call(functions: list[Hook], flow: http.HTTPFlow) -> None:
    """Call plain functions, in turn. One that raises AddonHalt is the last."""
    try:
        for fn in functions:
            result = fn(flow)
            if inspect.isawaitable(result):
                raise ScriptError(f"{fn.__name__} returned a coroutine: write `async def`")
    except exceptions.AddonHalt:
        pass


def drive[T](steps: Phase[T]) -> T:
    """Run a phase all of whose hooks are plain functions."""
    while True:
        try:
            functions, flow = next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        call(functions, flow)


async def drive_async[T](steps: Phase[T]) -> T:
    """Run a phase some of whose hooks wait."""
    while True:
        try:
            functions, flow = next(steps)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        try:
            for fn in functions:
                if inspect.isawaitable(result := fn(flow)):
                    await result
        except exceptions.AddonHalt:
            pass


def origin_of(request: http.Request) -> Origin:
    """Where mitmproxy would connect to for a request."""
    return request.scheme, request.host, request.port


@lru_cache(maxsize=256)
def upstream(scheme: str, host: str, port: int, *, trusted: bool) -> Upstream:
    """The upstream of an origin; the Host field is the request's, as in mitmproxy."""
    name = f"[{host}]" if ":" in host else host
    return upstream_from_url(f"{scheme}://{name}:{port}", preserve_host=True, trusted=trusted)
