"""Clients in a WireGuard network that ends in the node: their namespace has nothing else."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import CONFIG
from .network import CLEAN, LISTED, OTHER, Network, Node, needs_network, python

INSTALL = "apt-get install wireguard-go wireguard-tools"
NO_WIREGUARD = next(
    (
        reason
        for missing, reason in (
            (not os.access("/dev/net/tun", os.W_OK), "needs /dev/net/tun"),
            (shutil.which("wireguard-go") is None, INSTALL),
            (shutil.which("wg") is None, INSTALL),
        )
        if missing
    ),
    "",
)
pytestmark = [
    needs_network,
    pytest.mark.skipif(bool(NO_WIREGUARD), reason=NO_WIREGUARD),
    pytest.mark.xdist_group("intercept-wireguard"),
]

GATEWAY, PORT = "10.7.1.1", 51820
DEVICE = f"wg{os.getpid()}"
"""Its control socket is in the file system, which namespaces share: one name per process."""
INSIDE, INSIDE6, NAMESERVER = "10.0.0.1", "fd00:9::1", "10.0.0.53"
HELLO = "hello from the origin"
SIZE, GROWTH = 32 * 1024 * 1024, 16 * 1024 * 1024


class Tunnel:
    """A namespace whose only way out is a WireGuard interface.

    `wireguard-go` begins in the client's namespace, where its UDP stays; the interface moves.
    """

    def __init__(self, network: Network, folder: Path, keys: dict[str, str]) -> None:
        self.network = network
        self.netns = network.client + "w"
        self.process = subprocess.Popen(
            network.within(network.client, "wireguard-go", "-f", DEVICE),
            env={**CLEAN, "LOG_LEVEL": "error"},
        )
        try:
            self._set_up(folder, keys)
        except BaseException:
            self.close()
            raise

    def _set_up(self, folder: Path, keys: dict[str, str]) -> None:
        private = folder / "client.key"
        private.write_text(keys["client_key"])
        public = subprocess.check_output(["wg", "pubkey"], input=keys["server_key"], text=True)
        outer = self.network.client
        peer = f"peer {public.strip()} allowed-ips 0.0.0.0/0,::/0"
        wg = f"wg set {DEVICE} private-key {private} {peer}"
        etc = Path("/etc/netns", self.netns)
        etc.mkdir(parents=True)
        (etc / "resolv.conf").write_text(f"nameserver {NAMESERVER}\n")
        (etc / "hosts").write_text("127.0.0.1 localhost\n")
        end = time.monotonic() + 10
        shown = self.network.within(outer, "ip", "link", "show", DEVICE)
        while subprocess.run(shown, capture_output=True, check=False).returncode:
            assert time.monotonic() < end
            time.sleep(0.02)
        for command in (
            f"ip netns add {self.netns}",
            f"ip netns exec {outer} {wg} endpoint {GATEWAY}:{PORT}",
            f"ip -n {outer} link set {DEVICE} netns {self.netns}",
            f"ip -n {self.netns} addr add {INSIDE}/32 dev {DEVICE}",
            f"ip -n {self.netns} addr add {INSIDE6}/128 dev {DEVICE} nodad",
            f"ip -n {self.netns} link set lo up",
            f"ip -n {self.netns} link set {DEVICE} up",
            f"ip -n {self.netns} route add default dev {DEVICE}",
            f"ip -n {self.netns} -6 route add default dev {DEVICE}",
        ):
            subprocess.run(command.split(), check=True)

    def run(
        self, *argv: str, env: dict[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.network.within(self.netns, *argv), env={**CLEAN, **(env or {})},
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        subprocess.run(["ip", "netns", "del", self.netns], check=False)
        shutil.rmtree(Path("/etc/netns", self.netns), ignore_errors=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the node makes its keys."""
    return tmp_path_factory.mktemp("wireguard") / "keys.json"


@pytest.fixture(scope="module")
def node(up: Callable[..., Node], keys: Path) -> Node:
    config = CONFIG.replace("transparent@0", f"wireguard:{keys}@{GATEWAY}:{PORT}")
    return up(config.replace('"10.7.1.2", "fd07:1::2"', f'"{INSIDE}", "{INSIDE6}"'))


@pytest.fixture(scope="module")
def tunnel(network: Network, node: Node, keys: Path) -> Iterator[Tunnel]:
    made = Tunnel(network, keys.parent, json.loads(keys.read_text()))
    yield made
    made.close()


def test_the_keys_are_for_the_node_alone(node: Node, keys: Path) -> None:
    assert keys.stat().st_mode & 0o077 == 0
    assert node.ready["intercept"]["wireguard"] == [f"{GATEWAY}:{PORT}"]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_is_served_authenticated_and_logged(
    network: Network, node: Node, tunnel: Tunnel, version: str
) -> None:
    url = f"https://{LISTED}/wireguard/{version}"
    got = tunnel.run(
        "curl", "-sS", "-m", "20", version, "-w", "%{header_json}", url, env=node.trust
    )
    assert got.stdout.startswith(HELLO), got.stderr + (node.folder / "log").read_text()
    assert json.loads(got.stdout.removeprefix(HELLO))["x-transformed"] == ["yes"]
    assert dict(network.seen(f"/wireguard/{version}")[0]["fields"])["x-caller"] == "lab/client"
    line = node.logs(1, path=f"/wireguard/{version}")[0]
    assert (line["principal"], line["client"], line["host"]) == ("lab/client", INSIDE, LISTED)


