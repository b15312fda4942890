"""In which order the targets of a virtual model are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tidegate.api import Exchange
from tidegate.api.formats import AiCall
from tidegate.api.sticky import HashRing

from .demand import Demand, prompt_key
from .options import Strategy
from .prices import cost
from .targets import Candidate, Target

EXPLORED: Final = 0.05
"""The part of calls by which `latency` measures the targets that it would not choose."""


class Order:
    """The strategy of one virtual model."""

    def __init__(self, strategy: Strategy, targets: Sequence[Target]) -> None:
        self._strategy = strategy
        self._places = {target.name: place for place, target in enumerate(targets)}
        self._ring = HashRing([(target.name, target.weight) for target in targets])

    def sort(
        self, candidates: list[Candidate], exchange: Exchange, call: AiCall, demand: Demand
    ) -> list[Candidate]:
        """The candidates in the order in which they are asked."""
        if len(candidates) < 2 or self._strategy == "priority":
            return candidates
        match self._strategy:
            case "weighted":
                return drawn(candidates, exchange)
            case "cost":
                return sorted(candidates, key=lambda c: cost(c, demand))
            case "least-busy":
                shuffled = drawn(candidates, exchange)  # so that equals share by weight
                return sorted(shuffled, key=lambda c: c.target.active / c.target.weight)
            case "latency":
                if exchange.random.random() < EXPLORED:
                    return drawn(candidates, exchange)
                stream = call.request.stream
                return sorted(candidates, key=lambda c: c.target.seconds(stream=stream))
            case "sticky":
                order = list(self._ring.order(prompt_key(exchange, call)))
                return sorted(candidates, key=lambda c: order.index(self._places[c.target.name]))


def drawn(candidates: list[Candidate], exchange: Exchange) -> list[Candidate]:
    """The candidates by chance, the heavier the earlier."""
    chance = exchange.random.random
    return sorted(candidates, key=lambda c: chance() ** (1.0 / c.target.weight), reverse=True)
