"""The algorithm: exact counts, exact waits, bounded memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tidegate_limit_rate.gcra import OVERFLOW, SECOND, Gcra
from tidegate_limit_rate.plugin import share

NOW = 1_000_000 * SECOND


def test_a_burst_passes_then_one_per_interval():
    gcra = Gcra(SECOND, 3)
    assert [gcra.take("a", NOW) > 0 for _ in range(5)] == [True, True, True, False, False]
    assert gcra.take("a", NOW + SECOND - 1) == -1
    assert gcra.take("a", NOW + SECOND) > 0
    assert gcra.take("a", NOW + SECOND) == -SECOND
    assert gcra.take("b", NOW) > 0


def test_a_denial_spends_nothing():
    gcra = Gcra(SECOND, 1)
    gcra.take("a", NOW)
    for _ in range(100):
        assert gcra.take("a", NOW) == -SECOND
    assert gcra.take("a", NOW + SECOND) > 0


def test_time_that_stands_still_or_goes_back_gives_nothing():
    gcra = Gcra(SECOND, 2)
    gcra.take("a", NOW)
    gcra.take("a", NOW)
    assert gcra.take("a", NOW - 3600 * SECOND) < 0


def test_what_is_left_is_counted():
    gcra = Gcra(SECOND, 3)
    assert [gcra.remaining(gcra.take("a", NOW), NOW) for _ in range(3)] == [2, 1, 0]
    assert gcra.remaining(NOW - 1, NOW) == 3


def brute_force(times: list[int], interval: int, burst: int) -> list[bool]:
    """A token bucket, counted in units of interval-ths of a token."""
    tokens, last, out = burst * interval, times[0] if times else 0, []
    for now in times:
        tokens, last = min(burst * interval, tokens + now - last), now
        out.append(tokens >= interval)
        if out[-1]:
            tokens -= interval
    return out


@given(
    st.lists(st.integers(0, 3 * 10**9), max_size=60),
    st.integers(1, 10**9),
    st.integers(1, 8),
)
def test_it_agrees_with_a_token_bucket(gaps, interval, burst):
    times, now = [], NOW
    for gap in gaps:
        now += gap
        times.append(now)
    gcra = Gcra(interval, burst)
    assert [gcra.take("a", t) > 0 for t in times] == brute_force(times, interval, burst)


@given(
    st.integers(1, 5000),
    st.sampled_from([0.5, 1.0, 60.0, 3600.0]),
    st.integers(1, 500),
    st.integers(1, 32),
    st.lists(st.tuples(st.integers(0, 31), st.floats(0.0, 2.0)), max_size=200),
)
def test_workers_together_never_admit_more_than_the_limit(count, period, burst, workers, visits):
    interval, own = share(count, period, burst, workers)
    fleet = [Gcra(interval, own) for _ in range(workers)]
    start, now, admitted = NOW, NOW, 0
    for worker, pause in visits:
        now += int(pause * SECOND)
        while fleet[worker % workers].take("a", now) > 0 and admitted < 20_000:
            admitted += 1
        earned = (now - start) * count / (period * SECOND)
        assert admitted <= max(burst, workers) + earned + 1e-6


def test_keys_that_are_idle_are_forgotten_as_newcomers_arrive():
    gcra = Gcra(SECOND, 1)
    for n in range(1000):
        gcra.take(f"old{n}", NOW)
    for n in range(600):
        gcra.take(f"new{n}", NOW + 2 * SECOND)
    assert not [key for key in gcra.tats if key.startswith("old")]
    assert len(gcra.tats) == 600


def test_memory_is_bounded_and_nobody_in_use_is_forgotten():
    gcra = Gcra(SECOND, 2, capacity=100)
    for n in range(5000):
        gcra.take(f"k{n}", NOW)
    assert len(gcra.tats) == 101
    assert OVERFLOW in gcra.tats
    assert gcra.overflowed == 4900
    assert [gcra.take("k5", NOW) > 0 for _ in range(3)] == [True, False, False]


def test_newcomers_to_a_full_table_share_one_limit_until_there_is_room():
    gcra = Gcra(SECOND, 2, capacity=10)
    for n in range(10):
        gcra.take(f"k{n}", NOW)
    assert [gcra.take(f"x{n}", NOW) > 0 for n in range(4)] == [True, True, False, False]
    assert [gcra.take(f"y{n}", NOW + 2 * SECOND) > 0 for n in range(4)] == [True] * 4


def test_a_newer_limiter_takes_over_in_proportion():
    old = Gcra(SECOND, 10)
    for _ in range(5):
        old.take("half", NOW)
    old.take("idle", NOW - 100 * SECOND)
    new = Gcra(10 * SECOND, 4)
    new.adopt(old, NOW)
    assert [new.take("half", NOW) > 0 for _ in range(3)] == [True, True, False]
    assert "idle" not in new.tats
    assert old.remaining(old.tats["half"], NOW) == 5
