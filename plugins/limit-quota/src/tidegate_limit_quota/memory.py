"""A lender in the worker itself: where no broker was started, as in tests of a single worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from tidegate.api.lending import Ask, Receiver

from .ledger import Ledger, Terms
from .lender import Lender
from .local import deliver
from .windows import SteadyClock


class MemoryBackend:
    """Lends from a ledger of its own, which nothing keeps."""

    up = True

    def __init__(self, greeting: dict[str, Any]) -> None:
        self.ledger = Ledger(SteadyClock(time.time, time.monotonic))
        self._greeting = greeting
        self._receiver: Receiver
        self._lender: Lender

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._lender = Lender(self.ledger, self._say, self._loop.call_later, alert_nobody)
        self._lender.greet(self._greeting["hello"], self._greeting["limits"])
        self._loop.call_soon(receiver.connected, "")

    def ask(self, asks: Sequence[Ask]) -> None:
        self._lender.ask(self._greeting["hello"], asks)
        self.ledger.records.clear()

    async def stop(self) -> None:
        self._lender.gone(self._greeting["hello"])

    def _say(self, _: str, message: dict[str, Any]) -> None:
        self._loop.call_soon(deliver, message, self._receiver)


def alert_nobody(_terms: Terms, _key: str, _percent: int) -> None:
    """The worker that is told of an alert logs it; there is no webhook here."""
