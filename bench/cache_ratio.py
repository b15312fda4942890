"""Which policy hits more: ours beside plain LRU, on Zipf traces with and without scans.

    uv run python bench/cache_ratio.py [--requests 120000] [--json FILE]

The memory tier's S3-FIFO, and the file's with all its own costs per entry counted against it. The
traces are made from a seed: the same each time. Budgets are shares of the bytes of all objects.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidegate_cache_http.rules.messages import Asked, Terms
from tidegate_cache_http.rules.storing import storable
from tidegate_cache_http.tiers.memory import S3Fifo
from tidegate_cache_http.tiers.record import Key
from tidegate_cache_http.tiers.store import Store

from tidegate.api import Counters

SKEWS = (0.7, 0.9, 1.1)
BUDGETS = {"1 %": 0.01, "5 %": 0.05, "20 %": 0.2}
ALL_BYTES = 20_000 * 7_150
"""Bytes of all objects of a trace, scans not counted."""


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


def of_the_file(folder: Path, budget: int, requests: Iterator[tuple[int, int]]) -> float:
    """The hit ratio of the file tier alone."""
    store = Store(folder, budget, 0, Counters())
    now = time.time()
    fields = ((b"cache-control", b"max-age=100000"), (b"content-type", b"application/json"))
    noise = random.Random(3).randbytes(20_000)
    hits = total = 0
    for number, size in requests:
        total += 1
        key = Key(b"http://a/%d" % number, b"")
        records, _ = store.disk.load(key)
        if records:
            hits += 1
            store.shared.visit(records[0].number)
            continue
        head = storable(Asked(b"GET", ()), 200, fields, now, Terms(), asked_at=now)
        head.size, head.stamp = size, store.stamp(key.url)
        store.put(key, head, noise[:size])
        if total % 50 == 0:
            store.drain()
    store.close()
    return hits / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=120_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for scans in (False, True):
        for skew in SKEWS:
            for name, share in BUDGETS.items():
                budget = int(ALL_BYTES * share)
                ours, lru = (
                    ratio(policy, trace(arguments.requests, skew=skew, scans=scans))
                    for policy in (Ours(budget), Lru(budget))
                )
                row = {"trace": f"Zipf {skew}{', scans' if scans else ''}", "budget": name,
                       "ours": round(ours, 3), "lru": round(lru, 3)}  # fmt: skip
                rows.append(row)
                print(f"{row['trace']:18}{name:>6}  memory {ours:.3f}  LRU {lru:.3f}")
    for scans in (False, True):
        budget = int(ALL_BYTES * 0.05)
        requests = arguments.requests // 6
        with tempfile.TemporaryDirectory() as folder:
            ours = of_the_file(Path(folder), budget, trace(requests, skew=0.9, scans=scans))
        padded = ((key, size + 4096) for key, size in trace(requests, skew=0.9, scans=scans))
        lru = ratio(Lru(budget), padded)  # pages and indexes, as in the file
        row = {"trace": f"Zipf 0.9{', scans' if scans else ''}", "budget": "5 %, file",
               "ours": round(ours, 3), "lru": round(lru, 3)}  # fmt: skip
        rows.append(row)
        print(f"{row['trace']:18}{'5 %':>6}  file   {ours:.3f}  LRU {lru:.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
