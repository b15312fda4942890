"""A worker whose broker hangs, cuts it off, or talks nonsense."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from tidegate_limit_quota.leases import Leases
from tidegate_limit_quota.local import BrokerBackend
from tidegate_limit_quota.protocol import Ask

GREETING = {"hello": "w", "limits": []}


@asynccontextmanager
async def serving(path, handler):
    """A stand-in for the broker."""
    writers = []

    async def connected(reader, writer):
        writers.append(writer)
        await handler(reader, writer)

    server = await asyncio.start_unix_server(connected, path)
    try:
        yield writers
    finally:
        server.close()
        for writer in writers:
            writer.close()


def backend_of(path) -> tuple[BrokerBackend, Leases]:
    backend = BrokerBackend(path, GREETING)
    return backend, Leases("w", backend, lambda *_: None)


async def test_a_broker_that_does_not_read_costs_a_bounded_memory(tmp_path):
    async def silent(reader, writer):
        reader._transport.pause_reading()

    async with serving(tmp_path / "s", silent) as connections:
        backend, leases = backend_of(tmp_path / "s")
        backend.start(leases)
        asks = [Ask(0, "k" * 1000, f"w:{n}", False, 0, 0, 0) for n in range(500)]
        async with asyncio.timeout(20):
            while len(connections) < 2:
                backend.ask(asks)
                await asyncio.sleep(0.01)
        await backend.stop()


@pytest.mark.parametrize("said", [b"nonsense\n", b'{"granted": [[1, 2]]}\n', b""])
async def test_a_broker_that_talks_nonsense_is_asked_again(tmp_path, said):
    async def talk(reader, writer):
        writer.write(said)
        writer.close()

    async with serving(tmp_path / "s", talk) as connections:
        backend, leases = backend_of(tmp_path / "s")
        backend.start(leases)
        async with asyncio.timeout(20):
            while len(connections) < 3:
                await asyncio.sleep(0.01)
        await backend.stop()


async def test_with_no_broker_an_exchange_does_not_wait(tmp_path):
    backend, leases = backend_of(tmp_path / "nobody")
    backend.start(leases)
    outcome, _ = await asyncio.wait_for(leases.acquire(0, "", 1, float("inf")), 10)
    assert outcome == "outage"
    await backend.stop()


async def test_what_was_spent_on_a_lease_that_is_gone_is_told_with_the_next(tmp_path):
    _, leases = backend_of(tmp_path / "nobody")
    lost = leases.lease(0, "ada", 0.0)
    lost.acknowledged = True
    lost.available -= 5  # while the broker was away
    leases.settle(lost, 5, 5)
    leases.gone(lost.id)
    fresh = leases.current[0, "ada"]
    assert fresh is not lost
    assert (fresh.used, fresh.available) == (5, -5)
    leases.gone(lost.id)
    assert leases.current[0, "ada"].used == 5
