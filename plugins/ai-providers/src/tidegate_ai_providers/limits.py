"""How long a provider asks to be left alone: from the head, or the body, of its answer 429."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

LONGEST: Final = 86_400.0
"""Seconds beyond which nobody is believed."""

_PARTS: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|d|h|m|s)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_EPOCH: Final = 1e9
"""Numbers above are points in time, not seconds from now."""


def retry_after(fields: Iterable[tuple[bytes, bytes]], body: bytes, now: float) -> float | None:
    """Seconds until another call makes sense; None: the answer does not say.

    `Retry-After` (RFC 9110 §10.2.3) and OpenAI's `retry-after-ms`; else the reset fields of those
    limits of which nothing remains, as OpenAI (`x-ratelimit-reset-tokens: 6m0s`), Anthropic
    (`anthropic-ratelimit-tokens-reset`, a date) and others send them; else Gemini's `RetryInfo`
    in the body. `now`: Unix seconds.
    """
    found = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in fields}
    if (wait := _number(found.get("retry-after-ms"))) is not None:
        return _bounded(wait / 1000.0)
    if (wait := seconds(found.get("retry-after"), now)) is not None:
        return _bounded(wait)
    resets = [
        wait
        for name, value in found.items()
        if "ratelimit" in name and "reset" in name and _spent(found, name)
        if (wait := seconds(value, now)) is not None
    ]
    if resets:
        return _bounded(max(resets))
    return _retry_info(body)


def _spent(fields: dict[str, str], reset: str) -> bool:
    """Whether nothing remains of the limit that a reset field belongs to."""
    remaining = _number(fields.get(reset.replace("reset", "remaining")))
    return remaining is None or remaining <= 0


def seconds(text: str | None, now: float) -> float | None:
    """Seconds from now of `12`, `6m0.5s`, a Unix time (s or ms), an HTTP date or RFC 3339."""
    if not text:
        return None
    text = text.strip()
    number = _number(text)
    if number is not None:
        if number > _EPOCH * 1000:
            number /= 1000.0
        return number - now if number > _EPOCH else number
    parts = _PARTS.findall(text)
    if parts and "".join(a + b for a, b in parts) == text:
        return sum(float(amount) * _UNITS[unit] for amount, unit in parts)
    for parse in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            return parse(text).timestamp() - now
        except ValueError:
            continue
    return None


def _retry_info(body: bytes) -> float | None:
    if b"retryDelay" not in body:
        return None
    try:
        value = orjson.loads(body)
    except ValueError:
        return None
    for error in value if isinstance(value, list) else [value]:
        for detail in _details(error):
            if (wait := seconds(str(detail.get("retryDelay", "")), 0.0)) is not None:
                return _bounded(wait)
    return None


def _details(value: Any) -> list[dict[str, Any]]:
    error = value.get("error") if isinstance(value, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    return [d for d in details if isinstance(d, dict)] if isinstance(details, list) else []


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _bounded(wait: float) -> float:
    return min(max(wait, 0.0), LONGEST)
