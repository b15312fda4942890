"""Lending: how workers share limits exactly, whoever keeps the book.

A worker spends from leases. It tells a `Backend` how its leases stand, and asks for more; the
backend lends what the limit still has, after it has written that down. What is spent and lent
together is never more than the limit; what a lease holds counts as spent until the lease says
otherwise, so that a worker that is killed loses no more than that. Each number that a worker says
of a lease is a sum that only grows: to say it twice, or after a lost answer, changes nothing.

The plugin that limits has a backend for one node. For several nodes a distribution offers a
`LimitStore` in the entry-point group `tidegate.limit_stores`, under the scheme of its URLs
(`redis` → `module:CLASS`). `tidegate.testing.contracts.LendingContract` is what each must keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Final, Protocol, cast

STORES: Final = "tidegate.limit_stores"
"""The entry-point group."""


class Window(Protocol):
    """When a limit begins anew. Made of slots; what is lent belongs to the slot of its lease.

    All times are Unix seconds. A calendar window is one slot, a rolling one many. Limits of what
    is in progress have one slot that begins at 0 and never ends.
    """

    length: str
    """second … month; "" of what is in progress."""
    rolling: bool

    def slot(self, now: float) -> tuple[int, int]:
        """Start and end of the slot of this time."""

    def counted(self, now: float) -> int:
        """The start of the oldest slot that counts at this time."""

    def back(self, slot: int) -> int:
        """When what was spent in the slot with this start counts no more."""


class Terms(Protocol):
    """A limit."""

    @property
    def id(self) -> str:
        """Name, unit and window: accounts are kept under it, whatever the amount."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def unit(self) -> str: ...
    @property
    def amount(self) -> int:
        """In whole units; of money, nano-dollars."""

    @property
    def per(self) -> str: ...
    @property
    def window(self) -> Window: ...
    @property
    def alert(self) -> Sequence[int]:
        """Percentages of which to tell someone."""


class Ask(Protocol):
    """How a worker's lease stands, and what the worker wants.

    Attributes:
        limit: index of the limit in the terms.
        key: whose account.
        lease: its id: `session:number`.
        acknowledged: the backend has answered for this lease before.
        granted, returned, used: sums: what the worker was told that it was granted; what of it it
            gave back; what was used of it (maybe more than it had).
        need: what exchanges wait for.
        extra: what it would like to have besides.
        number: counts what is asked; the answer has it again.
        closed: the worker is done with it.
    """

    @property
    def limit(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def lease(self) -> str: ...
    @property
    def acknowledged(self) -> bool: ...
    @property
    def granted(self) -> int: ...
    @property
    def returned(self) -> int: ...
    @property
    def used(self) -> int: ...
    @property
    def need(self) -> int: ...
    @property
    def extra(self) -> int: ...
    @property
    def number(self) -> int: ...
    @property
    def closed(self) -> bool: ...


@dataclass(slots=True)
class Granted:
    """The answer. `granted` is a sum; `short`: less than was needed is there.

    `valid`: seconds for which the lease may be spent from; `left`: what nobody holds;
    `resets`: seconds until something comes back, or None.
    """

    lease: str
    granted: int
    number: int
    short: bool
    valid: float
    left: int
    resets: float | None


class Receiver(Protocol):
    """A worker's side."""

    def granted(self, answer: Granted) -> None: ...
    def gone(self, lease: str) -> None:
        """The backend has closed this lease: all that it held is spent."""

    def failed(self, lease: str, number: int) -> None:
        """The backend could not write it down: nothing is granted."""

    def recalled(self, lease: str) -> None:
        """Another worker needs what this lease does not use."""

    def alerted(self, limit: str, key: str, percent: int) -> None:
        """An account has passed a threshold; one worker hears of it, once."""

    def connected(self, token: str) -> None:
        """Say everything again: the backend may have begun anew. `token`: which one it is; ""
        where there is only one."""


class Backend(Protocol):
    """Who lends, as one worker sees it."""

    @property
    def up(self) -> bool:
        """Whether there is someone to ask."""

    def start(self, receiver: Receiver) -> None:
        """Connect, and connect again whenever it must be, until `stop`."""

    def ask(self, asks: Sequence[Ask]) -> None:
        """Say these leases, ask for what they need. Answers come to the receiver."""

    async def stop(self) -> None:
        """Say goodbye: what its leases hold is spent."""


class LimitStore(Protocol):
    """Who keeps the limits of several nodes. Nothing connects before it is used."""

    def __init__(self, url: str, prefix: str, terms: Sequence[Terms]) -> None:
        """ValueError: that is no URL of its, or a limit is none that it can keep.

        `prefix`: what its names begin with there; nodes that share limits have the same.
        """

    def backend(self, session: str) -> Backend:
        """Of one worker. `session`: its name, of which there is no other; no `:` is in it."""

    def status(self) -> dict[str, Any]:
        """What is used: `now`, Unix seconds, and `accounts`, each with limit, key, per, unit,
        amount, used, lent, window and resets. Blocks. OSError: it does not answer."""

    def reset(self, limit: str, key: str | None) -> int:
        """Forget what a key, or every key, has spent of a limit, by its name; how many accounts
        that were. What leases hold goes on to count. Blocks. OSError: it does not answer."""


def open_limit_store(url: str, prefix: str, terms: Sequence[Terms]) -> LimitStore:
    """The store for a URL, by its scheme. ValueError: none is installed, or it refuses these."""
    scheme, separator, _ = url.partition("://")
    found = {point.name: point for point in entry_points(group=STORES)}
    if not separator or scheme not in found:
        names = ", ".join(sorted(found)) or "none"
        raise ValueError(f"no installed package keeps limits at such a URL; known are: {names}")
    return cast(LimitStore, found[scheme].load()(url, prefix, terms))
