"""What a hit costs, and which policy hits more.

    uv run pytest bench/test_cache_http.py --benchmark-enable -n0

`cache_lookup` alone, in µs: target at most 5 for a small body in memory, so that a hit on the
lane stays within 25 (wanted: 15). What the whole hit costs beside other proxies is measured by
`bench/cache_peers.py`.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from tidegate_cache_http import CacheConfig, CacheHttp
from tidegate_cache_http.rules.messages import Asked, Terms
from tidegate_cache_http.rules.storing import storable
from tidegate_cache_http.tiers.memory import S3Fifo
from tidegate_cache_http.tiers.record import Key
from tidegate_cache_http.tiers.store import Store

from tidegate.api import AddonContext, Client, Counters, Exchange
from tidegate.runtime.messages import make_request

CLIENT = Client("127.0.0.1", 1, "127.0.0.1")
REQUEST = (
    (b"Host", b"api.test"),
    (b"User-Agent", b"curl/8.0"),
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"gzip, br"),
)
RESPONSE = (
    (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
    (b"content-type", b"application/json"),
    (b"cache-control", b"public, max-age=100000"),
    (b"etag", b'"abc"'),
    (b"server", b"origin"),
    (b"vary", b"accept-encoding"),
)


def exchange_for(path: bytes) -> Exchange:
    now = time.time()
    request = make_request(b"GET", b"http", b"api.test", "api.test", 80, path, REQUEST, None, now)
    return Exchange("x", request, CLIENT, host="api.test", path=path.decode(), now=now)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CacheHttp]:
    plugin = CacheHttp(CacheConfig(size="64MiB", memory="16MiB"), AddonContext("c", tmp_path))
    plugin.startup(None)
    yield plugin
    plugin.store.close()


def fill(cache: CacheHttp, path: bytes, body: bytes) -> Key:
    key = Key(b"http://api.test" + path, b"")
    now = time.time()
    head = storable(Asked(b"GET", REQUEST), 200, RESPONSE, now, Terms(), asked_at=now)
    head.size, head.stamp = len(body), cache.store.stamp(key.url)
    cache.store.put(key, head, body)
    assert cache.store.drain()
    return key


@pytest.mark.parametrize("size", [1024, 16 * 1024])
def test_a_hit_in_memory(benchmark: BenchmarkFixture, cache: CacheHttp, size: int) -> None:
    fill(cache, b"/x", b'{"a": 1}' * (size // 8))
    exchange = exchange_for(b"/x")
    found: Any = benchmark(cache.cache_lookup, exchange)
    assert len(found.raw_content) == size


@pytest.mark.parametrize("kind", ["text", "noise"])
@pytest.mark.parametrize("size", [1024, 16 * 1024])
def test_a_hit_in_the_file(
    benchmark: BenchmarkFixture, cache: CacheHttp, size: int, kind: str
) -> None:
    body = b'{"a": 1}' * (size // 8) if kind == "text" else random.Random(1).randbytes(size)
    key = fill(cache, b"/x", body)
    exchange = exchange_for(b"/x")
    memory = cache.store.memory

    def look() -> Any:
        memory.discard(key)
        return cache.cache_lookup(exchange)

    found = benchmark(look)
    assert len(found.raw_content) == size


def test_a_miss(benchmark: BenchmarkFixture, cache: CacheHttp) -> None:
    exchange = exchange_for(b"/none")

    def look() -> None:
        cache.cache_lookup(exchange)
        exchange.endings.pop()(exchange)

    benchmark(look)


# -- which policy hits more ---------------------------------------------------------------------


class Lru:
    """The policy that everybody has."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._sizes: OrderedDict[int, int] = OrderedDict()
        self._bytes = 0

    def __contains__(self, key: int) -> bool:
        return key in self._sizes

    def use(self, key: int) -> None:
        self._sizes.move_to_end(key)

    def add(self, key: int, size: int) -> None:
        self._sizes[key] = size
        self._bytes += size
        while self._bytes > self.budget:
            self._bytes -= self._sizes.popitem(last=False)[1]


class Ours(S3Fifo[int]):
    def __contains__(self, key: int) -> bool:
        return key in self._uses


def trace(length: int, *, skew: float, scans: bool, seed: int = 1) -> Iterator[tuple[int, int]]:
    """(key, size) of requests: Zipf over 20,000 objects, with scans of 2,000 new ones between."""
    chance = random.Random(seed)
    keys = range(20_000)
    weights = [1 / (rank + 1) ** skew for rank in keys]
    sizes = [chance.choice([600, 2_000, 6_000, 20_000]) for _ in keys]
    new = len(keys)
    done = 0
    while done < length:
        for key in chance.choices(keys, weights, k=8_000):
            yield key, sizes[key]
        done += 8_000
        if scans:
            for key in range(new, new + 2_000):
                yield key, 6_000
            new += 2_000
            done += 2_000


def ratio(policy: Any, requests: Iterator[tuple[int, int]]) -> float:
    hits = total = 0
    for key, size in requests:
        total += 1
        if key in policy:
            hits += 1
            policy.use(key)
        else:
            policy.add(key, size)
    return hits / total


@pytest.mark.parametrize("scans", [False, True], ids=["zipf", "zipf with scans"])
@pytest.mark.parametrize("skew", [0.7, 0.9, 1.1])
def test_hit_ratio_beside_lru(scans: bool, skew: float, record_property: Any) -> None:
    budget = 8 << 20  # about 6 % of all objects' bytes
    ours = ratio(Ours(budget), trace(120_000, skew=skew, scans=scans))
    lru = ratio(Lru(budget), trace(120_000, skew=skew, scans=scans))
    print(f"\nskew {skew}{', scans' if scans else ''}: ours {ours:.3f}, LRU {lru:.3f}")
    record_property("ours", ours)
    record_property("lru", lru)
    assert ours > lru


@pytest.mark.parametrize("scans", [False, True], ids=["zipf", "zipf with scans"])
def test_hit_ratio_of_the_file_beside_lru(tmp_path: Path, scans: bool) -> None:
    """The file itself, as it is: its own costs per entry counted against it."""
    budget = 8 << 20
    store = Store(tmp_path, budget, 0, Counters())
    now = time.time()
    head = storable(Asked(b"GET", ()), 200, RESPONSE[:4], now, Terms(), asked_at=now)
    chance = random.Random(3)
    noise = chance.randbytes(20_000)
    hits = total = 0
    lru, lru_hits = Lru(budget), 0
    for key_number, size in trace(16_000, skew=0.9, scans=scans):
        total += 1
        key = Key(b"http://a/%d" % key_number, b"")
        records, _ = store.disk.load(key)
        if records:
            hits += 1
            store.shared.visit(records[0].number)
        else:
            own = Asked(b"GET", ()), head
            fresh = storable(own[0], 200, RESPONSE[:4], now, Terms(), asked_at=now)
            fresh.size, fresh.stamp = size, store.stamp(key.url)
            store.put(key, fresh, noise[:size])
            if total % 50 == 0:
                store.drain()
        if key_number in lru:
            lru_hits += 1
            lru.use(key_number)
        else:
            lru.add(key_number, size + 4096)  # pages and indexes, as in the file
    store.drain()
    print(f"\nfile{', scans' if scans else ''}: {hits / total:.3f}, LRU {lru_hits / total:.3f}")
    store.close()
    assert hits >= lru_hits
