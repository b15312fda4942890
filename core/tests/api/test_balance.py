"""Balancing, failover, retries: values in, values out, no sleeping."""

from __future__ import annotations

from collections import Counter
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.api import Attempt, Exchange, Principal, Upstream, upstream_from_url
from tidegate.api.balance import Balanced, Ejection, Failover, Retry, may_repeat, sticky_by
from tidegate.testing.clock import Clock
from tidegate.testing.exchanges import make_exchange


class Leaf(Upstream):
    """A leaf that counts what it was told."""

    told = 0

    def ended(self, exchange, attempt):
        self.told += 1


def leaf(name: str, weight: int = 1, safe: bool = False) -> Leaf:
    return Leaf(name, "http", name, 80, weight=weight, safe_to_retry=safe)


def finish(exchange: Exchange) -> None:
    for settle in reversed(exchange.endings):
        settle(exchange)


def end(upstream: Upstream, exchange: Exchange, to: Upstream, outcome: int | str = 200) -> Attempt:
    """Tell that an attempt ended: with a status, or with an error after it was sent."""
    attempt = Attempt(to, started=1.0)
    if isinstance(outcome, int):
        attempt.connected, attempt.status = 1.0, outcome
    else:
        attempt.error = outcome
        attempt.connected = 0.0 if outcome == "upstream_unreachable" else 1.0
    upstream.ended(exchange, attempt)
    return attempt


def call(upstream: Upstream, outcomes: dict[str, int | str], exchange: Exchange | None = None):
    """Drive one exchange as a carrier does: the names of the leaves that were asked."""
    exchange = exchange or make_exchange()
    asked: list[str] = []
    tried: list[Attempt] = []
    while (to := upstream.pick(exchange, tried)) is not None:
        asked.append(to.name)
        assert len(asked) < 50
        attempt = end(upstream, exchange, to, outcomes.get(to.name, 200))
        if not attempt.error and (attempt.status or 0) < 500:
            break
        tried.append(attempt)
    finish(exchange)
    return asked


DOWN = "upstream_unreachable"
LATE = "upstream_timeout"


# -- what may be repeated ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "error", "safe", "reused", "wanted"),
    [
        ("GET", LATE, False, False, True),
        ("PUT", LATE, False, False, True),
        ("DELETE", LATE, False, True, True),
        ("POST", LATE, False, False, False),
        ("PATCH", LATE, False, False, False),
        ("POST", LATE, True, False, True),
        ("POST", DOWN, False, False, True),
        ("POST", DOWN, False, True, False),
    ],
)
def test_only_what_is_safe_is_repeated(method, error, safe, reused, wanted):
    connected = 0.0 if error == DOWN else 1.0
    attempt = Attempt(leaf("a", safe=safe), 1.0, connected, error=error, reused=reused)
    assert may_repeat(make_exchange(method), attempt) is wanted


@pytest.mark.parametrize("make", [Balanced, Failover, lambda m: Retry(Balanced(m), retries=3)])
def test_no_combinator_repeats_a_post_that_an_upstream_may_have_seen(make):
    pool = make([leaf("a"), leaf("b")])
    assert len(call(pool, {"a": LATE, "b": LATE}, make_exchange("POST"))) == 1
    assert len(call(pool, {"a": DOWN, "b": DOWN}, make_exchange("POST"))) > 1


# -- balanced ------------------------------------------------------------------------------------


def test_an_idle_pool_is_shared_by_weight():
    pool = Balanced([leaf("a", 5), leaf("b", 3), leaf("c", 2)])
    asked = [call(pool, {})[0] for _ in range(100)]
    assert Counter(asked) == {"a": 50, "b": 30, "c": 20}
    assert max(len(run) for run in "".join(asked).replace("b", " ").replace("c", " ").split()) <= 2


def test_a_member_that_is_slow_gets_less():
    pool = Balanced([leaf("slow"), leaf("fast")])
    held = []
    for _ in range(20):
        exchange = make_exchange()
        to = pool.pick(exchange, ())
        if to.name == "slow":
            held.append((exchange, to))
        else:
            end(pool, exchange, to)
    assert len(held) == 1
    assert pool.active == 1


def test_load_follows_the_weights():
    pool = Balanced([leaf("big", 3), leaf("small", 1)])
    picks = Counter(pool.pick(make_exchange(), ()).name for _ in range(40))
    assert picks == {"big": 30, "small": 10}


def test_after_a_failure_an_untried_member_is_picked_each_once():
    pool = Balanced([leaf("a"), leaf("b"), leaf("c")])
    assert sorted(call(pool, {"a": DOWN, "b": DOWN, "c": DOWN})) == ["a", "b", "c"]


