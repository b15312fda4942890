"""The typed options of an addon. Unknown keys are refused; errors name the key."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr

__all__ = ["AddonConfig", "ByteSize", "Duration", "Model", "Rate", "Secret"]

Secret = SecretStr
"""A string that prints as `**********`; `.get_secret_value()` reads it."""


class Model(BaseModel):
    """Base of nested option tables: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class AddonConfig(Model):
    """Base of a plugin's `Config`: what may stand in its `[[addon]]` table."""


_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES: Final = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
_PERIODS: Final = {"s": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0, "h": 3600.0}
_PERIODS_ALL: Final = {**_PERIODS, "hour": 3600.0, "d": 86400.0, "day": 86400.0}


def parse_duration(value: object) -> object:
    """Seconds from `"250ms"`, `"30s"`, `"5m"`, `"1h"`, `"7d"` or a number of seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)", value.strip())
        if not match:
            raise ValueError(f'{value!r} is not a duration: write "250ms", "30s", "5m", "1h", "7d"')
        value = float(match[1]) * _UNITS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        raise ValueError("a duration is not negative")
    return value


def parse_size(value: object) -> object:
    """Bytes from `"64KiB"`, `"10MB"`, `"1GiB"` or a number of bytes."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?i?b)?", value.strip().lower())
        if not match or (match[2] or "") not in _SIZES:
            raise ValueError(f'{value!r} is not a size: write "64KiB", "10MB", "1GiB"')
        value = int(float(match[1]) * _SIZES[match[2] or ""])
    if isinstance(value, int) and value < 0:
        raise ValueError("a size is not negative")
    return value


def parse_rate(value: object) -> object:
    """(count, seconds) from `"100/s"`, `"600/min"`, `"10/hour"`, `"5/10s"`."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)\s*/\s*(\d+)?\s*([a-z]+)", value.strip().lower())
        if not match or match[3] not in _PERIODS_ALL or int(match[1]) == 0:
            raise ValueError(f'{value!r} is not a rate: write "100/s", "600/min", "5/10s"')
        seconds = int(match[2] or 1) * _PERIODS_ALL[match[3]]
        if seconds == 0:
            raise ValueError("the period of a rate is not zero")
        value = (int(match[1]), seconds)
    return value


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds as float; written `"30s"`, `"250ms"`, `"5m"` or a number."""

ByteSize = Annotated[int, BeforeValidator(parse_size)]
"""Bytes as int; written `"64KiB"`, `"10MB"` or a number."""

Rate = Annotated[tuple[int, float], BeforeValidator(parse_rate)]
"""(count, seconds); written `"600/min"`."""
