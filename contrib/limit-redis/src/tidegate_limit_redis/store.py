"""Where the accounts are, and what people ask of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tidegate.api.lending import Terms

from .account import GRACE
from .backend import RedisBackend
from .scripts import RESET

EXACT: Final = 1 << 53
"""Lua's numbers are doubles: above it they are not exact."""
TIMEOUT: Final = 2.0
"""Seconds after which a Redis that says nothing is taken for lost."""
PATIENCE: Final = 10.0
"""As `TIMEOUT`, for a person."""
SCHEMES: Final = {"valkey": "redis", "valkeys": "rediss"}


class RedisStore:
    """Limits in one Redis or Valkey: `redis://[[user]:password@]host[:port][/database]`.

    `rediss://` is TLS. Each account is one hash, so that each script touches one key.
    """

    def __init__(self, url: str, prefix: str, terms: Sequence[Terms]) -> None:
        scheme, _, rest = url.partition("://")
        self._url = f"{SCHEMES.get(scheme, scheme)}://{rest}"
        try:
            redis.ConnectionPool.from_url(self._url)
        except ValueError:  # what it says may have a part of the password
            raise ValueError(f"that is no URL of {scheme}") from None
        self._prefix = prefix
        self._terms = tuple(terms)
        for one in self._terms:
            if one.amount >= EXACT:
                raise ValueError(f"limit {one.name}: Redis counts to 2^53 only")

    def backend(self, session: str) -> RedisBackend:
        return RedisBackend(
            self._terms, self._client, self._name, f"{self._prefix}:recall:", session, GRACE
        )

    def status(self) -> dict[str, Any]:
        with self._asking() as client:
            seconds, micros = client.time()
            now = seconds + micros / 1e6
            accounts = [
                shown(one, key, cast(dict[bytes, bytes], client.hgetall(name)), now)
                for one in self._terms
                for name, key in self._accounts(client, one)
            ]
        return {"now": now, "accounts": accounts}

    def reset(self, limit: str, key: str | None) -> int:
        done = 0
        with self._asking() as client:
            for one in self._terms:
                if one.name != limit:
                    continue
                found = (
                    [name for name, _ in self._accounts(client, one)]
                    if key is None
                    else [self._name(one, key)]
                )
                done += sum(client.eval(RESET.text, 1, name) for name in found)
        return done

    def _name(self, terms: Terms, key: str) -> str:
        """The name of an account."""
        return f"{self._prefix}:{terms.id}:{key}"

    def _accounts(self, client: Any, terms: Terms) -> Iterator[tuple[str, str]]:
        """Names and keys of the accounts of a limit."""
        start = self._name(terms, "")
        pattern = re.sub(r"([*?\[\]\\^])", r"\\\1", start) + "*"
        for name in client.scan_iter(match=pattern, count=1000):
            text = name.decode()
            yield text, text.removeprefix(start)

    def _client(self) -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_url(
            self._url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0), protocol=2,
        )  # fmt: skip

    @contextmanager
    def _asking(self) -> Iterator[redis.Redis]:
        """A client for what a person asks. OSError."""
        client = redis.Redis.from_url(
            self._url, socket_timeout=PATIENCE, socket_connect_timeout=TIMEOUT, protocol=2
        )
        try:
            yield client
        except RedisError as error:
            raise OSError(str(error)) from error
        finally:
            client.close()


def shown(terms: Terms, key: str, account: dict[bytes, bytes], now: float) -> dict[str, Any]:
    """An account as a person sees it. What silent leases hold is spent."""
    window = terms.window
    since = window.counted(now)
    used = lent = 0
    oldest = window.slot(now)[0]
    for name, value in account.items():
        if name[:1] == b"s":
            slot, spent, holds = int(name[1:]), int(value), 0
        elif name[:1] == b"l":
            slot, granted, returned, spent = (int(n) for n in value.split()[:4])
            holds = max(0, granted - returned - spent)
            if now - float(value.split()[4]) > GRACE:
                spent, holds = (spent + holds if window.length else 0), 0
        else:
            continue
        if slot < since:
            continue
        used, lent = used + spent, lent + holds
        if spent + holds > 0:
            oldest = min(oldest, slot)
    return {
        "limit": terms.name, "key": key, "per": terms.per, "unit": terms.unit,
        "amount": terms.amount, "used": used, "lent": lent, "window": window.length or None,
        "resets": window.back(oldest) if window.length else None,
    }  # fmt: skip
