"""An addon: a plugin that is on, and its hooks made ready for the pipeline.

What a mode or a phase asks of a hook is wrapped around it here, once, at load: `checked` for
transforms in enforce mode, `shadowed` for every hook in shadow mode.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final, Literal

from tidegate.api import errors
from tidegate.api.exchange import Exchange, Shadow
from tidegate.api.plugin import HookOptions, Plugin
from tidegate.api.types import Body, Denial, Event, Principal, SseEvent
from tidegate.api.upstream import Upstream

from .faults import Breaker
from .messages import check_request, check_response, copy_request, copy_response
from .pipeline import RULES, Step, needs_of
from .scope import Scope

type Mode = Literal["off", "shadow", "enforce"]
type Call = Callable[..., Any]

STREAM_HOOKS: Final = frozenset({"transform_event"})


class Addon:
    """One entry of `addons.toml`, loaded. `instance` is None where its mode is `off`."""

    def __init__(
        self,
        name: str,
        use: str,
        instance: Plugin[Any] | None,
        *,
        mode: Mode = "enforce",
        scope: Scope | None = None,
        on_error: str = "fail",
        position: int = 0,
        digest: str = "",
    ) -> None:
        self.name = name
        self.use = use
        self.instance = instance
        self.mode: Mode = mode
        self.scope = scope or Scope()
        self.on_error = on_error
        self.position = position
        self.digest = digest
        """Changes with the configuration: an equal digest keeps the instance on reload."""
        self.hooks: dict[str, HookOptions] = hooks_of(instance) if instance else {}
        self.needs: dict[str, Body] = {}
        self.steps: dict[str, Step] = {}
        for hook, options in self.hooks.items():
            if hook not in RULES or (hook == "log" and mode == "shadow"):
                continue
            assert instance is not None
            body = needs_of(options.needs, instance.config)
            if body is not None:
                self.needs[hook] = body
            self.steps[hook] = self._step(hook)

    @property
    def authenticates(self) -> bool:
        """Whether it makes its scope one that asks for a credential, even where it is off."""
        return "authenticate" in self.hooks or (self.mode == "off" and self.use.startswith("auth-"))

    @property
    def cacheable(self) -> bool:
        """Whether a cache may store what its response and event transforms make."""
        names = ("transform_response", "transform_event")
        return all(self.hooks[n].cacheable for n in names if n in self.hooks)

    def _step(self, hook: str) -> Step:
        assert self.instance is not None
        fn = getattr(self.instance, hook)
        is_async = inspect.iscoroutinefunction(fn)
        counters = self.instance.context.counters
        step = Step(
            hook,
            self.name,
            fn,
            position=self.position,
            is_async=is_async,
            on_error=self.on_error,
            breaker=Breaker(),
            counters=counters,
            shadow=self.mode == "shadow",
        )
        if self.mode == "shadow" and hook != "cache_store":
            step.call = shadowed(step, fn)
        elif hook in ("transform_request", "transform_response"):
            step.call = checked(hook, fn, is_async)
        return step


def hooks_of(instance: Plugin[Any]) -> dict[str, HookOptions]:
    """The marked hooks of a plugin, by name."""
    found = {}
    for name in dir(type(instance)):
        options = getattr(getattr(type(instance), name, None), "tidegate_hook", None)
        if options is not None:
            found[name] = options
    return found


def checked(hook: str, fn: Call, is_async: bool) -> Call:
    """A transform whose message is validated where it changed (no CRLF gets out).

    "Changed" is told by identity: mitmproxy replaces the tuple of fields with each change.
    """
    name, check = ("request", check_request) if hook == "transform_request" else (
        ("response", check_response)
    )  # fmt: skip

    def verify(exchange: Exchange, message: Any, head: tuple[Any, ...]) -> None:
        now = getattr(exchange, name)
        if now is not message or head_of(now.data) != head:
            check(now)

    if is_async:

        async def call_async(exchange: Exchange) -> Any:
            message = getattr(exchange, name)
            head = head_of(message.data)
            result = await fn(exchange)
            verify(exchange, message, head)
            return result

        return call_async

    if hook == "transform_request":

        def call_request(exchange: Exchange) -> Any:
            request = exchange.request
            data = request.data
            fields, path, method = data.headers.fields, data.path, data.method
            result = fn(exchange)
            if (
                data.headers.fields is not fields
                or data.path is not path
                or data.method is not method
                or exchange.request is not request
            ):
                check_request(exchange.request)
            return result

        return call_request

    def call_response(exchange: Exchange) -> Any:
        response = exchange.response
        data = response.data  # type: ignore[union-attr]
        fields, status = data.headers.fields, data.status_code
        result = fn(exchange)
        if (
            data.headers.fields is not fields
            or data.status_code != status
            or exchange.response is not response
        ):
            check_response(exchange.response)
        return result

    return call_response


def head_of(data: Any) -> tuple[Any, ...]:
    """What of a message's head a transform may change."""
    return (
        data.headers.fields,
        getattr(data, "path", None),
        getattr(data, "method", None),
        getattr(data, "status_code", None),
    )


