"""The line of one exchange: which fields there are, and how each is read. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from tidegate.api import Exchange

MASK: Final = "***"

SECRET_NAME: Final = re.compile(
    r"auth|cookie|credential|key|passw|pwd|secret|session|sig|token|^code$", re.IGNORECASE
)
"""Names of fields and query parameters whose values are taken for credentials."""

_LONGEST_NAME: Final = 40
"""A longer "name" without a value may be a secret itself, as in `?tg_…`."""

type Getter = Callable[[Exchange], Any]


def _milliseconds(start: float, end: float) -> float | None:
    return round((end - start) * 1000, 3) if start and end else None


def _status(exchange: Exchange) -> int | None:
    if exchange.response is not None:
        return exchange.response.data.status_code
    return exchange.denial.status if exchange.denial is not None else None


def _upstream(exchange: Exchange) -> str | None:
    if exchange.attempts:
        return exchange.attempts[-1].upstream.name
    return exchange.upstream.name if exchange.upstream is not None else None


def _upstream_ms(exchange: Exchange) -> float | None:
    """The time of all attempts together."""
    spent = 0.0
    for attempt in exchange.attempts:
        if attempt.ended:
            spent += attempt.ended - attempt.started
    return round(spent * 1000, 3) if spent else None


def _shadows(exchange: Exchange) -> list[dict[str, str]] | None:
    if not exchange.shadows:
        return None
    return [
        {"addon": s.addon, "phase": s.phase, "decision": s.decision, "detail": s.detail}
        for s in exchange.shadows
    ]


def query_names(exchange: Exchange) -> str | None:
    """The names of the query's parameters, joined by `&`, as they were sent."""
    if b"?" not in exchange.request.data.path:
        return None
    pairs = _pairs(exchange)
    return "&".join(_name(pair) for pair in pairs) if pairs else None


def query_masked(exchange: Exchange) -> str | None:
    """The query, as it was sent, with the values of credentials masked."""
    pairs = _pairs(exchange)
    return "&".join(_masked(pair) for pair in pairs) if pairs else None


def _pairs(exchange: Exchange) -> list[str]:
    query = exchange.request.data.path.partition(b"?")[2]
    return [pair for pair in query.decode("latin-1").split("&") if pair]


def _name(pair: str) -> str:
    name = pair.partition("=")[0]
    return name if len(name) <= _LONGEST_NAME else MASK


def _masked(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not equals or not value:
        return _name(pair) + equals
    return f"{_name(pair)}={MASK if SECRET_NAME.search(name) else value}"


GETTERS: Final[dict[str, Getter]] = {
    "time": lambda x: datetime.fromtimestamp(x.now, UTC),
    "request_id": lambda x: x.id,
    "listener": lambda x: x.listener,
    "client": lambda x: x.client.address,
    "principal": lambda x: None if x.principal is None else x.principal.id,
    "method": lambda x: x.request.data.method.decode("latin-1"),
    "host": lambda x: x.host,
    "path": lambda x: x.path,
    "query": query_names,
    "status": _status,
    "outcome": lambda x: x.outcome,
    "code": lambda x: None if x.denial is None else x.denial.code,
    "upstream": _upstream,
    "attempts": lambda x: len(x.attempts),
    "duration_ms": lambda x: _milliseconds(x.started, x.ended),
    "first_byte_ms": lambda x: _milliseconds(x.started, x.first_byte),
    "upstream_ms": _upstream_ms,
    "bytes_in": lambda x: x.bytes_in,
    "bytes_out": lambda x: x.bytes_out,
    "cache": lambda x: "hit" if x.from_cache else None,
    "failed_addon": lambda x: x.failed_addon or None,
    "notes": lambda x: x.notes or None,
    "shadows": _shadows,
}
"""Every field of a line, in order."""


def headers_getter(names: Iterable[str]) -> Getter:
    """A getter of the named request fields; those that are not there are left out."""
    wanted = tuple(name.lower() for name in names)

    def headers(exchange: Exchange) -> dict[str, str]:
        values = ((name, exchange.header(name)) for name in wanted)
        return {name: value for name, value in values if value is not None}

    return headers


_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS


def encode(record: dict[str, Any]) -> bytes:
    """A record as one line of JSON. What is not JSON-able is written as its text."""
    try:
        return orjson.dumps(record, default=str, option=_OPTIONS)
    except TypeError:  # bytes of the caller's that are not UTF-8: escape them
        return json.dumps(record, default=str, skipkeys=True).encode() + b"\n"
