"""How late the loop of a worker is while a snapshot is compiled in a thread beside it.

uv run python bench/store_loop.py

10,000 services and 100,000 keys. A timer of a millisecond runs on the loop; told is how much
later than that it fires.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import uvloop
from test_store import filled
from tidegate_store_sql.compiling import compile_snapshot
from tidegate_store_sql.snapshot import EMPTY

ROUNDS = 5


async def lateness(work):
    """Run `work` in a thread; how late the loop was, in seconds, in order."""
    late: list[float] = []

    async def tick():
        while True:
            began = perf_counter()
            await asyncio.sleep(0.001)
            late.append(perf_counter() - began - 0.001)

    ticking = asyncio.create_task(tick())
    await asyncio.to_thread(work)
    ticking.cancel()
    return sorted(late)


def main():
    """Print a line for each round."""
    plugin = filled(Path(tempfile.mkdtemp()))
    store = plugin.store
    gc.collect()
    gc.freeze()  # as a worker does when it is ready

    def work():
        with store.database.read() as connection:
            compile_snapshot(connection, store.vault, EMPTY)

    for _ in range(ROUNDS):
        began, spent = perf_counter(), process_time()
        late = uvloop.run(lateness(work))
        took = f"{perf_counter() - began:.2f} s, {process_time() - spent:.2f} s of CPU"
        half, most = late[len(late) // 2], late[len(late) * 99 // 100]
        told = (f"{name} {1000 * value:.1f} ms" for name, value in
                (("median", half), ("p99", most), ("worst", late[-1])))  # fmt: skip
        print(f"compiled in {took}; the loop is late by {', '.join(told)}")
    store.database.close()


if __name__ == "__main__":
    main()
