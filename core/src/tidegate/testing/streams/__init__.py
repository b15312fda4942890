"""Grammars of model APIs' streams: state machines for tests of whatever makes or changes them.

    check("openai-chat", events)            # events as they are
    check_bytes("anthropic-messages", body)  # a whole body, however it is framed

Both raise `GrammarError` at the first event that has no place. They accept what the providers
themselves send, and nothing that their official clients would trip over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from tidegate.api import SseEvent

from . import machines
from .base import Machine, Wrong
from .framing import events_of
from .responses import responses


class GrammarError(AssertionError):
    """An event has no place where it stands. `position` counts from 0."""

    def __init__(self, position: int, event: SseEvent | None, reason: str) -> None:
        what = event.data[:200] if event is not None else "the end"
        super().__init__(f"event {position} ({what}): {reason}")
        self.position = position


def check(format: str, events: Iterable[SseEvent], *, strict: bool = True) -> None:
    """Check a whole stream. Raises GrammarError; LookupError where `format` is not known.

    `strict` False: an `openai-chat` stream may be one of the many servers that are compatible
    with OpenAI's, which take liberties.
    """
    if format not in _MACHINES:
        raise LookupError(f"no grammar of {format!r} is known; there are: {', '.join(_MACHINES)}")
    chat = format == "openai-chat"
    machine = machines.chat(strict=strict) if chat else _MACHINES[format]()
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
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise GrammarError(position, event, f"it is not of this format: {error!r}") from None
    except StopIteration:
        if event is not None:
            raise GrammarError(position, event, "nothing may follow the end") from None


def check_bytes(format: str, body: bytes, *, strict: bool = True) -> None:
    """Check a whole body: events, lines of JSON, one JSON array, or an AWS event stream."""
    try:
        events = events_of(body)
    except (ValueError, KeyError, IndexError) as error:
        raise GrammarError(0, None, f"the body is not well framed: {error}") from None
    check(format, events, strict=strict)


_MACHINES: Final[dict[str, Callable[[], Machine]]] = {
    "anthropic-messages": machines.anthropic,
    "bedrock-converse": machines.converse,
    "cohere-chat": machines.cohere,
    "gemini": machines.gemini,
    "ollama-chat": machines.ollama,
    "openai-chat": machines.chat,
    "openai-responses": responses,
}

__all__ = ["GrammarError", "check", "check_bytes", "events_of"]
