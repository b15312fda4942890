"""An addon: a plugin that is on, and its hooks made ready for the pipeline.

What a mode or a phase asks of a hook is wrapped around it here, once, at load: `checked` for
transforms in enforce mode, `shadowed` for every hook in shadow mode, `rolled_out` where the mode
holds for a share of the callers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal

from tidegate.api.exchange import Exchange
from tidegate.api.plugin import HookOptions, Plugin
from tidegate.api.types import Body

from .faults import Breaker
from .messages import check_change, check_request, check_response, check_status
from .rollout import Rest, Rollout, absent, rolled_out
from .scope import Scope
from .shadow import shadowed
from .step import RULES, Step
from .tee import Late, teed

type Mode = Literal["off", "shadow", "enforce"]
type Call = Callable[..., Any]

STREAM_HOOKS: Final = frozenset({"transform_event"})


def unheard(_: Exchange, coro: Coroutine[Any, Any, None]) -> None:
    """Where nothing runs beside the traffic, what comes late is not told."""
    coro.close()


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
        percent: float | None = None,
        rest: Rest = "shadow",
        gather: int = 0,
        late: Late = unheard,
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
        self.rollout: Rollout | None = None
        if percent is not None and mode == "enforce":
            by_address = "authenticate" in self.hooks
            self.rollout = Rollout(name, percent, rest, by_address=by_address)
        self._gather = gather
        self._late = late
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
            rollout=self.rollout,
        )
        body = self.needs.get(hook)
        if self.mode == "shadow" and hook == "transform_response" and body and body.response:
            limit = self._gather if body.limit is None else body.limit
            step.call, step.is_async = teed(step, fn, limit, self._late), False
            step.rule = RULES["cache_store"]
        elif self.mode == "shadow":
            step.call = shadowed(step, fn, peeks=body if body and body.request else None)
        elif hook in ("transform_request", "transform_response"):
            step.call = checked(hook, fn, is_async)
        if self.rollout is not None:
            gone = self.rollout.rest == "off" or hook == "log"
            outside = absent(is_async=is_async) if gone else shadowed(step, fn)
            step.call = rolled_out(self.rollout, step.call, outside)
        return step


def needs_of(options_needs: Any, config: Any) -> Body | None:
    """The `Body` that a hook needs under a configuration."""
    needs = options_needs(config) if callable(options_needs) else options_needs
    if needs is not None and not isinstance(needs, Body):
        raise TypeError(f"needs= is a Body, or a function that returns one, not {needs!r}")
    return needs


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
    if is_async:
        return _checked_async(hook, fn)
    return _checked_request(fn) if hook == "transform_request" else _checked_response(fn)


def _checked_request(fn: Call) -> Call:
    def call(exchange: Exchange) -> Any:
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

    return call


def _checked_response(fn: Call) -> Call:
    def call(exchange: Exchange) -> Any:
        response = exchange.response
        assert response is not None
        data = response.data
        fields, status = data.headers.fields, data.status_code
        result = fn(exchange)
        if exchange.response is not response:
            check_response(exchange.response)
            return result
        if data.headers.fields is not fields:
            check_change(fields, data.headers.fields)
        if data.status_code != status:
            check_status(response)
        return result

    return call


def _checked_async(hook: str, fn: Call) -> Call:
    name = "request" if hook == "transform_request" else "response"
    check: Callable[[Any], None] = check_request if name == "request" else check_response

    async def call(exchange: Exchange) -> Any:
        message = getattr(exchange, name)
        head = head_of(message.data)
        result = await fn(exchange)
        now = getattr(exchange, name)
        if now is not message or head_of(now.data) != head:
            check(now)
        return result

    return call


def head_of(data: Any) -> tuple[Any, ...]:
    """What of a message's head a transform may change."""
    return (
        data.headers.fields,
        getattr(data, "path", None),
        getattr(data, "method", None),
        getattr(data, "status_code", None),
    )
