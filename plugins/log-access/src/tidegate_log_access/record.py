"""The line of one exchange: which fields there are, and how each is read. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypedDict

import orjson

from tidegate.api import Attempt, Exchange, Shadow
from tidegate.api.platform import CONSUMER, SERVICE

MASK: Final = "***"

SECRET_NAME: Final = re.compile(
    r"auth|cookie|credential|key|passw|pwd|secret|session|sig|token|^code$", re.IGNORECASE
)
"""Names of fields and query parameters whose values are taken for credentials."""

_LONGEST_NAME: Final = 40
"""A longer "name" without a value may be a secret itself, as in `?tg_…`."""


class Record(TypedDict):
    """What a line holds, in order. Times are milliseconds but for `time`."""

    time: datetime
    request_id: str
    listener: str
    client: str
    principal: str | None
    team: str | None
    key: str | None
    service: str | None
    method: str
    host: str
    path: str
    query: str | None
    status: int | None
    outcome: str
    code: str | None
    upstream: str | None
    attempts: int
    duration_ms: float | None
    first_byte_ms: float | None
    upstream_ms: float | None
    bytes_in: int
    bytes_out: int
    cache: str | None
    failed_addon: str | None
    notes: dict[str, Any] | None
    shadows: list[dict[str, str]] | None


FIELDS: Final = tuple(Record.__annotations__)
"""The name of every field of a line, in order."""


def record(x: Exchange) -> Record:
    """The line of an exchange that has ended. One display: a getter for each field costs twice."""
    data, response, denial, attempts = x.request.data, x.response, x.denial, x.attempts
    upstream = attempts[-1].upstream if attempts else x.upstream
    principal, consumer, service = x.principal, x.stashed(CONSUMER), x.stashed(SERVICE)
    started, ended, first_byte = x.started, x.ended, x.first_byte
    return {
        "time": datetime.fromtimestamp(x.now, UTC),
        "request_id": x.id,
        "listener": x.listener,
        "client": x.client.address,
        "principal": None if principal is None else principal.id,
        "team": (principal.team or None) if principal is not None else None,
        "key": None if consumer is None else consumer.prefix,
        "service": None if service is None else service.ref,
        "method": data.method.decode("latin-1"),
        "host": x.host,
        "path": x.path,
        "query": query_names(data.path) if data.path.find(b"?") >= 0 else None,
        "status": x.status if response is None else response.data.status_code,
        "outcome": x.outcome,
        "code": None if denial is None else denial.code,
        "upstream": None if upstream is None else upstream.name,
        "attempts": len(attempts),
        "duration_ms": _milliseconds(ended - started) if started and ended else None,
        "first_byte_ms": _milliseconds(first_byte - started) if started and first_byte else None,
        "upstream_ms": _upstream_ms(attempts) if attempts else None,
        "bytes_in": x.bytes_in,
        "bytes_out": x.bytes_out,
        "cache": "hit" if x.from_cache else None,
        "failed_addon": x.failed_addon or None,
        "notes": x.notes or None,
        "shadows": _shadows(x.shadows) if x.shadows else None,
    }


def _milliseconds(seconds: float) -> float:
    """Milliseconds with three places; a quarter of what `round` costs."""
    return int(seconds * 1e6 + 0.5) / 1000


def _upstream_ms(attempts: list[Attempt]) -> float | None:
    """The time of all attempts together."""
    spent = 0.0
    for attempt in attempts:
        if attempt.ended:
            spent += attempt.ended - attempt.started
    return _milliseconds(spent) if spent else None


def _shadows(shadows: list[Shadow]) -> list[dict[str, str]]:
    return [
        {"addon": s.addon, "phase": s.phase, "decision": s.decision, "detail": s.detail}
        for s in shadows
    ]


def query_names(path: bytes) -> str | None:
    """The names of the parameters of a target's query, joined by `&`, as they were sent."""
    pairs = _pairs(path)
    return "&".join(_name(pair) for pair in pairs) if pairs else None


def query_masked(path: bytes) -> str | None:
    """The query of a target, as it was sent, with the values of credentials masked."""
    pairs = _pairs(path)
    return "&".join(_masked(pair) for pair in pairs) if pairs else None


def _pairs(path: bytes) -> list[str]:
    query = path.partition(b"?")[2]
    return [pair for pair in query.decode("latin-1").split("&") if pair]


def _name(pair: str) -> str:
    name = pair.partition("=")[0]
    return name if len(name) <= _LONGEST_NAME else MASK


def _masked(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not equals or not value:
        return _name(pair) + equals
    return f"{_name(pair)}={MASK if SECRET_NAME.search(name) else value}"


def headers(exchange: Exchange, names: Iterable[str]) -> dict[str, str]:
    """The named request fields (lower case); those that are not there are left out."""
    values = ((name, exchange.header(name)) for name in names)
    return {name: value for name, value in values if value is not None}


_OPTIONS: Final = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


def encode(record: Mapping[str, Any]) -> bytes:
    """A record as one line of JSON. What is not JSON-able is written as its text."""
    try:
        return orjson.dumps(record, default=str, option=_OPTIONS)
    except TypeError:  # keys that are not text, or text that is not UTF-8
        pass
    try:
        return orjson.dumps(record, default=str, option=_OPTIONS | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # bytes of the caller's that are not UTF-8: escape them
        return json.dumps(record, default=str, skipkeys=True).encode() + b"\n"
