"""Which bodies the hooks of a scope must see whole, and what that means for the carriers.

An addon in shadow mode changes nothing: for its sake no answer is held back (it sees a copy of what
passed, see `tee`), and a request is gathered only where nobody can tell: see `Needs.gathers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidegate.api.exchange import Exchange
from tidegate.api.types import Body

from .coding import coding_of
from .step import Step

if TYPE_CHECKING:
    from .addon import Addon


class Needs:
    """What the hooks of a scope need. `request_limit`, `response_limit`: decoded bytes.

    `readers` are the steps that see a request's body; `peeks`: all of them are in shadow mode;
    `asked`: what says of an exchange whether one of them wants it, None: one always does.
    `gather_response`: "" never, "bodies" all but event streams, "always".
    """

    __slots__ = ("asked", "gather_response", "peeks", "readers", "request_limit", "response_limit")

    def __init__(self, compiled: Sequence[tuple[Addon, dict[str, Step]]], default: int) -> None:
        enforced: list[int] = []
        shadowed: list[int] = []
        response: list[int] = []
        self.readers: set[Step] = set()
        bodies: list[Body] = []
        self.gather_response = ""
        for addon, own in compiled:
            for hook, body in addon.needs.items():
                limit = default if body.limit is None else body.limit
                if body.request:
                    (enforced if addon.mode == "enforce" else shadowed).append(limit)
                    self.readers.add(own[hook])
                    bodies.append(body)
                if body.response and addon.mode == "enforce":
                    response.append(limit)
                    redactor = body.streams and "transform_event" not in own
                    self.gather_response = (
                        "always" if redactor else self.gather_response or "bodies"
                    )
        self.asked = tuple(bodies) if all(body.when for body in bodies) else None
        self.peeks = bool(shadowed) and not enforced
        self.request_limit = min(enforced or shadowed, default=0)
        self.response_limit = min(response, default=0)

    def first(self, steps: Sequence[Step], after: Sequence[int]) -> int:
        """The index of the first step before which a request's body comes.

        Where the first result counts, a jump over the rest of the phase must not skip that
        place: then it comes before the whole phase.
        """
        return next(
            (
                i
                for i, step in enumerate(steps)
                if step in self.readers
                or (
                    step.hook in ("authenticate", "route")
                    and any(s in self.readers for s in steps[i : after[i]])
                )
            ),
            len(steps),
        )

    def gathers(self, exchange: Exchange, length: int | None) -> bool:
        """Whether a body that steps would see is gathered. For shadow mode alone: only one that
        is sure to fit. `length`: of the body, None: not known, or it is to be asked for."""
        if self.asked is not None and not any(body.wanted(exchange) for body in self.asked):
            return False
        if not self.peeks:
            return True
        if length is None or length > self.request_limit:
            return False
        fields = exchange.request.data.headers.fields
        return not coding_of(fields)  # it might not be what it says
