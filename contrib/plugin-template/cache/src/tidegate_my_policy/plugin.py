"""Keeps answers in memory, apart for each caller, for as long as they may be kept."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from mitmproxy import http

from tidegate.api import (
    AddonConfig,
    AddonContext,
    ByteSize,
    Duration,
    Exchange,
    Plugin,
    StashKey,
    hook,
)

type Key = tuple[str, str, bytes]
type Store = OrderedDict[Key, Entry]

KEY: Final = StashKey[Key]("key")
_MAX_AGE: Final = re.compile(r"\bmax-age=(\d+)")
_FORBIDDEN: Final = re.compile(r"\bno-(?:store|cache)\b")


class MyPolicyConfig(AddonConfig):
    """The options of an `[[addon]]` table."""

    longest: Duration = 300.0
    entries: int = 1000
    entry_size: ByteSize = 256 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer, and the Unix time until which it is fresh."""

    until: float
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


class MyPolicy(Plugin[MyPolicyConfig]):
    """Keeps answers in memory, apart for each caller, for as long as they may be kept."""

    Config = MyPolicyConfig

    def __init__(self, config: MyPolicyConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._store: Store = OrderedDict()

    @hook
    def startup(self, previous: Plugin[Any] | None) -> None:
        """Take over what the instance before this one has kept."""
        if isinstance(previous, MyPolicy):
            self._store = previous._store

    @hook
    def cache_lookup(self, exchange: Exchange) -> http.Response | None:
        """Answer a GET that was answered before, while that answer is fresh."""
        request = exchange.request
        asks = request.headers.get("cache-control", "")
        if request.method != "GET" or "range" in request.headers or _FORBIDDEN.search(asks):
            return None
        caller = exchange.principal.id if exchange.principal else ""
        key = (caller, exchange.host, request.data.path)
        exchange.stash[KEY] = key
        entry = self._store.get(key)
        if entry is None or entry.until <= exchange.now:
            return None
        self._store.move_to_end(key)
        return http.Response.make(200, entry.body, entry.fields)

    @hook
    def cache_store(self, exchange: Exchange) -> Recorder | None:
        """Watch the body of an answer that may be kept."""
        key = exchange.stash.get(KEY)
        seconds = self._seconds(exchange.response)
        if key is None or exchange.response is None or seconds <= 0:
            return None
        return Recorder(self, key, exchange.now + seconds, exchange.response.headers.fields)

    def keep(self, key: Key, entry: Entry) -> None:
        """Put an entry in; what was asked for longest ago goes out."""
        self._store[key] = entry
        self._store.move_to_end(key)
        while len(self._store) > self.config.entries:
            self._store.popitem(last=False)

    def _seconds(self, response: http.Response | None) -> float:
        """How long an answer may be kept; 0: not at all. Far stricter than RFC 9111."""
        if response is None or response.status_code != 200:
            return 0
        says = response.headers.get("cache-control", "")
        age = _MAX_AGE.search(says)
        if age is None or _FORBIDDEN.search(says):
            return 0
        if "vary" in response.headers or "set-cookie" in response.headers:
            return 0
        return min(int(age[1]), self.config.longest)


class Recorder:
    """Collects a body as it passes; keeps it only where it came to its end."""

    def __init__(
        self, plugin: MyPolicy, key: Key, until: float, fields: tuple[tuple[bytes, bytes], ...]
    ) -> None:
        self._plugin = plugin
        self._key = key
        self._until = until
        self._fields = fields
        self._chunks: list[bytes] = []
        self._size = 0

    def write(self, chunk: bytes) -> None:
        """Take the next bytes, up to the limit."""
        self._size += len(chunk)
        if self._size <= self._plugin.config.entry_size:
            self._chunks.append(chunk)
        else:
            self._chunks.clear()

    def close(self, *, complete: bool, trailers: http.Headers | None) -> None:
        """Keep the answer if it is whole."""
        if complete and not trailers and self._size <= self._plugin.config.entry_size:
            entry = Entry(self._until, self._fields, b"".join(self._chunks))
            self._plugin.keep(self._key, entry)
