"""Makes exchanges and answers in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from mitmproxy import http
from mitmproxy.net.http import status_codes

from tidegate.api import Client, Exchange, Principal
from tidegate.runtime.messages import Fields, make_request, make_response

from .clock import Clock

type HeaderValues = Mapping[str, str] | Iterable[tuple[str, str]]

CALLER: Final = Client("192.0.2.1", 50_000, "192.0.2.1")
"""The client of an exchange where a test names none (RFC 5737)."""

_numbers = count(1)


def make_exchange(
    method: str = "GET",
    url: str = "http://api.test/",
    headers: HeaderValues = (),
    body: bytes | str | Mapping[str, Any] = b"",
    *,
    principal: Principal | None = None,
    client: Client = CALLER,
    listener: str = "gateway",
    clock: Clock | None = None,
    now: float = 1_750_000_000.0,
    started: float = 1_000.0,
    seed: int = 1,
) -> Exchange:
    """An exchange as a carrier would make it; `body` may be a mapping, sent as JSON.

    `clock`, where given, sets `now` and `started`. Host and Content-Length are added.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = parts.path or "/"
    target = f"{path}?{parts.query}" if parts.query else path
    content, kind = _content(body)
    fields = _described([("host", parts.netloc), *_pairs(headers)], content, kind)
    now, started = (now, started) if clock is None else (clock.now, clock.monotonic)
    request = make_request(
        method.encode(),
        parts.scheme.encode(),
        b"",
        host,
        port,
        target.encode(),
        _encoded(fields),
        content,
        now,
    )
    exchange = Exchange(
        f"test-{next(_numbers)}",
        request,
        client,
        listener=listener,
        host=host,
        path=path,
        now=now,
        started=started,
        seed=seed,
    )
    exchange.principal, exchange.bytes_in = principal, len(content)
    return exchange


def make_answer(
    status: int = 200,
    body: bytes | str | Mapping[str, Any] = b"ok",
    headers: HeaderValues = (),
) -> http.Response:
    """A response as an upstream would give it; `body` may be a mapping, sent as JSON."""
    content, kind = _content(body)
    fields = _described(list(_pairs(headers)), content, kind or "text/plain", empty=True)
    reason = status_codes.RESPONSES.get(status, "").encode()
    return make_response(status, reason, _encoded(fields), content, 0.0)


def _pairs(headers: HeaderValues) -> Iterable[tuple[str, str]]:
    return headers.items() if isinstance(headers, Mapping) else headers


def _described(
    fields: list[tuple[str, str]], content: bytes, kind: str, *, empty: bool = False
) -> list[tuple[str, str]]:
    """`fields` with type and length of the body, where they don't tell; `empty`: also of none."""
    names = {name.lower() for name, _ in fields}
    if kind and "content-type" not in names:
        fields.append(("content-type", kind))
    if (content or empty) and not names & {"content-length", "transfer-encoding"}:
        fields.append(("content-length", str(len(content))))
    return fields


def _encoded(fields: Iterable[tuple[str, str]]) -> Fields:
    return tuple((name.encode(), value.encode()) for name, value in fields)


def _content(body: bytes | str | Mapping[str, Any]) -> tuple[bytes, str]:
    """The bytes of a body, and its media type where its form tells."""
    if isinstance(body, bytes):
        return body, ""
    if isinstance(body, str):
        return body.encode(), ""
    return orjson.dumps(dict(body)), "application/json"
