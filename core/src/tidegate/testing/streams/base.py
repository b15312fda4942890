"""What the state machines are made of."""

from __future__ import annotations

from collections.abc import Generator
from json import loads
from typing import Any

from tidegate.api import SseEvent

type Machine = Generator[None, SseEvent | None, None]
"""Is sent each event, then None at the end; raises `Wrong` where one has no place."""


class Wrong(Exception):
    """An event has no place where it stands."""


def need(condition: object, reason: str) -> None:
    """Raise `Wrong` unless `condition` holds."""
    if not condition:
        raise Wrong(reason)


def value(event: SseEvent | None, reason: str = "the stream ends too early") -> Any:
    """The JSON value of an event that has to come."""
    if event is None:
        raise Wrong(reason)
    return loads(event.data)
