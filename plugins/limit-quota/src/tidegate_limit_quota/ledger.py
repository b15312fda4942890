"""What is spent and what is lent, of every limit: the broker's book. Sans I/O.

A worker's lease says three sums, each of which only grows: what it was granted, what of that it
gave back, what it has used. A message that comes twice, and a record that is read twice, change
nothing for that reason. What a lease holds counts as spent until it says otherwise.

Every change is a record for the journal, with the values after it: the last one holds.

    ["l", limit, key, slot, lease, granted, returned, used]     a lease
    ["f", limit, key, slot, lease, spent]                       it is closed; spent on its slot
    ["b", limit, key, slot, spent]                              set by hand
    ["a", limit, key, slot, percent]                            alerted
    ["t", now]                                                  the clock
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from .windows import Window

type Record = list[Any]

HOUR: Final = 3600
UNKNOWN_KEPT: Final = 62 * 86_400
"""Seconds for which what a limit has spent is kept that no worker knows (any more)."""


class Full(Exception):
    """There are as many accounts as the ledger may hold."""


@dataclass(slots=True)
class Terms:
    """A limit, as the workers tell it."""

    id: str
    """Name, unit and window: what is spent stays where the amount changes."""
    name: str
    unit: str
    amount: int
    per: str
    window: Window
    alert: tuple[int, ...] = ()

    @classmethod
    def of(cls, wire: dict[str, Any]) -> Terms:
        """From a worker's greeting."""
        window = Window(wire["window"], rolling=wire["rolling"], zone=wire["zone"])
        return cls(wire["id"], wire["name"], wire["unit"], wire["amount"], wire["per"],
                   window, tuple(wire["alert"]))  # fmt: skip


@dataclass(slots=True)
class Lease:
    """What one worker may spend of an account, in one slot."""

    id: str
    account: Account
    slot: int
    granted: int = 0
    returned: int = 0
    used: int = 0

    @property
    def held(self) -> int:
        """What it may have spent: all it was granted, or more where it has used more."""
        return max(self.granted - self.returned, self.used)

    @property
    def session(self) -> str:
        """The worker."""
        return self.id.partition(":")[0]

    def record(self) -> Record:
        limit, key = self.account.limit, self.account.key
        return ["l", limit, key, self.slot, self.id, self.granted, self.returned, self.used]


@dataclass(slots=True)
class Account:
    """One limit of one key."""

    limit: str
    key: str
    spent: dict[int, int] = field(default_factory=dict)
    """By slot, what closed leases have spent."""
    leases: dict[str, Lease] = field(default_factory=dict)
    alerted: tuple[int, int] = (-1, 0)
    """The slot and percentage of the last alert."""

    def counted(self, since: int) -> int:
        """What counts against the limit: spent, or lent."""
        open_ = sum(x.held for x in self.leases.values() if x.slot >= since)
        return self._closed(since) + open_

    def used(self, since: int) -> int:
        """What is spent for certain."""
        return self._closed(since) + sum(x.used for x in self.leases.values() if x.slot >= since)

    def _closed(self, since: int) -> int:
        return sum(spent for slot, spent in self.spent.items() if slot >= since)

    def forget(self, before: int) -> None:
        """Drop slots that count no more."""
        for slot in [slot for slot in self.spent if slot < before]:
            del self.spent[slot]


