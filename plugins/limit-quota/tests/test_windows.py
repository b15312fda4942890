"""When windows begin, against a slow model; and the clock that does not go back."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate_limit_quota.windows import SECONDS, SLOTS, SteadyClock, Window

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Beirut",
         "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "America/Havana"]  # fmt: skip
STEP = 900
"""Seconds: the clocks of zones change at multiples of it since 1980."""


def label(length: str, moment: int, zone: ZoneInfo) -> tuple[int, ...]:
    """What tells the day, week or month of a moment from others."""
    local = datetime.fromtimestamp(moment, zone)
    if length == "month":
        return local.year, local.month
    if length == "week":
        return tuple(local.isocalendar()[:2])
    return local.year, local.month, local.day


def edge(length: str, moment: int, zone: ZoneInfo, step: int) -> int:
    """Walk on until the label has changed."""
    here = label(length, moment, zone)
    while label(length, moment, zone) == here:
        moment += step
    return moment


@pytest.mark.parametrize("length", ["day", "week"])
@given(
    moment=st.integers(400_000_000 // STEP, 2_000_000_000 // STEP).map(lambda n: n * STEP),
    zone=st.sampled_from(ZONES),
)
def test_calendar_windows_are_those_of_the_slow_model(length, moment, zone):
    info = ZoneInfo(zone)
    start, end = Window(length, zone=zone).slot(moment)
    assert start == edge(length, moment, info, -STEP) + STEP
    assert end == edge(length, moment, info, STEP)


@pytest.mark.parametrize(
    ("what", "moments"),
    [
        ("month UTC",
         "2026-02-28T23:59:59Z 2026-02-01T00:00Z 2026-03-01T00:00Z"),
        ("month UTC",
         "2028-02-29T12:00:00Z 2028-02-01T00:00Z 2028-03-01T00:00Z"),
        ("month UTC",
         "2026-12-31T23:00:00Z 2026-12-01T00:00Z 2027-01-01T00:00Z"),
        ("month Europe/Berlin",
         "2026-12-31T23:00:00Z 2027-01-01T00:00+01:00 2027-02-01T00:00+01:00"),
        ("month Europe/Berlin",
         "2026-03-15T12:00:00Z 2026-03-01T00:00+01:00 2026-04-01T00:00+02:00"),
        ("day Europe/Berlin",
         "2026-03-29T12:00:00Z 2026-03-29T00:00+01:00 2026-03-30T00:00+02:00"),
        ("day Europe/Berlin",
         "2026-10-25T12:00:00Z 2026-10-25T00:00+02:00 2026-10-26T00:00+01:00"),
        ("day America/Sao_Paulo",
         "2018-11-04T12:00:00Z 2018-11-04T03:00Z 2018-11-05T02:00Z"),
        ("day Pacific/Apia",
         "2011-12-30T09:00:00Z 2011-12-29T10:00Z 2011-12-30T10:00Z"),
        ("week UTC",
         "2026-11-24T12:00:00Z 2026-11-23T00:00Z 2026-11-30T00:00Z"),
        ("hour UTC",
         "2026-11-24T12:34:56Z 2026-11-24T12:00Z 2026-11-24T13:00Z"),
        ("second UTC",
         "2026-11-24T12:34:56.7Z 2026-11-24T12:34:56Z 2026-11-24T12:34:57Z"),
    ],
)  # fmt: skip
def test_windows_begin_where_people_expect_it(what, moments):
    """`moments`: now, the start of its window, the end."""
    length, zone = what.split()
    now, start, end = (datetime.fromisoformat(text).timestamp() for text in moments.split())
    assert Window(length, zone=zone).slot(now) == (start, end)


@given(
    length=st.sampled_from(["minute", "hour", "day", "week", "month"]),
    spends=st.lists(
        st.tuples(st.floats(0, 3_000_000), st.integers(1, 10)), min_size=1, max_size=40
    ),
)
def test_a_rolling_window_lets_no_span_of_its_length_have_more(length, spends):
    window, size = Window(length, rolling=True), SECONDS[length]
    booked: list[tuple[float, int, int]] = []
    for at, n in sorted((1_750_000_000 + at, n) for at, n in spends):
        since = window.counted(at)
        if sum(m for _, slot, m in booked if slot >= since) + n <= 10:
            booked.append((at, window.slot(at)[0], n))
    for end, _, _ in booked:
        assert sum(n for at, _, n in booked if end - size < at <= end) <= 10


@given(now=st.floats(1e9, 2e9), length=st.sampled_from(["minute", "hour", "day"]))
def test_what_is_spent_in_a_rolling_window_comes_back_a_slot_late_at_most(now, length):
    window, size = Window(length, rolling=True), SECONDS[length]
    back = window.back(window.slot(now)[0])
    assert size <= back - now <= size + size / SLOTS
    assert window.counted(back) > window.slot(now)[0] >= window.counted(back - 1e-3)


def test_what_is_in_progress_has_one_slot_for_ever():
    assert Window("").slot(0.0)[0] == Window("").slot(9e9)[0] == Window("").counted(9e9)


# -- the clock -------------------------------------------------------------------------------------


class Times:
    def __init__(self) -> None:
        self.wall, self.monotonic = 1_000_000.0, 50.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


def test_a_step_back_of_the_wall_clock_is_made_good_without_going_back():
    times = Times()
    clock = SteadyClock(lambda: times.wall, lambda: times.monotonic)
    times.pass_(10)
    assert clock() == 1_000_010
    times.wall -= 3600
    seen = [clock()]
    for _ in range(700):
        times.pass_(60)
        seen.append(clock())
    assert seen == sorted(seen)
    assert seen[1] - seen[0] == pytest.approx(54)
    assert seen[-1] == pytest.approx(times.wall)


def test_a_step_ahead_is_followed():
    times = Times()
    clock = SteadyClock(lambda: times.wall, lambda: times.monotonic)
    times.wall += 5000
    assert clock() == 1_005_000


def test_after_a_restart_it_goes_on_where_it_was():
    times = Times()
    clock = SteadyClock(lambda: times.wall, lambda: times.monotonic, not_before=1_003_600)
    assert clock() == 1_003_600
    times.pass_(100)
    assert clock() == pytest.approx(1_003_690)
    assert datetime.fromtimestamp(clock(), UTC).year == 1970


@given(
    st.lists(
        st.tuples(st.floats(0, 1e5), st.floats(-1e5, 1e5)), max_size=50
    )
)  # fmt: skip
def test_it_never_goes_back(steps):
    times = Times()
    clock = SteadyClock(lambda: times.wall, lambda: times.monotonic)
    seen = [clock()]
    for passed, step in steps:
        times.pass_(passed)
        times.wall += step
        seen.append(clock())
    assert all(b >= a - 1e-6 for a, b in pairwise(seen))
