"""What a combinator adds to each exchange: one pick and its end.

uv run pytest bench/test_balance.py -n 0 --benchmark-enable --benchmark-columns=min,median
"""

from __future__ import annotations

import pytest

from tidegate.api import Attempt, Upstream
from tidegate.api.balance import Balanced, Failover, Retry, sticky_by
from tidegate.testing.exchanges import make_exchange


def leaves(count: int) -> list[Upstream]:
    return [Upstream(str(n), "http", f"{n}.test", 80) for n in range(count)]


@pytest.mark.parametrize(
    "pool",
    [
        pytest.param(Balanced(leaves(3)), id="balanced"),
        pytest.param(Balanced(leaves(3), sticky=sticky_by("address")), id="sticky"),
        pytest.param(Retry(Balanced(leaves(3))), id="retry"),
        pytest.param(Failover([Retry(Balanced(leaves(3))), leaves(1)[0]]), id="failover"),
    ],
)
def test_pick_and_end(benchmark, pool):
    def fresh():
        return (make_exchange(),), {}

    def run(exchange):
        leaf = pool.pick(exchange, ())
        pool.ended(exchange, Attempt(leaf, 1.0, status=200))

    benchmark.pedantic(run, setup=fresh, rounds=3000)
    assert pool.active == 0
