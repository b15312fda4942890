"""Both tiers: what is stored comes back, is bounded, shared, purged, and survives."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from tidegate_cache_http.tiers import compress
from tidegate_cache_http.tiers.changes import Purge
from tidegate_cache_http.tiers.compress import CHUNK, Compressor, restore
from tidegate_cache_http.tiers.memory import S3Fifo
from tidegate_cache_http.tiers.record import shelf_id
from tidegate_cache_http.tiers.store import Store

from tidegate.api import Counters

from .storekit import get, key_of, put

MIB = 1 << 20


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "cache", 8 * MIB, MIB, Counters())
    yield opened
    opened.close()


def purge(store, scope, value=b"", *, soft=False):
    counts = []
    store.purge(scope, value, soft=soft, done=counts.append)
    assert store.drain()
    return counts[0]


# -- one store ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 511, 512, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
@pytest.mark.parametrize("kind", ["same", "random"])
def test_a_body_comes_back_from_memory_and_from_the_file(store, size, kind):
    body = b"a" * size if kind == "same" else random.Random(size).randbytes(size)
    assert put(store, "/x", body)
    assert get(store, "/x") == body
    assert store.drain()
    store.memory.clear()
    assert get(store, "/x") == body


def test_variants_and_scopes_are_kept_apart(store):
    put(store, "/x", b"one", request={"foo": "1"}, vary="foo")
    put(store, "/x", b"two", request={"foo": "2"}, vary="foo")
    put(store, "/x", b"ada", scope=b"ada")
    put(store, "/x", b"TWO", request={"foo": "2"}, vary="foo")
    assert store.drain()
    for _ in range(2):
        shelf = store.shelf(key_of("/x"))
        bodies = {store.body(key_of("/x"), shelf, variant) for variant in shelf.variants}
        assert bodies == {b"one", b"TWO"}
        assert get(store, "/x", b"ada") == b"ada"
        assert store.shelf(key_of("/x", b"bob")) is None
        store.memory.clear()
    assert store.figures()["entries"] == 3


def test_the_variants_of_a_key_are_bounded(store):
    for number in range(40):
        put(store, "/x", request={"foo": str(number)}, vary="foo")
    assert len(store.shelf(key_of("/x")).variants) == 32


def test_what_this_worker_wrote_last_is_read_while_its_writes_are_on_their_way(store):
    for round_ in range(50):
        for number in range(4):
            put(store, "/x", b"%d-%d" % (round_, number))
            assert get(store, "/x") == b"%d-%d" % (round_, number)
    assert store.drain()
    assert get(store, "/x") == b"49-3"


def test_what_was_asked_for_before_an_invalidation_stays_out(store):
    key = key_of("/x")
    put(store, "/x", b"old")
    late = store.shelf(key).variants[0].head
    store.invalidate(key.url)
    assert store.shelf(key) is None
    assert not store.put(key, late, b"old")
    assert store.drain()
    assert store.shelf(key) is None
    put(store, "/x", b"new")
    assert store.drain()
    assert get(store, "/x") == b"new"
    assert store.figures()["entries"] == 1


def test_purges_find_url_prefix_tag_and_all(store):
    for path in ("/a/1", "/a/2", "/b/1", "/b/2"):
        put(store, path, cache_tag=f"t{path[-1]}, every")
        put(store, path, scope=b"ada", cache_tag="ada")
    assert store.drain()
    assert purge(store, "url", b"http://a.test/a/1") == 2
    assert purge(store, "url", b"http://a.test/a/1") == 0
    assert get(store, "/a/1") is None
    assert purge(store, "tag", b"t2") == 2
    assert (get(store, "/a/2"), get(store, "/b/2")) == (None, None)
    assert purge(store, "tag", b"t") == 0
    assert purge(store, "prefix", b"http://a.test/a/") == 1
    assert get(store, "/b/1") is not None
    assert purge(store, "all") == 3
    assert get(store, "/b/1") is None
    figures = store.figures()
    assert (figures["entries"], figures["bytes"], figures["small_bytes"]) == (0, 0, 0)


def test_a_soft_purge_leaves_what_it_marks(store):
    put(store, "/x", b"kept")
    assert store.drain()
    assert purge(store, "prefix", b"http://a.test/", soft=True) == 1
    head = store.shelf(key_of("/x")).variants[0].head
    assert head.purged
    assert not head.fresh_at(head.asked_at)
    assert get(store, "/x") == b"kept"


def test_urls_and_tags_longer_than_a_key_of_the_file_are_found(store):
    first, second = "/" + "x" * 900 + "1", "/" + "x" * 900 + "2"
    put(store, first, cache_tag="t" * 600)
    put(store, second, cache_tag="t" * 601)
    assert store.drain()
    assert purge(store, "tag", b"t" * 600) == 1
    assert get(store, first) is None
    assert purge(store, "prefix", b"http://a.test" + second.encode()) == 1


# -- bounds -------------------------------------------------------------------------------------


def test_the_file_holds_no_more_than_its_budget(tmp_path):
    counters = Counters()
    store = Store(tmp_path / "cache", 2 * MIB, 0, counters)
    chance = random.Random(1)
    for number in range(1500):
        put(store, f"/{number}", chance.randbytes(chance.choice([300, 3000, 30_000])))
    assert store.drain(60)
    figures = store.figures()
    assert figures["bytes"] <= 2 * MIB
    assert figures["bytes"] > 1.8 * MIB
    assert figures["file_bytes"] <= figures["map_bytes"]
    assert counters.values.get("map_full_total", 0) == 0
    assert counters.values["evictions_total"] > 1000
    with store.disk.env.begin() as txn:
        count = {n: txn.stat(db)["entries"] for n, db in store.disk.db.items()}
    assert count["heads"] == count["queue"] == count["urls"] == figures["entries"]
    store.close()


def test_what_is_used_stays_when_a_scan_comes_by(tmp_path):
    store = Store(tmp_path / "cache", 2 * MIB, 0, Counters())
    body = random.Random(1).randbytes(8000)
    for number in range(20):
        put(store, f"/hot/{number}", body)
    assert store.drain()
    for _ in range(2):
        for number in range(20):
            assert get(store, f"/hot/{number}") == body
    for number in range(1000):
        put(store, f"/scan/{number}", body)
    assert store.drain(60)
    assert sum(get(store, f"/hot/{number}") is not None for number in range(20)) == 20
    store.close()


def test_a_map_that_is_full_in_spite_of_the_budget_is_emptied_in_part(tmp_path):
    counters = Counters()
    store = Store(tmp_path / "cache", 2 * MIB, 0, counters)
    store.disk.budget = 1 << 40
    chance = random.Random(2)
    for number in range(800):
        put(store, f"/{number}", chance.randbytes(60_000))
        if number % 100 == 99:
            assert store.drain(60)
    assert counters.values["map_full_total"] >= 1
    assert put(store, "/last", b"last")
    assert store.drain(60)
    assert get(store, "/last") == b"last"
    store.close()


def test_memory_is_bounded_and_what_was_evicted_comes_from_the_file(store):
    for number in range(200):
        put(store, f"/{number}", b"%d" % number * 5000)
    assert store.memory.bytes <= MIB
    assert store.memory.evictions > 0
    assert store.drain()
    assert get(store, "/0") == b"0" * 5000
    put(store, "/large", b"l" * MIB)
    assert store.drain()
    assert get(store, "/large") == b"l" * MIB
    assert store.memory.bytes <= MIB


def test_the_policy_keeps_what_is_used_and_lets_a_scan_pass():
    policy: S3Fifo[int] = S3Fifo(1000)
    for key in range(50):
        policy.add(key, 10)
    for key in range(50):
        policy.use(key)
    gone = [lost for key in range(100, 1100) for lost in policy.add(key, 10)]
    assert policy.bytes <= 1000
    assert not set(gone) & set(range(50))
    assert policy.add(100, 10) == gone[:0] or policy.bytes <= 1000


def test_a_name_that_comes_back_goes_to_the_main_queue():
    policy: S3Fifo[str] = S3Fifo(100)
    policy.add("once", 10)
    for number in range(15):
        policy.add(f"n{number}", 10)
    policy.add("once", 10)  # evicted before, known since
    for number in range(30, 60):
        policy.add(f"n{number}", 10)
    policy.use("once")


# -- compression --------------------------------------------------------------------------------


def test_types_that_do_not_shrink_are_remembered(monkeypatch):
    calls = []
    real = compress.lz4.block.compress
    monkeypatch.setattr(compress.lz4.block, "compress", lambda d: calls.append(1) or real(d))
    compressor = Compressor()
    noise = random.Random(3).randbytes(1000)
    for _ in range(100):
        compressor.chunks(noise, b"image/png", b"")
    assert 8 <= len(calls) <= 11
    compressor.chunks(noise, b"text/html", b"")
    assert len(calls) <= 12
    calls.clear()
    compressor.chunks(b"a" * 1000, b"text/html", b"gzip")  # it is packed already
    compressor.chunks(b"a" * 100, b"text/html", b"")
    assert calls == []


def test_a_damaged_chunk_is_an_error_and_no_body():
    (chunk,) = Compressor().chunks(b"a" * 1000, b"text/html", b"")
    with pytest.raises(ValueError, match="damaged"):
        restore([chunk[:5] + b"\xff" * 9])


# -- several processes --------------------------------------------------------------------------

OTHER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tidegate.api import Counters
from tidegate_cache_http.tiers.store import Store
store = Store(Path(sys.argv[1]), 8 << 20, 1 << 20, Counters())
"""