# -- shadow mode ------------------------------------------------------------------------------


def shadow_of(exchange: Exchange) -> Exchange:
    """A copy of the exchange for an addon in shadow mode: same bodies, its own everything else.

    Credentials are shared: what a shadow authentication consumes is stripped all the same. So
    is the stash, whose keys are private. Reservations of the copy end with the original.
    """
    response = exchange.response
    copy = Exchange(
        exchange.id,
        copy_request(exchange.request),
        exchange.client,
        listener=exchange.listener,
        host=exchange.host,
        path=exchange.path,
        now=exchange.now,
        started=exchange.started,
        seed=exchange.seed,
    )
    copy.response = None if response is None else copy_response(response)
    copy.principal = exchange.principal
    copy.upstream = exchange.upstream
    copy.credentials = exchange.credentials
    copy._stash = exchange.stash
    copy.bytes_in = exchange.bytes_in
    return copy


def shadowed(step: Step, fn: Call) -> Call:
    """The hook, called on a copy; what it would have done is recorded and counted."""

    def note(exchange: Exchange, copy: Exchange, result: object) -> None:
        for settle in copy.endings:
            exchange.at_end(lambda _, settle=settle: settle(copy))  # type: ignore[misc]
        for decision, detail in decisions(exchange, copy, result):
            record(exchange, decision, detail)

    def record(exchange: Exchange, decision: str, detail: str) -> None:
        exchange.shadows.append(Shadow(step.addon, step.hook, decision, detail))
        step.counters.add(f"shadow_{decision}_total")

    if step.hook == "transform_event":

        def call_event(exchange: Exchange, event: Event) -> None:
            copy = SseEvent(event.data, event.event, event.id) if isinstance(event, SseEvent) else (
                type(event)(event.content, from_client=event.from_client, text=event.text)
            )  # fmt: skip
            before = copy.encode() if isinstance(copy, SseEvent) else copy.content
            result = fn(shadow_of(exchange), copy)
            after = copy.encode() if isinstance(copy, SseEvent) else copy.content
            if before != after or (result is not None and result is not copy):
                step.counters.add("shadow_change_total")
                if not any(
                    s.addon == step.addon and s.phase == step.hook for s in exchange.shadows
                ):
                    record(exchange, "change", "event")

        return call_event

    if step.is_async:

        async def call_async(exchange: Exchange) -> None:
            copy = shadow_of(exchange)
            note(exchange, copy, await fn(copy))

        return call_async

    def call(exchange: Exchange) -> None:
        copy = shadow_of(exchange)
        note(exchange, copy, fn(copy))

    return call


def decisions(exchange: Exchange, copy: Exchange, result: object) -> list[tuple[str, str]]:
    """What a hook that returned `result` and left `copy` would have done to `exchange`."""
    out: list[tuple[str, str]] = []
    match result:
        case None:
            pass
        case Denial():
            out.append(("deny", result.code))
        case Principal():
            out.append(("authenticate", result.id))
        case Upstream():
            out.append(("route", result.name))
        case _ if hasattr(result, "status_code"):
            out.append(("answer", str(result.status_code)))
        case _:
            out.append(("fail", errors.PLUGIN_INVALID_OUTPUT.code))
    pairs: list[tuple[str, Any, Any]] = [("request", exchange.request, copy.request)]
    if exchange.response is not None:
        pairs.append(("response", exchange.response, copy.response))
    for what, old, new in pairs:
        changes = difference(old, new)
        if changes:
            out.append(("change", f"{what}: {', '.join(changes)}"))
    return out


def difference(old: Any, new: Any) -> list[str]:
    """What differs between two messages, by name, without any value."""
    changes = []
    before, after = old.data.headers.fields, new.data.headers.fields
    if before is not after and before != after:
        names = {n.lower() for n, _ in set(before) ^ set(after)}
        changes += sorted(n.decode("latin-1") for n in names)
    if old.data.content is not new.data.content and old.data.content != new.data.content:
        changes.append("body")
    for attribute in ("path", "method", "status_code"):
        if getattr(old.data, attribute, None) != getattr(new.data, attribute, None):
            changes.append(attribute)
    return changes
