"""A check of a limit: target below 1 µs, whatever the number of callers.

uv run pytest bench/test_limit_rate.py -n 0 --benchmark-enable --benchmark-columns=min,median
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from tidegate_limit_rate import LimitRate, LimitRateConfig
from tidegate_limit_rate.gcra import SECOND, Gcra

from tidegate.api import AddonContext, Principal
from tidegate.testing.exchanges import make_exchange


@pytest.mark.parametrize("keys", [1, 100_000])
def test_take(benchmark, keys):
    gcra = Gcra(1, 1_000_000_000, capacity=keys)
    for n in range(keys):
        gcra.take(str(n), SECOND)
    assert benchmark(gcra.take, "0", SECOND) > 0


def test_take_by_newcomers(benchmark):
    gcra = Gcra(SECOND, 1, capacity=10_000)
    names = count()
    benchmark(lambda: gcra.take(f"caller-{next(names)}", next(names) * SECOND))


@pytest.mark.parametrize("headers", [False, True])
def test_authorize(benchmark, headers):
    config = LimitRateConfig.model_validate({"rate": "1000000000/s", "headers": headers})
    addon = LimitRate(config, AddonContext("limit-rate", Path()))
    exchange = make_exchange(principal=Principal("ada", "red"))
    assert benchmark(addon.authorize, exchange) is None
