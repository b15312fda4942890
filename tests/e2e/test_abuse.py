"""HTTP/2 listeners under tools of others, and the benches of abuse with small counts."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.certificates import Authority
from tidegate.testing.script import body

BENCH = Path(__file__).parents[2] / "bench"
needs_h2load = pytest.mark.skipif(
    shutil.which("h2load") is None, reason="apt-get install nghttp2-client"
)


async def run(*argv: str, seconds: float = 100) -> tuple[int, str]:
    """A program's exit status and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), seconds)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, out.decode(errors="replace")


@needs_h2load
@pytest.mark.parametrize(
    "load",
    [
        ("-n", "300", "-c", "3", "-m", "10"),
        ("-n", "100", "-c", "20", "-m", "1"),
        ("-n", "200", "-c", "2", "-m", "150"),
        ("-n", "100", "-c", "2", "-m", "10", "-w", "10", "-W", "12"),
        ("-n", "20", "-c", "2", "-m", "5", "-d", "UPLOAD"),
        ("-n", "100", "-c", "2", "--h1"),
    ],
    ids=" ".join,
)
async def test_h2load_gets_all_its_answers(
    tmp_path: Path,
    gateway: Callable[..., Awaitable[Gateway]],
    upstream: ScriptedUpstream,
    carrier: str,
    load: tuple[str, ...],
) -> None:
    certificate, key = Authority().issue("localhost")
    (tmp_path / "pair.pem").write_bytes(certificate + key)
    (tmp_path / "upload").write_bytes(b"y" * 300_000)
    upstream.answer(*body(b"x" * 20_000))
    running = await gateway(
        '[gateway]\nworkers = 1\nlimits = { lag = "10s" }\n\n'
        f'[[gateway.listen]]\naddress = "127.0.0.1:0"\ncert = "{tmp_path}/pair.pem"\n'
        f'key = "{tmp_path}/pair.pem"\nalpn = ["h2", "http/1.1"]\n\n'
        '[[addon]]\nuse = "route-static"\n'
        f'routes = [{{ path = "/", upstream = "{upstream.url}" }}]\n',
        carrier=carrier,
    )
    options = [str(tmp_path / "upload") if word == "UPLOAD" else word for word in load]
    status, told = await run("h2load", *options, f"{running.url}/")
    assert status == 0, told
    count = load[1]
    assert f"{count} total, {count} started, {count} done, {count} succeeded, 0 failed" in told


@needs_h2load
async def test_a_worker_does_not_grow_with_the_exchanges_of_one_connection() -> None:
    """The target of 1 MiB holds over the full count: `bench/h2_slope.py` without arguments."""
    status, told = await run(
        sys.executable, str(BENCH / "h2_slope.py"),
        *("--count", "3000", "--warm", "1500", "--target", "10"),
    )  # fmt: skip
    assert status == 0, told


async def test_streams_that_are_given_up_cost_few_connections() -> None:
    """The full count is `bench/h2_resets.py` without arguments."""
    status, told = await run(sys.executable, str(BENCH / "h2_resets.py"), "--count", "600")
    assert status == 0, told


async def test_handshakes_that_do_not_end_leave_room_for_others(
    tmp_path: Path,
    gateway: Callable[..., Awaitable[Gateway]],
    upstream: ScriptedUpstream,
    carrier: str,
) -> None:
    authority = Authority()
    certificate, key = authority.issue("localhost")
    (tmp_path / "pair.pem").write_bytes(certificate + key)
    upstream.answer(*body(b"ok"))
    running = await gateway(
        "[gateway]\nworkers = 1\n\n"
        f'[[gateway.listen]]\naddress = "127.0.0.1:0"\ncert = "{tmp_path}/pair.pem"\n'
        f'key = "{tmp_path}/pair.pem"\nalpn = ["h2", "http/1.1"]\n\n'
        '[[addon]]\nuse = "route-static"\n'
        f'routes = [{{ path = "/", upstream = "{upstream.url}" }}]\n',
        carrier=carrier,
    )
    port = int(running.url.rpartition(":")[2])
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
    for _, writer in silent:
        writer.write(b"\x16\x03\x01")
    trust = ssl.create_default_context(cadata=authority.pem.decode())
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trust, server_hostname="localhost"
    )
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 20)).endswith(b"ok")
    for _, other in [*silent, (reader, writer)]:
        other.close()