def test_leaves_are_told_of_their_own_attempts_only():
    one, two = leaf("a"), leaf("b")
    pool = Failover([Retry(Balanced([one])), two])
    call(pool, {"a": DOWN})
    assert (one.told, two.told) == (2, 1)


# -- active counts -------------------------------------------------------------------------------


def test_an_end_told_twice_counts_once():
    pool = Balanced([leaf("a")])
    one, two = make_exchange(), make_exchange()
    first, second = pool.pick(one, ()), pool.pick(two, ())
    assert first is not None
    assert second is not None
    assert pool.active == 2
    attempt = end(pool, one, first)
    pool.ended(one, attempt)
    assert pool.active == 1
    assert first.told == 1
    end(pool, two, second)
    assert pool.active == 0


def test_a_second_attempt_is_not_ended_by_the_first_ones_echo():
    inner = Balanced([leaf("a")])
    pool = Retry(inner)
    exchange = make_exchange()
    failed = end(pool, exchange, pool.pick(exchange, ()), LATE)
    again = pool.pick(exchange, [failed])
    pool.ended(exchange, failed)
    assert (pool.active, inner.active) == (1, 1)
    end(pool, exchange, again)
    assert (pool.active, inner.active) == (0, 0)


def test_the_end_of_another_exchange_is_ignored():
    pool = Balanced([leaf("a")])
    to = pool.pick(make_exchange(), ())
    end(pool, make_exchange(), to)
    assert pool.active == 1


def test_what_was_picked_and_never_attempted_is_given_back():
    inner = Balanced([leaf("a")])
    pool = Failover([inner])
    exchange = make_exchange()
    to = pool.pick(exchange, ())
    assert (pool.active, inner.active) == (1, 1)
    finish(exchange)
    assert (pool.active, inner.active) == (0, 0)
    end(pool, exchange, to)
    assert (pool.active, inner.active) == (0, 0)


ACTS = st.lists(st.tuples(st.sampled_from(["pick", "end", "echo", "finish"]), st.integers(0, 3),
                          st.sampled_from([200, 500, DOWN, LATE, "client_cancelled"])))  # fmt: skip


@given(ACTS)
@settings(deadline=None)
def test_active_counts_never_leak_nor_go_below_zero(acts):
    clock = Clock()
    inner = Balanced(
        [leaf("a"), leaf("b")], ejection=Ejection(failures=1), clock=lambda: clock.monotonic
    )
    pool = Failover([Retry(inner, retries=3), leaf("c")], clock=lambda: clock.monotonic)
    exchanges = [make_exchange() for _ in range(4)]
    tried: list[list[Attempt]] = [[] for _ in exchanges]
    open_: list[Upstream | None] = [None] * 4
    over = [False] * 4
    for act, n, outcome in acts:
        clock.advance(3.0)
        if act == "pick" and open_[n] is None and not over[n]:
            open_[n] = pool.pick(exchanges[n], tried[n])
        elif act == "end" and open_[n] is not None:
            tried[n].append(end(pool, exchanges[n], open_[n], outcome))
            open_[n] = None
        elif act == "echo" and tried[n]:
            pool.ended(exchanges[n], tried[n][-1])
        elif act == "finish" and not over[n]:
            over[n], open_[n] = True, None
            finish(exchanges[n])
        assert pool.active == sum(to is not None for to in open_)
        assert all(m.active >= 0 for c in (pool, inner) for m in c.members)


# -- sticky --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "exchange"),
    [
        ("header:X-Session", make_exchange(headers={"x-session": "s1"})),
        ("cookie:sid", make_exchange(headers={"cookie": "other=2; sid=s1"})),
        ("principal", make_exchange(principal=Principal("s1"))),
        ("address", make_exchange()),
    ],
)
def test_exchanges_of_one_key_stay_on_one_member(what, exchange):
    pool = Balanced([leaf(n) for n in "abcd"], sticky=sticky_by(what))
    key = sticky_by(what)(exchange)
    assert key == ("192.0.2.1" if what == "address" else "s1")
    assert len({pool.pick(exchange, ()).name for _ in range(10)}) == 1


@pytest.mark.parametrize("what", ["header:", "cookie", "ip", "principal:x", ""])
def test_an_unknown_key_is_refused(what):
    with pytest.raises(ValueError, match="header:NAME"):
        sticky_by(what)


def test_without_a_key_the_load_decides():
    pool = Balanced([leaf("a"), leaf("b")], sticky=sticky_by("principal"))
    assert Counter(pool.pick(make_exchange(), ()).name for _ in range(10)) == {"a": 5, "b": 5}


