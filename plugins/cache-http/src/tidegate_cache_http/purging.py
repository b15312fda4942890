"""PURGE: an authorised principal drops what is stored, over HTTP.

The method takes the URL that it names. Fields say more: `Purge-Scope: prefix`, `tag` (with the
tag in `Purge-Tag`) or `all`; `Purge-Mode: soft` marks as stale in place of dropping.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import orjson
from mitmproxy import http

from tidegate.api import ErrorCode, Exchange
from tidegate.api.messages import make_response

from .options import CacheConfig, RuleBook, may_purge
from .tiers.changes import SCOPES, Scope
from .tiers.store import Store

PURGE_NOT_ALLOWED: Final = ErrorCode("purge_not_allowed", 403, "This principal may not purge.")
BAD_PURGE: Final = ErrorCode(
    "bad_purge", 400, "Purge-Scope is url, prefix, tag (with Purge-Tag) or all."
)
PURGE_FAILED: Final = ErrorCode("purge_failed", 503, "The cache could not be written.")

_JSON: Final = (b"content-type", b"application/json")


def answer(
    store: Store, config: CacheConfig, rules: RuleBook, exchange: Exchange
) -> http.Response | Coroutine[Any, Any, http.Response]:
    """Refuse, or purge and say how many entries that was."""
    principal = exchange.principal
    if principal is None or not may_purge(config.purge, principal.id):
        return _refused(exchange, PURGE_NOT_ALLOWED)
    scope = exchange.header("purge-scope") or ("tag" if exchange.header("purge-tag") else "url")
    found: Scope | None = next((known for known in SCOPES if known == scope), None)
    value = url_of(rules, exchange) if found != "tag" else exchange.header("purge-tag") or ""
    if found is None or (found == "tag" and not value):
        return _refused(exchange, BAD_PURGE)
    soft = (exchange.header("purge-mode") or "").lower() == "soft"
    return _purge(store, exchange, found, value, soft=soft)


def url_of(rules: RuleBook, exchange: Exchange) -> str:
    """The URL of a request as it stands in keys."""
    return rules.of(exchange.host, exchange.path).key(exchange).url.decode("latin-1")


async def _purge(
    store: Store, exchange: Exchange, scope: Scope, value: str, *, soft: bool
) -> http.Response:
    loop = asyncio.get_running_loop()
    count: asyncio.Future[int | None] = loop.create_future()

    def told(number: int | None) -> None:
        if not count.done():  # the client may have left
            count.set_result(number)

    def done(number: int | None) -> None:
        loop.call_soon_threadsafe(told, number)

    store.purge(scope, value.encode("latin-1", "replace"), soft=soft, done=done)
    number = await count
    if number is None:
        return _refused(exchange, PURGE_FAILED)
    exchange.notes["purged"] = number
    return _json(exchange, 200, {"purged": number, "scope": scope, "soft": soft})


def _refused(exchange: Exchange, code: ErrorCode) -> http.Response:
    error = {"code": code.code, "message": code.message, "request_id": exchange.id}
    return _json(exchange, code.status, {"error": error})


def _json(exchange: Exchange, status: int, value: Any) -> http.Response:
    return make_response(status, b"", (_JSON,), orjson.dumps(value), exchange.now)
