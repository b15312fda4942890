"""What the cache remembers of an exchange between its look-up and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from tidegate.api import StashKey

from .rules.decide import Decision
from .rules.fields import Fields
from .rules.messages import Asked, Terms
from .tiers.memory import Shelf, Variant
from .tiers.record import Key

if TYPE_CHECKING:
    from .flights import Flight
    from .options import Rule


class Ticket:
    """One exchange that goes upstream.

    Attributes:
        own_key: the key of the request; `key`: the one under which something was found.
        shelf, variants: what was found there.
        stamp: that of its URL when it went upstream.
        fields: the request's fields as the client's policies left them, before our conditions.
        flight: the fetch that others wait for, if this exchange is its leader.
    """

    __slots__ = (
        "asked",
        "decision",
        "fields",
        "flight",
        "flight_key",
        "key",
        "own_key",
        "rule",
        "shelf",
        "stamp",
        "variants",
    )

    def __init__(self, asked: Asked, decision: Decision, rule: Rule, key: Key, stamp: int) -> None:
        self.asked = asked
        self.decision = decision
        self.rule = rule
        self.own_key = self.key = key
        self.stamp = stamp
        self.fields: Fields = asked.fields
        self.shelf: Shelf | None = None
        self.variants: Sequence[Variant] = ()
        self.flight: Flight | None = None
        self.flight_key: Key | None = None

    def lead(self, key: Key, flight: Flight | None) -> None:
        """Others wait for this exchange's answer; None: nobody is to wait."""
        self.flight, self.flight_key = flight, key

    @property
    def terms(self) -> Terms:
        """The operator's terms for its path."""
        return self.rule.terms

    @property
    def variant(self) -> Variant | None:
        """The stored response that matches the request, if there is one."""
        wanted = self.decision.stored
        return next((v for v in self.variants if v.head is wanted), None)


TICKET: Final = StashKey[Ticket]("cache-http")