def placed(names: str, keys: int = 2000) -> list[str]:
    pool = Balanced([leaf(n) for n in names], sticky=sticky_by("principal"))
    return [call(pool, {}, make_exchange(principal=Principal(f"p{n}")))[0] for n in range(keys)]


def test_a_member_that_is_added_moves_only_its_own_share():
    before, after = placed("abcd"), placed("abcde")
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {"e"}
    assert 0.1 < len(moved) / len(before) < 0.3
    assert min(Counter(before).values()) > 2000 / 4 * 0.6


def test_a_key_with_too_much_load_spills_over():
    pool = Balanced([leaf(n) for n in "abcd"], sticky=sticky_by("address"))
    picks = Counter(pool.pick(make_exchange(), ()).name for _ in range(200))
    assert max(picks.values()) <= 1.25 * 200 / 4 + 1


def test_a_key_whose_member_is_tried_or_ejected_moves_on_and_comes_back():
    clock = Clock()
    pool = Balanced(
        [leaf(n) for n in "abcd"],
        sticky=sticky_by("address"),
        ejection=Ejection(failures=1, base=10.0),
        clock=lambda: clock.monotonic,
    )
    home = call(pool, {})[0]
    asked = call(pool, {home: DOWN})
    assert asked[0] == home
    assert asked[1] != home
    assert call(pool, {})[0] == asked[1]
    clock.advance(10.0)
    assert call(pool, {})[0] == home


# -- ejection ------------------------------------------------------------------------------------


def pair(clock: Clock) -> Balanced:
    ejection = Ejection(failures=3, base=10.0, longest=60.0)
    return Balanced([leaf("bad"), leaf("ok")], ejection=ejection, clock=lambda: clock.monotonic)


@pytest.mark.parametrize("fault", [DOWN, LATE, 500, 503, "upstream_protocol_error"])
def test_failures_in_a_row_eject_a_member_until_a_trial_succeeds(fault):
    clock = Clock()
    pool = pair(clock)
    asked = Counter(name for _ in range(40) for name in call(pool, {"bad": fault}))
    assert asked["bad"] == 3
    clock.advance(9.9)
    assert "bad" not in [call(pool, {})[0] for _ in range(6)]
    clock.advance(0.2)
    asked = Counter(call(pool, {})[0] for _ in range(40))
    assert asked["bad"] >= 19


def test_a_failed_trial_ejects_for_twice_as_long_up_to_a_bound():
    clock = Clock()
    pool = pair(clock)
    for _ in range(10):
        call(pool, {"bad": DOWN})
    spans = []
    for _ in range(5):
        waited = 0.0
        while "bad" not in [n for _ in range(4) for n in call(pool, {"bad": DOWN})]:
            clock.advance(5.0)
            waited += 5.0
        spans.append(waited)
    assert spans == [10.0, 20.0, 40.0, 60.0, 60.0]


def test_one_trial_at_a_time_and_an_undecided_one_is_repeated():
    clock = Clock()
    pool = pair(clock)
    for _ in range(10):
        call(pool, {"bad": DOWN})
    clock.advance(10.0)
    exchanges = [make_exchange() for _ in range(10)]
    picked = [pool.pick(exchange, ()) for exchange in exchanges]
    assert [to.name for to in picked].count("bad") == 1
    for exchange, to in zip(exchanges, picked, strict=True):
        end(pool, exchange, to, "client_cancelled")
    assert "bad" in [call(pool, {})[0] for _ in range(2)]


def test_a_success_between_failures_keeps_a_member_in():
    pool = pair(Clock())
    outcomes = cycle([500, LATE, 200])
    for _ in range(60):
        exchange = make_exchange()
        to = pool.pick(exchange, ())
        end(pool, exchange, to, next(outcomes) if to.name == "bad" else 200)
    assert all(member.ejected_until == 0.0 for member in pool.members)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_at_most_half_of_the_members_are_ejected(count):
    pool = Balanced([leaf(str(n)) for n in range(count)], ejection=Ejection(failures=1))
    for _ in range(20):
        assert call(pool, {str(n): 500 for n in range(count)})
    assert sum(member.ejected_until > 0.0 for member in pool.members) == count // 2


def test_a_client_that_leaves_says_nothing_about_a_member():
    pool = pair(Clock())
    for _ in range(20):
        call(pool, {"bad": "client_cancelled", "ok": "client_cancelled"})
    assert all(member.failures == 0 for member in pool.members)


def test_a_member_that_is_dead_for_weeks_still_gets_its_trials():
    clock = Clock()
    pool = pair(clock)
    trials = 0
    for _ in range(3000):
        trials += [n for _ in range(2) for n in call(pool, {"bad": DOWN})].count("bad")
        clock.advance(60.0)
    assert trials > 2900


