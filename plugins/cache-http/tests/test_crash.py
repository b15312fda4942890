"""A writer is killed in the middle of its work, again and again: no wrong or torn answer after.

TIDEGATE_CRASHES=50 uv run pytest plugins/cache-http/tests/test_crash.py
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tidegate_cache_http.tiers.store import Store

from tidegate.api import Counters

from .storekit import key_of

CRASHES = int(os.environ.get("TIDEGATE_CRASHES", "4"))

WRITER = """
import hashlib, random, sys, time
from pathlib import Path
from tidegate.api import Counters
from tidegate_cache_http.rules.messages import Asked, Terms
from tidegate_cache_http.rules.storing import storable
from tidegate_cache_http.tiers.record import Key
from tidegate_cache_http.tiers.store import Store

store = Store(Path(sys.argv[1]), 4 << 20, 1 << 20, Counters())
chance = random.Random(int(sys.argv[2]))
done = 0
while True:
    done += 1
    if done == 300:
        print("worked", flush=True)
    url = b"http://a.test/%d" % chance.randrange(300)
    text = b"%s %d " % (url, chance.getrandbits(60))
    body = text * chance.choice([1, 40, 4000])
    if chance.random() < 0.3:
        body += chance.randbytes(chance.choice([10, 5000, 150_000]))
    etag = hashlib.sha256(body).hexdigest().encode()
    now = time.time()
    fields = ((b"cache-control", b"max-age=9999"), (b"etag", etag), (b"cache-tag", b"t%d" % chance.randrange(5)))
    head = storable(Asked(b"GET", ()), 200, fields, now, Terms(), asked_at=now)
    head.size, head.stamp = len(body), store.stamp(url)
    store.put(Key(url, b""), head, body)
    if chance.random() < 0.05:
        store.invalidate(url)
    if chance.random() < 0.01:
        store.purge("tag", b"t%d" % chance.randrange(5), soft=False, done=lambda count: None)
    time.sleep(0.0005)
"""  # noqa: E501, a script


def whole_entries(folder: Path) -> int:
    """How many entries there are; each is whole and its own, and the counters are right."""
    import hashlib

    store = Store(folder, 4 << 20, 1 << 20, Counters())
    found = 0
    for number in range(300):
        key = key_of(f"/{number}")
        shelf = store.shelf(key)
        if shelf is None:
            continue
        found += 1
        (variant,) = shelf.variants
        body = store.body(key, shelf, variant)
        assert body is not None
        assert body.startswith(key.url + b" ")
        assert hashlib.sha256(body).hexdigest().encode() == variant.head.etag
    with store.disk.env.begin() as txn:
        count = {n: txn.stat(db)["entries"] for n, db in store.disk.db.items()}
        chunks = sum(1 for _ in txn.cursor(store.disk.db["bodies"]))
    figures = store.figures()
    assert count["heads"] == count["queue"] == count["urls"] == figures["entries"]
    assert chunks >= figures["entries"]
    assert figures["bytes"] <= 4 << 20
    store.close()
    return found


def test_no_torn_answer_after_writers_were_killed(tmp_path):
    chance = random.Random(7)
    found = 0
    for round_ in range(CRASHES):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(tmp_path), str(round_ * 2 + i)],
                stdout=subprocess.PIPE,
            )
            for i in range(2)
        ]
        try:
            for writer in writers:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"worked\n"
            time.sleep(chance.random() * 0.4)
            for writer in writers:
                writer.send_signal(signal.SIGKILL)
                time.sleep(chance.random() * 0.05)
        finally:
            for writer in writers:
                writer.kill()
                writer.wait()
                if writer.stdout is not None:
                    writer.stdout.close()
        found = whole_entries(tmp_path)
    assert found > 50
