"""Hooks about connections: clients and servers come and go, TLS is judged before it ends here."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.certificates import Authority

SCRIPTS = Path(__file__).parent / "scripts"
CONFIG = """
[gateway]
environment = "staging"
listen = ["127.0.0.1:0"]
workers = 1

[[intercept]]
mode = "regular@127.0.0.1:0"
allow_hosts = ["localhost", "127.0.0.1"]
upstream_ca = "{ca}"
local = true

[[addon]]
use = "mitmproxy-script"
name = "script"
script = "{script}"
{more}
"""

type Start = Callable[..., Awaitable[Gateway]]


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
async def origin(authority: Authority) -> AsyncIterator[ScriptedUpstream]:
    context = authority.server("localhost", "127.0.0.1")
    async with ScriptedUpstream(tls=context) as upstream:
        yield upstream


class Intercepting:
    """A node that intercepts, with a script; its clients believe its CA and the origin's."""

    def __init__(self, node: Gateway, origin: ScriptedUpstream, authority: Authority) -> None:
        (inside,) = node.ready["intercept"].values()
        self.node = node
        self.url = f"https://localhost:{origin.port}/"
        self.ours = ssl.create_default_context(cadata=authority.pem.decode())
        self.trust = ssl.create_default_context(cadata=authority.pem.decode())
        state = Path(node.ready["state"])
        self.trust.load_verify_locations(state / "ca" / "mitmproxy-ca-cert.pem")
        self.proxy = f"http://{inside[0]}"

    async def get(self, verify: ssl.SSLContext) -> httpx.Response:
        async with httpx.AsyncClient(proxy=self.proxy, verify=verify, trust_env=False) as client:
            return await client.get(self.url)

    async def until(self, text: str) -> None:
        async with asyncio.timeout(20):
            while text not in self.node.logs:
                await asyncio.sleep(0.05)


@pytest.fixture
def begin(
    gateway: Start, origin: ScriptedUpstream, authority: Authority, tmp_path: Path
) -> Callable[..., Awaitable[Intercepting]]:
    """`await begin("more TOML")`."""

    async def start(more: str = "", script: Path = SCRIPTS / "tls_decides.py") -> Intercepting:
        ca = tmp_path / "origin.pem"
        ca.write_bytes(authority.pem)
        node = await gateway(CONFIG.format(ca=ca, script=script, more=more))
        return Intercepting(node, origin, authority)

    return start


async def test_a_connection_is_told_from_its_begin_to_its_end(
    begin: Callable[..., Awaitable[Intercepting]], origin: ScriptedUpstream
) -> None:
    inside = await begin()
    assert (await inside.get(inside.trust)).text == "ok"
    assert origin.requests[0].values("x-script") == ["1"]
    await inside.until("saw server_disconnected")
    await inside.until("saw client_disconnected")
    seen = [line.split("saw ")[1] for line in inside.node.logs.splitlines() if "saw " in line]
    assert seen[:5] == [
        "client_connected of None",
        "tls_clienthello of localhost",
        "tls_established_client of localhost",
        "server_connect of localhost",
        "server_connected of localhost",
    ]


async def test_a_script_lets_tls_pass_untouched(
    begin: Callable[..., Awaitable[Intercepting]], origin: ScriptedUpstream
) -> None:
    inside = await begin('options = { pass_host = "localhost" }')
    assert (await inside.get(inside.ours)).text == "ok"  # the origin's own certificate
    assert origin.requests[0].values("x-script") == []


async def test_a_script_is_told_of_a_client_that_does_not_trust_the_ca(
    begin: Callable[..., Awaitable[Intercepting]],
) -> None:
    inside = await begin()
    with pytest.raises(httpx.ConnectError):
        await inside.get(inside.ours)
    await inside.until("saw tls_failed_client of localhost")


async def test_a_script_keeps_upstreams_from_being_connected_to(
    begin: Callable[..., Awaitable[Intercepting]], origin: ScriptedUpstream
) -> None:
    inside = await begin(f"options = {{ block_port = {origin.port} }}")
    answer = await inside.get(inside.trust)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_unreachable"
    assert origin.connections == 0
    await inside.until("saw server_connect_error")


async def test_a_hook_that_raises_closes_the_connection_and_is_told(
    begin: Callable[..., Awaitable[Intercepting]], origin: ScriptedUpstream, tmp_path: Path
) -> None:
    script = tmp_path / "crash.py"
    script.write_text("def tls_clienthello(data):\n    raise ValueError('who knows')\n")
    inside = await begin(script=script)
    with pytest.raises(httpx.TransportError):
        await inside.get(inside.trust)
    assert origin.connections == 0
    told = f"addon script failed in tls_clienthello: ValueError: who knows at {script}:2"
    await inside.until(told)


async def test_in_shadow_mode_connections_are_left_alone(
    begin: Callable[..., Awaitable[Intercepting]], origin: ScriptedUpstream
) -> None:
    inside = await begin(f'mode = "shadow"\noptions = {{ block_port = {origin.port} }}')
    assert (await inside.get(inside.trust)).text == "ok"
    assert "saw server_connect" not in inside.node.logs


async def test_where_nothing_calls_them_such_hooks_are_refused(gateway: Start) -> None:
    addon = f'[[addon]]\nuse = "mitmproxy-script"\nscript = "{SCRIPTS}/tls_decides.py"\n'
    with pytest.raises(Exception, match="server_connect: the lane calls no hooks about"):
        await gateway("[gateway]\nworkers = 1\n" + addon)
