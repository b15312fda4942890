"""The ledger and its journal: limits hold whatever is lost, said twice or cut off."""

from __future__ import annotations

import resource
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tidegate_limit_quota.journal import COMPACT_FROM, Journal
from tidegate_limit_quota.ledger import Full, Ledger, Terms
from tidegate_limit_quota.windows import Window

AMOUNT = 100


def terms(window: str = "day", amount: int = AMOUNT, **options: Any) -> Terms:
    return Terms(
        "calls", "calls", "requests", amount, "gateway", Window(window, **options), (50, 80, 100)
    )


class Time:
    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def ledger(limit: Terms | None = None, **options: Any) -> Ledger:
    made = Ledger(Time(), **options)
    limit = limit or terms()
    made.terms[limit.id] = limit
    return made


def replayed(book: Ledger, records: list[Any]) -> Ledger:
    fresh = Ledger(book.clock, terms=book.terms)
    fresh.replay(records)
    return fresh


def told(book: Ledger) -> list[tuple[Any, ...]]:
    since = terms().window.counted(book.clock())
    return sorted((a.key, a.counted(since), a.used(since)) for a in book.accounts.values())


class Workers(RuleBasedStateMachine):
    """Workers ask, use, give back, repeat themselves, die; the broker dies, with its last write.

    What is used never is more than the limit, unless calls used more than they had reserved; and
    what the broker knows of it is never less than what workers have said.
    """

    def __init__(self) -> None:
        super().__init__()
        self.book = ledger()
        self.journal: list[Any] = []
        self.count = 0
        self.workers: dict[str, dict[str, int]] = {}
        self.spent = 0
        self.lost = 0

    def write(self) -> None:
        self.journal += self.book.take_records()

    @rule()
    @precondition(lambda self: len(self.workers) < 4)
    def worker_begins(self) -> None:
        self.count += 1
        self.workers[f"w{self.count}:1"] = {"granted": 0, "returned": 0, "used": 0}

    @rule(need=st.integers(0, 30), extra=st.integers(0, 60), data=st.data(), heard=st.booleans())
    @precondition(lambda self: self.workers)
    def worker_asks(self, need: int, extra: int, data: st.DataObject, heard: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.workers)))
        worker = self.workers[id]
        for _ in range(data.draw(st.integers(1, 2))):  # a message may come twice
            lease = self.book.open(terms(), "", id)
            self.book.report(lease, worker["returned"], worker["used"])
            self.book.grant(lease, worker["granted"], need, extra)
        self.write()
        if heard:
            worker["granted"] = lease.granted

    @rule(data=st.data(), n=st.integers(1, 50), give_back=st.booleans())
    @precondition(lambda self: self.workers)
    def worker_uses(self, data: st.DataObject, n: int, give_back: bool) -> None:
        worker = self.workers[data.draw(st.sampled_from(sorted(self.workers)))]
        n = min(n, worker["granted"] - worker["returned"] - worker["used"])
        worker["returned" if give_back else "used"] += n
        if not give_back:
            self.spent += n

    @rule(data=st.data())
    @precondition(lambda self: self.workers)
    def worker_dies(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.workers)))
        del self.workers[id]
        self.book.end_session(id.partition(":")[0])
        self.write()

    @rule(twice=st.booleans(), compacted=st.booleans())
    def broker_dies(self, twice: bool, compacted: bool) -> None:
        if compacted:
            self.journal = list(self.book.snapshot())
        before = told(self.book)
        self.book = replayed(self.book, self.journal * (2 if twice else 1))
        assert told(self.book) == before

    @invariant()
    def the_limit_holds(self) -> None:
        assert self.spent <= AMOUNT
        counted = sum(counted for _, counted, _ in told(self.book))
        assert self.spent <= counted + sum(w["used"] for w in self.workers.values())
        assert counted <= AMOUNT


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_what_was_used_beyond_a_lease_counts_and_comes_first():
    book = ledger()
    lease = book.open(terms(), "", "a:1")
    assert book.grant(lease, 0, 10, 0)
    book.report(lease, 0, 95)
    assert book.left(lease.account) == 5
    assert not book.grant(lease, lease.granted, 91, 0), "85 of debt, and 5 that are left"
    assert lease.granted == 100


