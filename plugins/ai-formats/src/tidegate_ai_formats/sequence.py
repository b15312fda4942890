"""Parts one after the other, for formats whose grammar has no overlapping parts."""

from __future__ import annotations

from collections.abc import Sequence

from .events import Cited, Delta, Event, PartStart, PartStop


class Sequencer:
    """Holds events of a part back until the part before it has stopped.

    Interleaved tool calls are rare; then the later ones wait, and nothing is lost.
    """

    __slots__ = ("_open", "_waiting")

    def __init__(self) -> None:
        self._open: tuple[int, int] | None = None
        self._waiting: dict[tuple[int, int], list[Event]] = {}

    def push(self, event: Event) -> Sequence[Event]:
        """What may be written now."""
        if not isinstance(event, Delta | PartStart | PartStop | Cited):
            if not self._waiting:
                return (event,)
            return [*self.flush(), event]
        key = (event.candidate, event.index)
        if key == self._open:
            if not isinstance(event, PartStop):
                return (event,)
            self._open = None
            return [event, *self._next()] if self._waiting else (event,)
        if self._open is None and isinstance(event, PartStart):
            self._open = key
            return (event,)
        self._waiting.setdefault(key, []).append(event)
        return ()

    def _next(self) -> list[Event]:
        """Those parts that have waited for this one, up to the first that is not whole."""
        out: list[Event] = []
        while self._waiting and self._open is None:
            key = next(iter(self._waiting))
            events = self._waiting.pop(key)
            out += events
            if not isinstance(events[-1], PartStop):
                self._open = key
        return out

    def flush(self) -> list[Event]:
        """All that waits, at the end of a stream that left parts open."""
        out: list[Event] = []
        if self._open is not None:
            candidate, index = self._open
            out.append(PartStop(index, candidate))
            self._open = None
        out += self._next()
        while self._open is not None:
            candidate, index = self._open
            self._open = None
            out.append(PartStop(index, candidate))
            out += self._next()
        return out
