"""When a worker refuses new work."""

from __future__ import annotations

from pathlib import Path

from tidegate.runtime.load import MEMORY_TICKS, Load, default_limit, resident_bytes
from tidegate.runtime.settings import Gateway, Limits, parse


def made(**limits: object) -> Load:
    load = Load(0.25, 100.0)
    load.configure(Gateway(limits=Limits.model_validate(limits)))
    return load


LATE = (100.25, 100.8, 101.4, 102.0, 102.25)


def test_a_loop_that_is_late_three_times_in_a_row_sheds_until_it_is_in_time() -> None:
    load = made(lag=0.25)
    assert [load.tick(now, now - 100) for now in LATE] == [False, False, False, True, False]


def test_a_loop_that_others_keep_from_running_does_not_shed() -> None:
    load = made(lag=0.25)
    assert not any(load.tick(now, (now - 100) / 4) for now in LATE)


def test_a_worker_over_its_memory_sheds_until_the_limit_is_raised() -> None:
    load = made(memory="1MiB")
    assert [load.tick(100 + 0.25 * n, 0) for n in range(1, MEMORY_TICKS + 1)][-1] is True
    load.configure(Gateway(limits=Limits(memory=resident_bytes() * 4)))
    assert [load.tick(101 + 0.25 * n, 0) for n in range(1, MEMORY_TICKS + 1)][-1] is False


def test_without_a_limit_workers_share_most_of_the_memory_there_is(tmp_path: Path) -> None:
    assert 0 < resident_bytes() < default_limit(1)
    assert abs(default_limit(2) - default_limit(1) // 2) <= 1
    assert parse("[gateway]\nlimits = { lag = '1s' }", base=tmp_path).gateway.limits.lag == 1.0
