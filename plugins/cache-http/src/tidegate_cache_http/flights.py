"""Collapsing: one fetch per key, the others wait for what it brings (RFC 9111 §4, §9211 §2.7)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from .tiers.record import Key

UNSHAREABLE: Final = 4096
"""Keys that are remembered as not worth waiting for."""
REMEMBERED: Final = 60.0
"""Seconds for which they are."""


class Flight:
    """A fetch under way. `landed` is done when followers need wait no more."""

    __slots__ = ("_timer", "followers", "landed")

    def __init__(self) -> None:
        self.followers = 0
        self.landed: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def wait(self, seconds: float) -> asyncio.Future[None]:
        """What a follower awaits: it ends with the flight, or after `seconds`, for all at once."""
        self.followers += 1
        if self.landed is None:
            loop = asyncio.get_running_loop()
            self.landed = loop.create_future()
            self._timer = loop.call_later(seconds, self.land)
        return self.landed

    def land(self) -> None:
        """Release the followers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.landed is not None and not self.landed.done():
            self.landed.set_result(None)


class Flights:
    """The fetches of this worker by key, and the keys whose answers could not be shared."""

    __slots__ = ("_flying", "_unshareable")

    def __init__(self) -> None:
        self._flying: dict[Key, Flight] = {}
        self._unshareable: OrderedDict[Key, float] = OrderedDict()

    def joinable(self, key: Key) -> Flight | None:
        """The fetch that brings an answer for a key, if one is under way."""
        return self._flying.get(key)

    def begin(self, key: Key, now: float, *, renewal: bool = False) -> Flight | None:
        """Start one; None where answers for the key were not shareable lately.

        A renewal is wanted all the same: those who come meanwhile are answered with the old.
        """
        if key in self._flying:
            return None
        until = self._unshareable.get(key)
        if until is not None and not renewal:
            if until > now:
                return None
            del self._unshareable[key]
        flight = self._flying[key] = Flight()
        return flight

    def end(self, key: Key, flight: Flight) -> None:
        """It is over, however: those who waited look again."""
        if self._flying.get(key) is flight:
            del self._flying[key]
        flight.land()

    def unshareable(self, key: Key, flight: Flight, now: float) -> None:
        """Its answer is nobody else's: release the followers now, and remember the key."""
        self._unshareable[key] = now + REMEMBERED
        self._unshareable.move_to_end(key)
        while len(self._unshareable) > UNSHAREABLE:
            self._unshareable.popitem(last=False)
        self.end(key, flight)

    def shareable(self, key: Key) -> None:
        """An answer for the key was stored: what was remembered of it is past."""
        self._unshareable.pop(key, None)
