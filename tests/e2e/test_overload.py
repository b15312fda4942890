"""More clients than file descriptors (RELIABILITY row 8): refused, quietly, and soon over."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tidegate.testing import Gateway, ScriptedUpstream

from .raw import Answer, Raw

FILES = 256
CLIENTS = 400
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways of this test start with `ulimit -n 256`."""
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nulimit -n {FILES}\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setattr("tidegate.testing.gateway.sys.executable", str(wrapper))


async def ask(raw: Raw) -> int | None:
    """The status of the answer on a new connection that stays open; None: it was refused."""
    try:
        await raw.__aenter__()
        await raw.send(GET)
        return (await raw.answer()).status
    except OSError:
        return None


@pytest.mark.usefixtures("few_files")
async def test_clients_beyond_the_file_limit_are_refused_and_the_gateway_recovers(
    tmp_path: Path, upstream: ScriptedUpstream, carrier: str
) -> None:
    config = (
        "[gateway]\nworkers = 1\n\n"
        '[[addon]]\nuse = "route-static"\n'
        f'routes = [{{ path = "/", upstream = "{upstream.url}" }}]\n'
    )
    async with Gateway(tmp_path / "node", config, carrier=carrier) as running:
        before, began = len(running.logs.splitlines()), time.monotonic()
        clients = [Raw(running.url) for _ in range(CLIENTS)]
        found = Counter(await asyncio.gather(*map(ask, clients)))
        assert set(found) <= {200, 503, None}, found
        assert found[200] >= 50
        lines = running.logs.splitlines()[before:]
        assert len(lines) <= 1 + (time.monotonic() - began), "\n".join(lines)
        for raw in clients:
            if hasattr(raw, "writer"):
                raw.writer.close()
        for _ in range(50):
            last = await ask(Raw(running.url))
            if last == 200:
                break
            await asyncio.sleep(0.1)
        assert last == 200


def with_memory(upstream: ScriptedUpstream, limit: str) -> str:
    return (
        f'[gateway]\nworkers = 1\nlimits = {{ memory = "{limit}" }}\n\n'
        '[[addon]]\nuse = "route-static"\n'
        f'routes = [{{ path = "/", upstream = "{upstream.url}" }}]\n'
    )


async def until_status(running: Gateway, status: int) -> Answer:
    """The first answer with a status."""
    async with asyncio.timeout(20):
        while True:
            async with Raw(running.url) as raw:
                await raw.send(GET)
                answer = await raw.answer()
            if answer.status == status:
                return answer
            await asyncio.sleep(0.1)


async def test_a_worker_over_its_memory_refuses_new_work_and_recovers(
    tmp_path: Path, upstream: ScriptedUpstream, carrier: str
) -> None:
    async with Gateway(
        tmp_path / "node", with_memory(upstream, "1MiB"), carrier=carrier
    ) as running:
        refused = await until_status(running, 503)
        assert json.loads(refused.body)["error"]["code"] == "overloaded"
        assert refused.get("retry-after") == "1"
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{running.status_url}/-/healthy")).status_code == 200
        await running.reload(
            with_memory(upstream, "4GiB").replace(
                "[gateway]", f'[gateway]\ncarrier = "{carrier}"', 1
            )
        )
        assert (await until_status(running, 200)).body == b"ok"