def test_leases_become_smaller_as_the_limit_comes_near():
    book = ledger()
    sizes = []
    lease = book.open(terms(), "", "a:1")
    while book.grant(lease, lease.granted, 1, 1000):
        sizes.append(lease.granted)
    steps = [b - a for a, b in pairwise(sizes)]
    assert steps == sorted(steps, reverse=True)
    assert lease.granted == AMOUNT


def test_the_next_window_begins_with_nothing_and_old_leases_get_no_more():
    book = ledger()
    lease = book.open(terms(), "", "a:1")
    book.grant(lease, 0, 100, 0)
    book.clock.now += 86_400
    assert not book.grant(lease, 100, 1, 0)
    fresh = book.open(terms(), "", "b:1")
    assert book.grant(fresh, 0, 100, 0)
    book.close(lease)
    assert book.left(fresh.account) == 0
    assert fresh.account.counted(fresh.slot) == 100


def test_what_is_in_progress_is_over_when_a_worker_dies():
    book = ledger(terms(""))
    lease = book.open(terms(""), "", "a:1")
    book.grant(lease, 0, 100, 0)
    book.end_session("a")
    assert book.left(lease.account) == 100


def test_alerts_come_once_in_a_window():
    book = ledger()
    lease = book.open(terms(), "", "a:1")
    book.grant(lease, 0, 100, 0)
    seen = []
    for used in (49, 50, 51, 85, 86, 100, 100):
        book.report(lease, 0, used)
        seen.append(book.alerts(lease.account))
    assert seen == [None, 50, None, 80, None, 100, None]
    again = replayed(book, book.take_records())
    assert again.alerts(again.accounts["calls", ""]) is None


def test_a_reset_leaves_what_workers_hold():
    book = ledger()
    lease = book.open(terms(), "", "a:1")
    book.grant(lease, 0, 50, 0)
    book.report(lease, 0, 40)
    assert book.reset("calls", None) == 1
    assert told(book) == [("", 10, 0)]
    assert told(replayed(book, book.take_records())) == told(book)
    book.close(lease)
    assert told(book) == [("", 10, 10)]
    assert book.reset("others", None) == book.reset("calls", "nobody") == 0


def test_accounts_are_bounded_and_those_that_have_nothing_make_room():
    book = ledger(capacity=2)
    for key in ("a", "b"):
        book.grant(book.open(terms(), key, f"{key}:1"), 0, 1, 0)
    with pytest.raises(Full):
        book.open(terms(), "c", "c:1")
    book.end_session("a")
    book.clock.now += 86_400
    book.open(terms(), "c", "c:1")


# -- the file --------------------------------------------------------------------------------------


def test_a_journal_has_one_owner(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(BlockingIOError):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def test_a_journal_that_was_cut_anywhere_has_the_lines_before(tmp_path: Path):
    journal = Journal(tmp_path)
    records = [["b", "l", f"k{n}", 1, n] for n in range(5)]
    for record in records:
        journal.append([record])
    journal.close()
    whole = journal.path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for size in range(len(whole)):
        journal.path.write_bytes(whole[:size])
        cut = Journal(tmp_path)
        kept = sum(end <= size + 1 for end in ends)  # a line without its end is whole as well
        assert list(cut.read()) == records[:kept]
        cut.append([["t", 1.0]])
        assert list(cut.read()) == [*records[:kept], ["t", 1.0]]
        cut.close()


def test_a_broken_line_costs_no_other(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.append([["t", 1.0], ["t", 2.0], ["t", 3.0]])
    journal.path.write_bytes(journal.path.read_bytes().replace(b"2.0", b"9.0"))
    assert list(journal.read()) == [["t", 1.0], ["t", 3.0]]
    assert journal.broken == 1
    journal.close()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.append([["t", 1.0]])
    size = journal.path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.append([["t", 2.0]])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal.path.stat().st_size == size
    journal.append([["t", 3.0]])
    assert list(journal.read()) == [["t", 1.0], ["t", 3.0]]
    journal.close()


def test_a_journal_that_has_grown_is_written_anew(tmp_path: Path):
    journal = Journal(tmp_path)
    record = ["b", "limit", "k" * 1000, 1, 1]
    while not journal.grown:
        journal.append([record] * 500)
    assert journal.path.stat().st_size > COMPACT_FROM
    journal.replace([record])
    assert list(journal.read()) == [record]
    assert not journal.grown
    journal.append([["t", 1.0]])
    assert list(journal.read()) == [record, ["t", 1.0]]
    assert journal.path.stat().st_mode & 0o777 == 0o600
    journal.close()
