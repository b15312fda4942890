"""HTTP dates, strictly (RFC 9110 §5.6.7).

The three formats of the grammar are accepted, in any letter case; whatever is laxer (another
zone, a hour of one digit, two spaces, a missing comma) is no date. A lenient parser would give
a lifetime to an Expires that other caches take as invalid.
"""

from __future__ import annotations

import re
from calendar import timegm
from functools import lru_cache
from typing import Final

_MONTHS: Final = {
    month: number
    for number, month in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}
_DAY: Final = "(?:mon|tue|wed|thu|fri|sat|sun)"
_LONG_DAY: Final = "(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
_MONTH: Final = f"({'|'.join(_MONTHS)})"
_TIME: Final = r"(\d\d):(\d\d):(\d\d)"
_FIXDATE: Final = re.compile(rf"{_DAY}, (\d\d) {_MONTH} (\d{{4}}) {_TIME} gmt", re.ASCII)
_RFC850: Final = re.compile(rf"{_LONG_DAY}, (\d\d)-{_MONTH}-(\d\d) {_TIME} gmt", re.ASCII)
_ASCTIME: Final = re.compile(rf"{_DAY} {_MONTH} (\d\d| \d) {_TIME} (\d{{4}})", re.ASCII)
_LENGTHS: Final = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@lru_cache(maxsize=4096)
def parse_date(value: str, this_year: int) -> int | None:
    """Unix seconds of an HTTP date, or None. `this_year` decides years of two digits."""
    text = value.lower()
    if found := _FIXDATE.fullmatch(text):
        day, month, year, *clock = found.groups()
    elif found := _RFC850.fullmatch(text):
        day, month, year, *clock = found.groups()
        # one that seems to be more than 50 years in the future is the past one (§5.6.7)
        full = this_year - this_year % 100 + int(year)
        year = str(full - 100 if full > this_year + 50 else full)
    elif found := _ASCTIME.fullmatch(text):
        month, day, *clock, year = found.groups()
    else:
        return None
    return _seconds(int(year), _MONTHS[month], int(day), *map(int, clock))


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
    if not 1 <= day <= _LENGTHS[month - 1] or hour > 23 or minute > 59 or second > 60:
        return None
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if (month == 2 and day == 29 and not leap) or year < 1900:
        return None
    return timegm((year, month, day, hour, minute, second, 0, 0, 0))
