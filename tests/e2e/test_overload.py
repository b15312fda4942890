"""More clients than file descriptors (RELIABILITY row 8): refused, quietly, and soon over."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tidegate.testing import Gateway, ScriptedUpstream

from .raw import Raw

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
