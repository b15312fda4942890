"""What the memory tier takes is what it may take: the system is asked, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BUDGET = 24 << 20
PROGRAM = """
import gc, sys, time
from pathlib import Path
from tidegate.api import Counters
from tidegate_cache_http.rules.messages import Asked, Terms
from tidegate_cache_http.rules.storing import storable
from tidegate_cache_http.serving import hit_answer
from tidegate_cache_http.tiers.memory import Memory
from tidegate_cache_http.tiers.record import Key
from tidegate_cache_http.tiers.store import Store

part, folder, size, extra, budget = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
now = time.time()

def taken():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024

def key_of(number):
    return Key(b"http://api.test/a/path/to/something/%d" % number, b"")

store = Store(folder, 1 << 29, budget * 4 if part == "measure" else 0, Counters())
count = int(budget * 1.4 / (size + 1800 + 250 * extra))
for number in range(count if part == "fill" else 0):
    fields = (
        (b"date", b"Sun, 06 Nov 1994 08:49:37 GMT"), (b"content-type", b"application/json"),
        (b"cache-control", b"max-age=100000"), (b"etag", b'"%d"' % number),
        *((b"x-%d" % n, b"some value of it %d" % number) for n in range(extra)),
    )
    head = storable(Asked(b"GET", ()), 200, fields, now, Terms(), asked_at=now)
    head.size, head.stamp = size, store.stamp(key_of(number).url)
    store.put(key_of(number), head, b"x" * size)
    if number % 200 == 0:
        assert store.drain()
assert store.drain()
store.memory = Memory(budget, store.shared)
gc.collect()
before = taken()
for number in range(count if part == "measure" else 0):
    shelf = store.shelf(key_of(number))
    body = store.body(key_of(number), shelf, shelf.variants[0])
    prepared = hit_answer(shelf.variants[0], body, 1, now).head
    prepared.wire = b"".join([b"%b: %b\\r\\n" % field for field in prepared.fields])
shelf = body = prepared = None
gc.collect()
print(store.memory.bytes, taken() - before)
store.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc/self/status, which Linux has")
@pytest.mark.parametrize(("size", "extra"), [(300, 4), (2_000, 4), (2_000, 14), (16_000, 6)])
def test_the_memory_tier_takes_its_budget_and_no_more(
    tmp_path: Path, size: int, extra: int
) -> None:
    arguments = [str(tmp_path), str(size), str(extra), str(BUDGET)]
    for part in ("fill", "measure"):  # what the first one has freed must not serve the second
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, part, *arguments],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    claimed, taken = map(int, done.stdout.split())
    assert BUDGET * 0.99 < claimed <= BUDGET
    assert BUDGET * 0.8 < taken <= BUDGET * 1.1
