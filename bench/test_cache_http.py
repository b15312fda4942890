"""What a hit costs, and which policy hits more.

    uv run pytest bench/test_cache_http.py --benchmark-enable -n0

`cache_lookup` alone, in µs: target at most 5 for a small body in memory, so that a hit on the
lane stays within 25 (wanted: 15). What the whole hit costs beside other proxies is measured by
`bench/cache_peers.py`.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from tidegate_cache_http import CacheConfig, CacheHttp
from tidegate_cache_http.rules.messages import Asked, Terms
from tidegate_cache_http.rules.storing import storable
from tidegate_cache_http.tiers.record import Key

from tidegate.api import AddonContext, Client, Exchange
from tidegate.runtime.messages import make_request

sys.path.insert(0, str(Path(__file__).parent))
from cache_ratio import SKEWS, Lru, Ours, of_the_file, ratio, trace

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


@pytest.mark.parametrize("scans", [False, True], ids=["zipf", "zipf with scans"])
@pytest.mark.parametrize("skew", SKEWS)
def test_hit_ratio_beside_lru(scans: bool, skew: float) -> None:
    budget = 8 << 20  # about 6 % of all objects' bytes
    ours = ratio(Ours(budget), trace(120_000, skew=skew, scans=scans))
    lru = ratio(Lru(budget), trace(120_000, skew=skew, scans=scans))
    assert ours > lru


@pytest.mark.parametrize("scans", [False, True], ids=["zipf", "zipf with scans"])
def test_hit_ratio_of_the_file_beside_lru(tmp_path: Path, scans: bool) -> None:
    """The file itself, as it is: its own costs per entry counted against it."""
    ours = of_the_file(tmp_path, 8 << 20, trace(16_000, skew=0.9, scans=scans))
    padded = ((key, size + 4096) for key, size in trace(16_000, skew=0.9, scans=scans))
    assert ours >= ratio(Lru(8 << 20), padded)
