"""What the broker does with a message: sans I/O, so that a worker can have one in itself as well.

Answers to a worker are collected until the journal has what they say (`Broker` does that, in one
write for all that came meanwhile).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from .ledger import Full, Lease, Ledger, Terms

if TYPE_CHECKING:
    from tidegate.api.lending import Ask

PARKED: Final = 0.04
"""Seconds for which a worker that needs more than there is waits for what others give back."""

type Say = Callable[[str, dict[str, Any]], None]
"""Tells a session a message, once the journal has all that was done before."""
type Event = tuple[str, str, int]
"""(limit, key, percent) of an alert."""


class Lender:
    """Answers workers from a ledger. `later(seconds, fn)` calls a function after a while."""

    def __init__(
        self,
        ledger: Ledger,
        say: Say,
        later: Callable[[float, Callable[[], None]], Any],
        alert: Callable[[Terms, str, int], None],
    ) -> None:
        self.ledger = ledger
        self._say = say
        self._later = later
        self._alert = alert
        self._limits: dict[str, list[Terms]] = {}
        self._parked: dict[tuple[str, str], list[Ask]] = {}

    def greet(self, session: str, limits: list[dict[str, Any]]) -> None:
        """A worker has connected: its limits are the newest there are."""
        terms = [Terms.of(limit) for limit in limits]
        self._limits[session] = terms
        self.ledger.terms.update((one.id, one) for one in terms)

    def gone(self, session: str) -> int:
        """A worker will not come back. How many leases it had."""
        self._limits.pop(session, None)
        return self.ledger.end_session(session)

    def ask(self, session: str, asks: Sequence[Ask]) -> None:
        """A worker says how its leases stand and what it needs."""
        for one in asks:
            self._one(session, one)

    def _one(self, session: str, ask: Ask) -> None:
        ledger = self.ledger
        if ask.acknowledged and ask.lease not in ledger.leases:
            self._say(session, {"gone": [ask.lease]})
            return
        terms = self._limits[session][ask.limit]
        try:
            lease = ledger.open(terms, ask.key, ask.lease)
        except Full:
            self._say(session, {"failed": [(ask.lease, ask.number)]})
            return
        ledger.report(lease, ask.returned, ask.used)
        self._told_of(session, lease)
        if ask.closed:
            ledger.close(lease)
            self._say(session, {"gone": [ask.lease]})
        elif ledger.grant(lease, ask.granted, ask.need, ask.extra) or not self._park(ask, lease):
            self._answer(session, lease, ask)
        self._unpark(lease)

    def _answer(self, session: str, lease: Lease, ask: Ask) -> None:
        """Tell a worker how its lease stands now."""
        ledger, account = self.ledger, lease.account
        now, window = ledger.clock(), ledger.terms[account.limit].window
        short = lease.granted - ask.granted < ask.need
        if short and ask.need:
            self._told_of(session, lease, short=True)
        valid = min(window.slot(lease.slot)[1] - now, 86_400.0)
        resets = max(0.0, ledger.resets(account) - now) if window.length else None
        # A `Granted` of `tidegate.api.lending`, in the order of its fields.
        answer = (lease.id, lease.granted, ask.number, short, valid, ledger.left(account), resets)
        self._say(session, {"granted": [answer]})

    def _told_of(self, session: str, lease: Lease, *, short: bool = False) -> None:
        percent = self.ledger.alerts(lease.account, short=short)
        if percent is not None:
            terms = self.ledger.terms[lease.account.limit]
            self._say(session, {"alerts": [(terms.name, lease.account.key, percent)]})
            self._alert(terms, lease.account.key, percent)

    # -- who needs what another one holds -------------------------------------------------------

    def _park(self, ask: Ask, lease: Lease) -> bool:
        """Ask others to give back what they don't use; False: no other one has any."""
        account = lease.account
        since = self.ledger.terms[account.limit].window.counted(self.ledger.clock())
        others = [
            x for x in account.leases.values()
            if x is not lease and x.slot >= since and x.held > x.used and x.session in self._limits
        ]  # fmt: skip
        if not others or lease.slot < since:
            return False
        name = (account.limit, account.key)
        self._parked.setdefault(name, []).append(ask)
        for other in others:
            self._say(other.session, {"recall": [other.id]})
        self._later(PARKED, lambda: self._release(name, ask))
        return True

    def _unpark(self, lease: Lease) -> None:
        """Something may have come back: try those that wait for it again."""
        name = (lease.account.limit, lease.account.key)
        for ask in self._parked.get(name, [])[:]:
            waiting = self.ledger.leases.get(ask.lease)
            if waiting is None or self.ledger.grant(waiting, ask.granted, ask.need, 0):
                self._release(name, ask)

    def _release(self, name: tuple[str, str], ask: Ask) -> None:
        waiting = self._parked.get(name, [])
        if ask not in waiting:
            return
        waiting.remove(ask)
        if not waiting:
            del self._parked[name]
        lease = self.ledger.leases.get(ask.lease)
        if lease is not None and lease.session in self._limits:
            self._answer(lease.session, lease, ask)
