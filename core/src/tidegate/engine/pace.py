"""Clients that take nothing of what they are sent, and those that send a body byte by byte.

Both hold memory and an upstream for as long as they like, unless somebody looks at the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakKeyDictionary

from tidegate.api import errors

from .layers import Overdue, Stalled

if TYPE_CHECKING:
    from .call import Call
    from .handler import Handler

MIN_RATE: Final = 1024
"""Bytes per second that a request's body must have on average, after `GRACE` seconds."""
GRACE: Final = 10.0

type Waiting = tuple[object, int, Callable[[], None]]
"""What is waited for (the connection, or a stream), its unsent bytes, and how it is ended."""


def due(handler: Handler, now: float) -> list[Overdue | Stalled]:
    """What the exchanges of a connection are to be told, now that it is looked at."""
    told: list[Overdue | Stalled] = []
    for call in handler.calls:
        code = call.overdue(now)
        if code is None and call.unread and not call.over and trickles(handler, call, now):
            call.over = True
            code = errors.REQUEST_TIMEOUT
        if code is not None:
            told.append(Overdue(call, code.denial()))
        elif call.stalled(now):
            told.append(Stalled(call))
    return told


class SlowReaders:
    """Ends what no byte of was taken for a time: a connection, or a stream by its window."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[Handler, dict[object, tuple[int, float]]] = (
            WeakKeyDictionary()
        )

    def look(self, handler: Handler, now: float, limit: float) -> None:
        """Called now and then. `limit`: the seconds that a client may take to take something."""
        before = self._seen.get(handler, {})
        after: dict[object, tuple[int, float]] = {}
        for what, left, end in waiting(handler):
            size, since = before.get(what, (-1, now))
            if size != left:
                after[what] = (left, now)
            elif now - since > limit:
                end()
            else:
                after[what] = (left, since)
        if after:
            self._seen[handler] = after
        elif before:
            del self._seen[handler]


def waiting(handler: Handler) -> Iterator[Waiting]:
    """Where bytes wait for the client."""
    io = handler.transports.get(handler.client)
    if io is not None and (size := unsent(io)):
        yield handler, size, cast(asyncio.StreamWriter, io.writer).transport.abort
    if handler.http2 is not None:
        for stream_id, call in tuple(handler.http2.calls.items()):
            if size := handler.http2.backlog(stream_id):
                yield call, size, lambda call=call: cut(handler, call)  # type: ignore[misc]


def cut(handler: Handler, call: Call) -> None:
    """End an exchange whose client takes nothing."""
    handler.post(Overdue(call, errors.REQUEST_TIMEOUT.denial()))


def trickles(handler: Handler, call: Call, now: float) -> bool:
    """Whether a client sends the body of a request slower than anyone waits for.

    Not on HTTP/2, where a body may be a stream of messages (gRPC), nor while an upstream is what
    holds it up: that time is not the client's.
    """
    size = call.exchange.bytes_in
    if handler.http2 is not None or now - call.body_since <= GRACE:
        return False
    if size >= MIN_RATE * (now - call.body_since):
        return False
    if any(unsent(io) for one, io in handler.transports.items() if one is not handler.client):
        call.body_since = now - size / MIN_RATE
        return False
    return True


def unsent(io: Any) -> int:
    """Bytes that wait to be written to a connection; 0 where a WireGuard stream does not say."""
    transport = getattr(io.writer, "transport", None)
    return cast(int, transport.get_write_buffer_size()) if transport is not None else 0
