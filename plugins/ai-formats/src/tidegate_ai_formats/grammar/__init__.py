"""Grammars of streams: state machines that say whether wire events are a stream of a format.

For tests of translators and of whatever changes events. `check("openai-chat", events)` raises
`GrammarError` at the first event that has no place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from tidegate.api import SseEvent

from . import machines
from .base import Machine, Wrong
from .responses import responses


class GrammarError(AssertionError):
    """An event has no place where it stands. `position` counts from 0."""

    def __init__(self, position: int, event: SseEvent | None, reason: str) -> None:
        what = event.data[:200] if event is not None else "the end"
        super().__init__(f"event {position} ({what}): {reason}")
        self.position = position


def check(format: str, events: Iterable[SseEvent]) -> None:
    """Check a whole stream. Raises GrammarError."""
    machine = _MACHINES[format]()
    next(machine)
    position = 0
    event: SseEvent | None = None
    try:
        for event in events:
            machine.send(event)
            position += 1
        event = None
        machine.send(None)
    except Wrong as wrong:
        raise GrammarError(position, event, str(wrong)) from None
    except StopIteration:
        if event is not None:
            raise GrammarError(position, event, "nothing may follow the end") from None


_MACHINES: Final[dict[str, Callable[[], Machine]]] = {
    "anthropic-messages": machines.anthropic,
    "bedrock-converse": machines.converse,
    "cohere-chat": machines.cohere,
    "gemini": machines.gemini,
    "ollama-chat": machines.ollama,
    "openai-chat": machines.chat,
    "openai-responses": responses,
}

__all__ = ["GrammarError", "check"]