@dataclass(slots=True)
class Ledger:
    """All accounts. `clock` gives Unix seconds that don't go back."""

    clock: Callable[[], float]
    capacity: int = 200_000
    terms: dict[str, Terms] = field(default_factory=dict)
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    """What the journal does not have yet."""
    now_seen: float = 0.0

    # -- workers ------------------------------------------------------------------------------

    def open(self, terms: Terms, key: str, id: str) -> Lease:
        """The lease of this id; made, in the slot of now, where there is none. Raises Full."""
        lease = self.leases.get(id)
        if lease is None:
            account = self._account(terms.id, key)
            now = self.clock()
            account.forget(terms.window.counted(now))
            lease = self.leases[id] = Lease(id, account, terms.window.slot(now)[0])
            account.leases[id] = lease
            self.records.append(lease.record())
        return lease

    def report(self, lease: Lease, returned: int, used: int) -> None:
        """Take down what a worker says of its lease: sums, so that once more is nothing new."""
        if returned > lease.returned or used > lease.used:
            lease.returned = max(lease.returned, min(returned, lease.granted))
            lease.used = max(lease.used, used)
            self.records.append(lease.record())

    def grant(self, lease: Lease, told: int, need: int, extra: int) -> bool:
        """Lend `need`, and up to `extra`; False: there is less, and what there is was lent.

        `told`: what the worker knows that it was granted. More may have been, whose answer was
        lost.
        """
        terms, account = self.terms[lease.account.limit], lease.account
        since = terms.window.counted(self.clock())
        if lease.slot < since:
            return False
        need -= lease.granted - told
        extra = max(0, extra + min(0, need))
        debt = lease.held - max(0, lease.granted - lease.returned)  # counts already
        left = terms.amount - account.counted(since) + debt
        given = max(0, min(left, need))
        if left > given:
            given += min(extra, (left - given) // (2 * max(1, len(lease.account.leases))))
        if given:
            lease.granted += given
            self.records.append(lease.record())
        return given >= need

    def left(self, account: Account) -> int:
        """What may still be lent; never below 0."""
        terms = self.terms[account.limit]
        return max(0, terms.amount - account.counted(terms.window.counted(self.clock())))

    def close(self, lease: Lease) -> None:
        """End a lease: what it holds is spent (of what is in progress: over)."""
        account = lease.account
        self.leases.pop(lease.id, None)
        account.leases.pop(lease.id, None)
        spent = account.spent.get(lease.slot, 0)
        if lease.slot:  # 0: a limit of what is in progress
            spent += lease.held
            account.spent[lease.slot] = spent
        self.records.append(["f", account.limit, account.key, lease.slot, lease.id, spent])

    def end_session(self, session: str) -> int:
        """A worker is gone: close its leases. How many they were."""
        lost = [lease for lease in self.leases.values() if lease.session == session]
        for lease in lost:
            self.close(lease)
        return len(lost)

    # -- people -------------------------------------------------------------------------------

    def alerts(self, account: Account, *, short: bool = False) -> int | None:
        """The highest threshold that the account has now passed, where that is news: once in a
        calendar window, once in an hour of other limits. `short`: a worker got less than it
        needs."""
        terms = self.terms[account.limit]
        now = self.clock()
        since = terms.window.counted(now)
        calendar = terms.window.length and not terms.window.rolling
        slot = since if calendar else int(now // HOUR)
        percent = 100 if short else account.used(since) * 100 // max(1, terms.amount)
        passed = max((mark for mark in terms.alert if mark <= percent), default=0)
        if passed <= (account.alerted[1] if account.alerted[0] == slot else 0):
            return None
        account.alerted = (slot, passed)
        self.records.append(["a", account.limit, account.key, slot, passed])
        return passed

    def reset(self, name: str, key: str | None) -> int:
        """Set what is spent to nothing, of one key or of all. How many accounts that were.

        What workers hold goes on to count: it may be spent any moment.
        """
        done = 0
        for account in self.accounts.values():
            terms = self.terms.get(account.limit)
            if terms is None or terms.name != name or key not in (None, account.key):
                continue
            done += 1
            for slot in account.spent.keys() | {x.slot for x in account.leases.values()}:
                used = sum(x.used for x in account.leases.values() if x.slot == slot)
                account.spent[slot] = -used
                self.records.append(["b", account.limit, account.key, slot, -used])
            account.alerted = (-1, 0)
            self.records.append(["a", account.limit, account.key, *account.alerted])
        return done

    def status(self) -> Iterator[dict[str, Any]]:
        """Every account of a limit that is known."""
        now = self.clock()
        for account in self.accounts.values():
            terms = self.terms.get(account.limit)
            if terms is None:
                continue
            since = terms.window.counted(now)
            used, counted = account.used(since), account.counted(since)
            yield {
                "limit": terms.name,
                "key": account.key,
                "per": terms.per,
                "unit": terms.unit,
                "amount": terms.amount,
                "used": used,
                "lent": counted - used,
                "window": terms.window.length or None,
                "resets": self.resets(account) if terms.window.length else None,
            }

    def resets(self, account: Account) -> int:
        """When something of what is spent comes back; Unix seconds."""
        window = self.terms[account.limit].window
        since = window.counted(self.clock())
        slots = [slot for slot, spent in account.spent.items() if slot >= since and spent > 0]
        slots += [x.slot for x in account.leases.values() if x.slot >= since and x.held > 0]
        return window.back(min(slots, default=window.slot(self.clock())[0]))

    def _account(self, limit: str, key: str) -> Account:
        account = self.accounts.get((limit, key))
        if account is None:
            if len(self.accounts) >= self.capacity:
                self.tidy()
                if len(self.accounts) >= self.capacity:
                    raise Full
            account = self.accounts[limit, key] = Account(limit, key)
        return account

    # -- the journal --------------------------------------------------------------------------

    def take_records(self) -> list[Record]:
        """What is to be written, with the time where a second has passed since."""
        records, self.records = self.records, []
        now = self.clock()
        if records and now - self.now_seen >= 1.0:
            self.now_seen = now
            records.append(["t", now])
        return records

    def tidy(self) -> None:
        """Drop accounts that have nothing left to count."""
        now = self.clock()
        for name, account in list(self.accounts.items()):
            terms = self.terms.get(account.limit)
            account.forget(terms.window.counted(now) if terms else int(now) - UNKNOWN_KEPT)
            if not account.spent and not account.leases:
                del self.accounts[name]

    def snapshot(self) -> Iterator[Record]:
        """Records that say all there is."""
        self.tidy()
        yield ["t", self.clock()]
        for account in self.accounts.values():
            limit, key = account.limit, account.key
            for slot, spent in account.spent.items():
                yield ["b", limit, key, slot, spent]
            for lease in account.leases.values():
                yield lease.record()
            yield ["a", limit, key, *account.alerted]

    def replay(self, records: Iterable[Record]) -> None:
        """Read records back, in their order."""
        for kind, *rest in records:
            if kind == "t":
                self.now_seen = max(self.now_seen, rest[0])
                continue
            limit, key, slot, *values = rest
            account = self.accounts.setdefault((limit, key), Account(limit, key))
            if kind == "l":
                lease = Lease(values[0], account, slot, *values[1:])
                self.leases[lease.id] = account.leases[lease.id] = lease
            elif kind == "a":
                account.alerted = (slot, values[0])
            elif kind == "b":
                account.spent[slot] = values[0]
            elif kind == "f":
                self.leases.pop(values[0], None)
                account.leases.pop(values[0], None)
                if slot:
                    account.spent[slot] = values[1]