def test_ipv6_within_the_tunnel(node: Node, tunnel: Tunnel) -> None:
    url = f"https://{LISTED}/wireguard/six"
    got = tunnel.run("curl", "-sS", "-6", "-m", "20", url, env=node.trust)
    assert got.stdout == HELLO, got.stderr
    line = node.logs(1, path="/wireguard/six")[0]
    assert (line["principal"], line["client"]) == ("lab/client", INSIDE6)


def test_other_hosts_pass_untouched(network: Network, node: Node, tunnel: Tunnel) -> None:
    url = f"https://{OTHER}/wireguard/passes"
    got = tunnel.run("curl", "-sS", "-v", "-m", "20", url, env={"CURL_CA_BUNDLE": str(network.ca)})
    assert got.stdout == HELLO, got.stderr
    assert "issuer: CN=Origin's CA" in got.stderr
    assert [line for line in node.logged if line["host"] == OTHER] == []


def test_a_rolling_restart_takes_the_tunnel_along(node: Node, tunnel: Tunnel) -> None:
    """Clients shake hands anew with the successor; what was open within is cut."""
    before = [worker["pid"] for worker in node.status()["workers"]]
    os.kill(node.process.pid, signal.SIGUSR2)
    end = time.monotonic() + 60
    while set(before) & {worker["pid"] for worker in node.status()["workers"]}:
        assert time.monotonic() < end, (node.folder / "log").read_text()
        time.sleep(0.1)
    url = f"https://{LISTED}/wireguard/later"
    got = tunnel.run("curl", "-sS", "--retry", "9", "--retry-all-errors", "-m", "50", url,
                     env=node.trust)  # fmt: skip
    assert got.stdout == HELLO, got.stderr


QUIC = f"""
import asyncio, ssl
from aioquic.asyncio.client import connect
from aioquic.quic.configuration import QuicConfiguration
settings = QuicConfiguration(alpn_protocols=["h3"], server_name="{LISTED}", idle_timeout=3)
settings.verify_mode = ssl.CERT_NONE
async def main():
    async with connect("{LISTED}", 443, configuration=settings) as client:
        await client.ping()
try:
    asyncio.run(main())
except ConnectionError:
    print("no answer")
"""


def test_http3_to_a_listed_host_gets_no_answer(node: Node, tunnel: Tunnel) -> None:
    """So that clients come by TCP."""
    before = node.count("closed_connections_total")
    got = tunnel.run(*python(QUIC))
    assert got.stdout == "no answer\n", got.stderr
    assert node.count("closed_connections_total") > before
    assert "Traceback" not in (node.folder / "log").read_text()


def test_cleartext(node: Node, tunnel: Tunnel) -> None:
    got = tunnel.run("curl", "-sS", "-m", "20", f"http://{LISTED}/wireguard/clear")
    assert got.stdout == HELLO, got.stderr
    assert node.logs(1, path="/wireguard/clear")[0]["principal"] == "lab/client"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_large_bodies_in_bounded_memory(node: Node, tunnel: Tunnel, version: str) -> None:
    """Also to a client that reads slowly, and leaves."""
    tunnel.run("curl", "-sS", version, f"https://{LISTED}/warm", env=node.trust)
    before = node.rss
    big = f"https://{LISTED}/big?{SIZE}"
    got = tunnel.run(
        "curl", "-sS", version, "-o", "/dev/null", "-w", "%{size_download}", big, env=node.trust
    )
    assert got.stdout == str(SIZE), got.stderr
    upload = f"head -c {SIZE} /dev/zero | curl -sS {version} -T - https://{LISTED}/up"
    got = tunnel.run("sh", "-c", upload, env=node.trust)
    assert json.loads(got.stdout)["size"] == SIZE, got.stderr
    slow = f"timeout 3 curl -sS {version} --limit-rate 200k -o /dev/null {big}"
    tunnel.run("sh", "-c", slow, env=node.trust)
    assert node.rss - before < GROWTH


def test_a_refusal_reaches_a_client_that_is_still_sending(node: Node, tunnel: Tunnel) -> None:
    code = (
        "import httpx\n"
        "with httpx.Client() as client:\n"
        f"    for _ in range(2): print(client.get('https://{LISTED}/limited').status_code)\n"
        f"    r = client.post('https://{LISTED}/limited', content=b'x' * 1_000_000)\n"
        "    print(r.status_code, r.json()['error']['code'])\n"
    )
    got = tunnel.run(*python(code), env=node.trust)
    assert got.stdout.split() == ["200", "429", "429", "rate_limited"], got.stderr
    assert "a layer failed" not in (node.folder / "log").read_text()