def other(folder: Path, script: str) -> str:
    """What a script in another process prints that has the same store open."""
    done = subprocess.run(
        [sys.executable, "-c", OTHER + script, str(folder), os.getcwd()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_another_process_sees_stores_and_invalidations_and_is_seen(store, tmp_path):
    put(store, "/x", b"mine")
    put(store, "/y", b"mine")
    assert store.drain()
    read = """
from tidegate_cache_http.tiers.record import Key
for path in (b"/x", b"/y"):
    key = Key(b"http://a.test" + path, b"")
    shelf = store.shelf(key)
    print(shelf and store.body(key, shelf, shelf.variants[0]))
store.invalidate(b"http://a.test/x")
store.close()
"""
    assert other(tmp_path / "cache", read).split() == ["b'mine'", "b'mine'"]
    assert get(store, "/x") is None
    assert get(store, "/y") == b"mine"


def test_a_purge_from_the_command_line_reaches_the_memory_of_workers(store, tmp_path):
    put(store, "/x", cache_tag="t")
    assert store.drain()
    assert get(store, "/x") is not None
    script = """
from tidegate_cache_http.tiers.changes import Purge
from tidegate_cache_http.tiers.writer import transact
change = Purge("tag", b"t", soft=False)
transact(store.disk, lambda ledger: change.run(ledger, store.shared))
change.committed(store.shared)
print(change.count)
store.close()
"""
    assert other(tmp_path / "cache", script) == "1"
    assert get(store, "/x") is None


def test_what_is_stored_survives_a_restart(tmp_path):
    for round_ in range(3):
        store = Store(tmp_path / "cache", 8 * MIB, MIB, Counters())
        if round_:
            assert get(store, "/x") == b"kept" * 100
        put(store, "/x", b"kept" * 100)
        store.close()


def test_without_the_shared_numbers_nothing_stored_is_valid(tmp_path):
    store = Store(tmp_path / "cache", 8 * MIB, MIB, Counters())
    put(store, "/x")
    store.close()
    (tmp_path / "cache" / "shared").unlink()
    store = Store(tmp_path / "cache", 8 * MIB, MIB, Counters())
    assert get(store, "/x") is None
    put(store, "/x", b"new")
    assert get(store, "/x") == b"new"
    store.close()


def test_a_file_that_is_no_database_is_replaced(tmp_path):
    folder = tmp_path / "cache"
    store = Store(folder, 8 * MIB, MIB, Counters())
    put(store, "/x")
    store.close()
    (folder / "entries" / "data.mdb").write_bytes(b"rubbish" * 4096)
    store = Store(folder, 8 * MIB, MIB, Counters())
    assert get(store, "/x") is None
    put(store, "/x", b"new")
    assert store.drain()
    store.memory.clear()
    assert get(store, "/x") == b"new"
    store.close()


def test_a_write_that_fails_is_counted_and_the_thread_goes_on(store, monkeypatch):
    class Broken(Purge):
        def apply(self, ledger, writer):
            raise lmdb.Error("broken")

    counts = []
    store._writer.submit(Broken("all", b"", soft=False, done=counts.append))
    put(store, "/x")
    assert store.drain()
    assert counts == [None]
    assert store.counters.values["writes_failed_total"] >= 1
    put(store, "/y")
    assert store.drain()
    store.memory.clear()
    assert get(store, "/y") is not None
    assert len(shelf_id(key_of("/y"))) == 24