def test_a_kept_connection_that_was_closed_is_nobodys_fault_and_its_repeat_is_judged():
    pool = Balanced([leaf("a"), leaf("b")], ejection=Ejection(failures=1))
    exchange = make_exchange("POST")
    to = pool.pick(exchange, ())
    pool.ended(exchange, Attempt(to, 1.0, 1.0, error=DOWN, reused=True))
    assert pool.active == 0
    assert all(member.failures == 0 for member in pool.members)
    end(pool, exchange, to, 503)
    assert pool.active == 0
    assert [m.upstream.name for m in pool.members if m.ejected_until] == [to.name]
    assert to.told == 2


# -- failover ------------------------------------------------------------------------------------


def test_a_chain_goes_on_after_a_failure_and_starts_at_its_head_again():
    chain = Failover([leaf("a"), leaf("b"), leaf("c")])
    assert call(chain, {"a": DOWN, "b": 503}) == ["a", "b", "c"]
    assert call(chain, {}) == ["a"]
    assert call(chain, {"a": DOWN, "b": DOWN, "c": DOWN}) == ["a", "b", "c"]


def test_a_dead_head_of_a_chain_is_skipped_until_its_trial():
    clock = Clock()
    chain = Failover(
        [leaf("a"), leaf("b")], ejection=Ejection(failures=2), clock=lambda: clock.monotonic
    )
    for _ in range(2):
        assert call(chain, {"a": DOWN}) == ["a", "b"]
    assert call(chain, {"a": DOWN}) == ["b"]
    clock.advance(10.0)
    assert call(chain, {}) == ["a"]
    assert call(chain, {}) == ["a"]


def test_a_chain_always_asks_someone():
    chain = Failover([leaf("a"), leaf("b")], ejection=Ejection(failures=1))
    for _ in range(10):
        assert call(chain, {"a": DOWN, "b": DOWN})


# -- retry ---------------------------------------------------------------------------------------


def test_a_retry_asks_the_same_leaf_again_as_often_as_it_may():
    assert call(Retry(leaf("a"), retries=2), {"a": LATE}) == ["a", "a", "a"]
    assert call(Retry(leaf("a"), retries=0), {"a": LATE}) == ["a"]


def test_a_retry_prefers_untried_members_then_starts_over():
    pool = Retry(Balanced([leaf("a"), leaf("b")]), retries=3)
    asked = call(pool, {"a": LATE, "b": LATE})
    assert [set(asked[:2]), set(asked[2:])] == [{"a", "b"}, {"a", "b"}]


def test_retries_stay_within_their_budget_and_it_recovers():
    clock = Clock()
    pool = Retry(
        leaf("a"), retries=1, ratio=0.2, floor=5, window=10.0, clock=lambda: clock.monotonic
    )
    asked = sum(len(call(pool, {"a": LATE})) for _ in range(100))
    assert asked == 100 + 5 + 20
    clock.advance(5.0)
    assert sum(len(call(pool, {"a": LATE})) for _ in range(10)) == 10 + 2
    clock.advance(20.0)
    assert call(pool, {"a": LATE}) == ["a", "a"]


def test_the_pause_before_a_retry_grows_is_bounded_and_replays():
    def pauses(seed: int) -> list[float]:
        pool = Failover([Retry(leaf("a"), retries=8, base=0.1, longest=0.8)])
        exchange = make_exchange(seed=seed)
        tried: list[Attempt] = []
        out = []
        while (to := pool.pick(exchange, tried)) is not None:
            out.append(pool.delay(exchange))
            tried.append(end(pool, exchange, to, LATE))
        return out

    assert pauses(1) == pauses(1)
    assert pauses(1) != pauses(2)
    first, *rest = pauses(1)
    assert first == 0.0
    for n, pause in enumerate(rest):
        assert 0.0 < pause <= min(0.8, 0.1 * 2**n)
    longest = [max(column) for column in zip(*(pauses(s) for s in range(30)), strict=True)]
    assert longest[1] < longest[2] < longest[3] < longest[4]


def test_a_leaf_by_itself_asks_for_no_pause():
    assert leaf("a").delay(make_exchange()) == 0.0


# -- what a carrier reads of a combinator ----------------------------------------------------------


def test_a_combinator_shows_what_all_its_members_allow():
    web = upstream_from_url("https://a.test/v1", websocket=True)
    pool = Balanced([web, leaf("b")], name="pool")
    assert (pool.name, pool.url, pool.websocket) == ("pool", "https://a.test/v1", False)
    assert Balanced([web]).websocket
    with pytest.raises(ValueError, match="at least one"):
        Balanced([])
