"""Shadow mode: a hook decides on a copy of the exchange; what it would have done is recorded.

Nothing that the exchange meets is changed, but for two things on purpose: credentials that a
shadow authentication consumes are stripped all the same, and the addon's stash is its own, so that
its later hooks find what its earlier ones kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from tidegate.api import errors
from tidegate.api.exchange import Exchange, Shadow
from tidegate.api.types import Body, BodySink, Denial, Event, Principal, SseEvent, WsMessage
from tidegate.api.upstream import Upstream

from .changes import View, changes, untouched, view
from .messages import copy_request, copy_response
from .step import Step, waits

type Call = Callable[..., Any]
type Detail = str | Callable[[], str]

_new = Exchange.__new__


def shadowed(step: Step, fn: Call, *, peeks: Body | None = None) -> Call:
    """The hook of an addon in shadow mode, made harmless.

    `peeks`: it needs the request's body, which for its sake alone is not always gathered.
    """
    if peeks is not None:
        return _peeking(step, shadowed(step, fn), peeks)
    if step.hook == "transform_event":
        return lambda exchange, event: _on_event(step, fn, exchange, event)
    stores = step.hook == "cache_store"  # a sink changes nothing: it may fill its cache
    if step.is_async:

        async def call_async(exchange: Exchange) -> object:
            copy = shadow_of(exchange)
            result = await fn(copy)
            note(step, exchange, copy, result, answered(exchange, copy))
            return result if stores else None

        return call_async

    async def waited(exchange: Exchange, copy: Exchange, coro: Awaitable[object]) -> None:
        note(step, exchange, copy, await coro, answered(exchange, copy))

    def call(exchange: Exchange) -> object:
        copy = shadow_of(exchange)
        result = fn(copy)
        if waits(step, result):
            return waited(exchange, copy, cast(Awaitable[object], result))
        note(step, exchange, copy, result, answered(exchange, copy))
        return result if stores else None

    return call


def _peeking(step: Step, call: Call, body: Body) -> Call:
    def unseen(exchange: Exchange) -> bool:
        if exchange.request.data.content is not None or not body.wanted(exchange):
            return False
        record(step, exchange, "fail", "the body was too large to be seen, or of unknown length")
        return True

    if step.is_async:

        async def peek_async(exchange: Exchange) -> object:
            return None if unseen(exchange) else await call(exchange)

        return peek_async
    return lambda exchange: None if unseen(exchange) else call(exchange)


def note_failure(step: Step, exchange: Exchange, error: BaseException) -> None:
    """Record that the hook of a shadow addon failed: in enforce mode it would have ended it."""
    if not any(s.addon == step.addon and s.decision == "fail" for s in exchange.shadows):
        record(step, exchange, "fail", f"{step.hook}: {type(error).__name__}")


def note(
    step: Step,
    exchange: Exchange,
    copy: Exchange,
    result: object,
    change: Detail | None,
) -> None:
    """Record what the hook would have done; its reservations end with the exchange.

    `change` is what it did to the response.
    """
    for settle in copy.endings:
        if exchange.outcome:  # it has ended meanwhile
            settle(copy)
        else:
            exchange.at_end(lambda _, settle=settle: settle(copy))  # type: ignore[misc]
    for decision, detail in decisions(exchange, copy, result, change):
        record(step, exchange, decision, detail)


def record(step: Step, exchange: Exchange, decision: str, detail: Detail) -> None:
    """Note and count one decision."""
    exchange.shadows.append(Shadow(step.addon, step.hook, decision, detail))
    step.counters.add(f"shadow_{decision}_total")


def _on_event(step: Step, fn: Call, exchange: Exchange, event: Event) -> None:
    """Count each event that would have changed; record the first of an exchange."""
    copy: Event
    if isinstance(event, SseEvent):
        copy = SseEvent(event.data, event.event, event.id)
        before: tuple[Any, ...] = (event.data, event.event, event.id)
    else:
        copy = WsMessage(event.content, from_client=event.from_client, text=event.text)
        before = (event.content,)
    result = fn(shadow_of(exchange), copy)
    after = (copy.data, copy.event, copy.id) if isinstance(copy, SseEvent) else (copy.content,)
    if before == after and (result is None or result is copy):
        return
    if any(s.addon == step.addon and s.phase == step.hook for s in exchange.shadows):
        step.counters.add("shadow_change_total")
    else:
        record(step, exchange, "change", "event")


def shadow_of(exchange: Exchange) -> Exchange:
    """A copy of the exchange for an addon in shadow mode: same bodies, its own everything else.

    Credentials are shared: what a shadow authentication consumes is stripped all the same. So
    is the stash, whose keys are private. Reservations of the copy end with the original.
    """
    copy = _new(Exchange)  # by hand: the constructor and what it sets in vain cost 0.5 µs
    copy.id = exchange.id
    copy.request = copy_request(exchange.request)
    response = exchange.response
    copy.response = None if response is None else copy_response(response)
    copy.client = exchange.client
    copy.listener = exchange.listener
    copy.host = exchange.host
    copy.path = exchange.path
    copy.now = exchange.now
    copy.started = exchange.started
    copy.seed = exchange.seed
    copy.principal = exchange.principal
    copy.anonymous = exchange.anonymous
    copy.upstream = exchange.upstream
    copy.credentials = exchange.credentials
    copy._stash = exchange.stash
    copy.attempts = exchange.attempts.copy()
    copy.notes = exchange.notes.copy()
    copy.from_cache = exchange.from_cache
    copy.bytes_in = exchange.bytes_in
    copy.bytes_out = exchange.bytes_out
    copy.first_byte = exchange.first_byte
    copy.ended = 0.0
    copy.denial = None
    copy.outcome = ""
    copy.failed_addon = ""
    copy.expired = False
    copy.shadows = []
    copy.answered_by = None
    copy.sinks = ()
    copy.endings = []
    copy.trace = None
    copy._json = None
    copy._random = None
    return copy


def decisions(
    exchange: Exchange, copy: Exchange, result: object, change: Detail | None
) -> list[tuple[str, Detail]]:
    """What a hook that returned `result` and left `copy` would have done to `exchange`."""
    out: list[tuple[str, Detail]] = []
    match result:
        case None:
            pass
        case Denial():
            out.append(("deny", result.code))
        case Principal():
            out.append(("authenticate", result.id))
        case Upstream():
            out.append(("route", result.name))
        case BodySink():
            out.append(("store", ""))
        case _ if hasattr(result, "status_code"):
            out.append(("answer", str(result.status_code)))
        case _:
            out.append(("fail", errors.PLUGIN_INVALID_OUTPUT.code))
    requested = told("request", exchange.request, copy.request)
    out += [("change", found) for found in (requested, change) if found is not None]
    return out


def answered(exchange: Exchange, copy: Exchange) -> Detail | None:
    """What a hook did to the response of a copy."""
    response = exchange.response
    return None if response is None else told("response", response, copy.response)


def told(what: str, message: Any, copy: Any) -> Detail | None:
    """A function that tells the changes of a copy (to hash values takes time), or None."""
    if untouched(message, copy):
        return None
    return compared(what, view(message), view(copy))


def compared(what: str, before: View, after: View) -> Detail | None:
    """The same of what was seen of a message, before and after."""
    if before == after:
        return None
    return lambda: f"{what}: {', '.join(changes(before, after))}"
