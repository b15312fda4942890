"""The pool of keys, on a clock of the test's own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate_ai_providers.keys import FORBIDDEN, KeyState
from tidegate_ai_providers.pool import ASKED, KeyPool
from tidegate_ai_providers.source import ProviderKey

from tidegate.api import Attempt, Secret, Upstream
from tidegate.testing import make_exchange


class Pool:
    """A pool of keys `a`, `b`, …; `now` is the clock."""

    def __init__(self, *weights: int, recover: float = 300.0) -> None:
        self.now = 1000.0
        self.alarms: list[str] = []
        names = "abcdefgh"[: len(weights)]
        self.states = [
            KeyState("p", ProviderKey(n, Secret(n), w), recover, lambda e, _: self.alarms.append(e))
            for n, w in zip(names, weights, strict=True)
        ]
        self.leaves = [
            Upstream(n, "http", "x", 80, weight=w) for n, w in zip(names, weights, strict=True)
        ]
        self.pool = self.of("m")

    def of(self, model: str) -> KeyPool:
        return KeyPool(
            self.leaves, self.states, name=f"p/{model}", model=model, clock=lambda: self.now
        )

    def call(self, *statuses: int | None, asked: float | None = None, pool: Any = None) -> str:
        """The keys that a call is made with, where attempts end so."""
        pool = pool or self.pool
        exchange, tried, used = make_exchange("POST"), [], ""
        for status in statuses:
            leaf = pool.pick(exchange, tried)
            if leaf is None:
                break
            used += leaf.name
            attempt = Attempt(leaf, self.now, connected=self.now, status=status)
            attempt.error = "upstream_timeout" if status is None else ""
            exchange.stash[ASKED] = asked if status == 429 else None
            tried.append(attempt)
            pool.ended(exchange, attempt)
        return used


def test_keys_are_used_by_their_weights():
    pool = Pool(3, 1)
    used = Counter(pool.call(200) for _ in range(40))
    assert used == {"a": 30, "b": 10}


def test_the_key_with_the_fewest_active_calls_is_used():
    pool = Pool(1, 1)
    open_calls = [make_exchange("POST") for _ in range(6)]
    used = Counter(pool.pool.pick(e, ()).name for e in open_calls)
    assert used == {"a": 3, "b": 3}


def test_a_key_over_its_limit_rests_for_as_long_as_its_provider_says():
    pool = Pool(1, 1)
    assert pool.call(429, 200, asked=30.0) == "ab"
    assert {pool.call(200) for _ in range(6)} == {"b"}
    pool.now += 30.1
    assert {pool.call(200) for _ in range(6)} == {"a", "b"}


def test_a_limit_of_one_model_is_none_of_another():
    pool = Pool(1)
    assert pool.call(429, asked=30.0) == "a"
    assert pool.call(200) == ""
    assert pool.pool.wait() == 30.0
    assert pool.call(200, pool=pool.of("other")) == "a"


def test_a_provider_that_names_no_time_is_left_alone_longer_each_time():
    pool, waits = Pool(1), []
    for _ in range(9):
        pool.call(429)
        waits.append(pool.pool.wait())
        pool.now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    pool.call(200)
    pool.call(429)
    assert pool.pool.wait() == 1.0


def test_a_refused_key_is_told_once_and_tried_once_in_a_while():
    pool = Pool(1, 1)
    assert pool.call(401, 200) == "ab"
    assert {pool.call(200) for _ in range(4)} == {"b"}
    pool.now += 300.1
    picked = [pool.pool.pick(make_exchange("POST"), ()).name for _ in range(4)]
    assert sorted(picked) == ["a", "b", "b", "b"], "one trial at a time"


def test_a_refused_key_that_is_taken_again_is_used_as_before():
    pool = Pool(1)
    pool.call(401)
    pool.now += 300.1
    assert pool.call(401) == "a"
    assert pool.call(200) == ""
    pool.now += 300.1
    assert pool.call(200) == "a"
    assert pool.call(200) == "a"
    assert pool.alarms == ["refused", "recovered"]


def test_a_refused_key_is_refused_for_all_models():
    pool = Pool(1)
    pool.call(401)
    other = pool.of("other")
    assert pool.call(200, pool=other) == ""
    assert other.refused


def test_one_call_that_is_forbidden_switches_no_key_off():
    pool = Pool(1)
    for _ in range(FORBIDDEN - 1):
        assert pool.call(403) == "a"
    assert pool.call(200) == "a"
    for _ in range(FORBIDDEN):
        assert pool.call(403) == "a"
    assert pool.call(200) == ""
    assert pool.call(200, pool=pool.of("other")) == "a"
    assert pool.alarms == ["forbidden"]


@pytest.mark.parametrize("status", [None, 400, 404, 500, 529])
def test_what_is_not_the_keys_fault_is_not_asked_again_with_another(status):
    assert Pool(1, 1, 1).call(status, 200) == "a"


def test_each_key_is_tried_once():
    assert Pool(1, 1, 1).call(429, 401, 429, 429) == "abc"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([200, 401, 403, 429, 500, None]), st.floats(0, 500), st.floats(0, 90)
        )
    )
)
def test_whatever_comes_a_pool_finds_its_way_back(steps):
    pool = Pool(1, 2)
    for status, asked, passing in steps:
        pool.call(status, 200, asked=asked)
        pool.now += passing
    pool.now += 3000.0
    assert pool.call(200) != ""
    assert all(member.active == 0 for member in pool.pool.members)


def test_what_was_learned_of_a_key_outlives_a_reload():
    old, new = Pool(1).states[0], Pool(1).states[0]
    old.answered(401, "m", None, 1000.0)
    new.adopt(old)
    assert new.wait("m", 1000.0) == 300.0
