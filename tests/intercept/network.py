"""Three network namespaces with an origin and a node in them, made and taken away by the test.

client 10.7.1.2 ── 10.7.1.1 gateway 10.7.2.1 ── 10.7.2.2 origin 198.51.100.7
       fd07:1::2 ─ fd07:1::1        fd07:2::1 ─ fd07:2::2       2001:db8:7::7
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from tidegate.testing.certificates import Authority

HERE = Path(__file__).parent
LISTED = "api.listed.test"
OTHER = "other.test"
PINNED = f"pinned.{LISTED}"
OPENAI = "api.openai.com"
V4, V6 = "198.51.100.7", "2001:db8:7::7"

SETUP = """
    ip netns add C; ip netns add G; ip netns add O
    ip link add c0 netns C type veth peer name g0 netns G
    ip link add g1 netns G type veth peer name o0 netns O
    ip -n C addr add 10.7.1.2/24 dev c0; ip -n C addr add fd07:1::2/64 dev c0 nodad
    ip -n G addr add 10.7.1.1/24 dev g0; ip -n G addr add fd07:1::1/64 dev g0 nodad
    ip -n G addr add 10.7.2.1/24 dev g1; ip -n G addr add fd07:2::1/64 dev g1 nodad
    ip -n O addr add 10.7.2.2/24 dev o0; ip -n O addr add fd07:2::2/64 dev o0 nodad
    ip -n O addr add 198.51.100.7/32 dev lo; ip -n O addr add 2001:db8:7::7/128 dev lo nodad
    ip -n C link set lo up; ip -n G link set lo up; ip -n O link set lo up
    ip -n C link set c0 up; ip -n G link set g0 up; ip -n G link set g1 up; ip -n O link set o0 up
    ip -n C route add default via 10.7.1.1; ip -n C -6 route add default via fd07:1::1
    ip -n G route add default via 10.7.2.2; ip -n G -6 route add default via fd07:2::2
    ip -n O route add default via 10.7.2.1; ip -n O -6 route add default via fd07:2::1
    ip netns exec G sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"""

WHY_NOT = next(
    (
        reason
        for missing, reason in (
            (os.geteuid() != 0, "network namespaces need root"),
            (shutil.which("ip") is None, "apt-get install iproute2"),
            (shutil.which("nft") is None, "apt-get install nftables"),
            (shutil.which("curl") is None, "apt-get install curl"),
        )
        if missing
    ),
    "",
)


class Network:
    """The namespaces, and the origin in the last of them."""

    def __init__(self, folder: Path) -> None:
        tag = f"tg{uuid.uuid4().hex[:8]}"
        self.client, self.gateway, self.origin = f"{tag}c", f"{tag}g", f"{tag}o"
        self.folder = folder
        self.authority = Authority("Origin's CA")
        self.ca = folder / "origin-ca.pem"
        self._process: subprocess.Popen[str] | None = None

    def open(self) -> None:
        names = {"C": self.client, "G": self.gateway, "O": self.origin}
        for line in SETUP.strip().splitlines():
            for command in line.strip().split("; "):
                subprocess.run([names.get(w, w) for w in command.split()], check=True)
        hosts = f"127.0.0.1 localhost\n{V4} {LISTED} {OTHER} {OPENAI}\n{V6} {LISTED} {OTHER}\n"
        for name in (self.client, self.gateway):
            etc = Path("/etc/netns", name)
            etc.mkdir(parents=True)
            (etc / "hosts").write_text(hosts)
        self.ca.write_bytes(self.authority.pem)
        pair = self.folder / "origin.pem"
        pair.write_bytes(b"".join(self.authority.issue(LISTED, PINNED, OTHER, OPENAI, V4, V6)))
        self._process = subprocess.Popen(
            self.within(self.origin, sys.executable, str(HERE / "origin.py"), str(pair)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        for name in (self.client, self.gateway, self.origin):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
            shutil.rmtree(Path("/etc/netns", name), ignore_errors=True)

    @staticmethod
    def within(netns: str, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", netns, *argv]

    def run(
        self, *argv: str, env: dict[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """What a program in the client's namespace prints and returns."""
        return subprocess.run(
            self.within(self.client, *argv), env={**CLEAN, **(env or {})},
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def seen(self, path: str = "") -> list[dict[str, Any]]:
        """What the origin was asked, as asked from its own namespace."""
        got = subprocess.check_output(
            self.within(self.origin, "curl", "-s", f"http://{V4}/seen"), env=CLEAN, text=True
        )
        return [one for one in json.loads(got) if one["path"].startswith(path)]


CLEAN = {k: os.environ[k] for k in ("PATH", "HOME", "TMPDIR") if k in os.environ}


class Node:
    """`tidegate up` in the gateway's namespace. `ready` is its ready line.

    `whole`: with the machine's /sys (cgroups), which `ip netns exec` hides, and its hosts file.
    """

    def __init__(self, network: Network, folder: Path, config: str, *, whole: bool = False) -> None:
        self.network = network
        self.enter = network.within(network.gateway)
        if whole:
            self.enter = ["nsenter", f"--net=/run/netns/{network.gateway}"]
        self.folder = folder
        self.state = folder / "state"
        folder.mkdir()
        (folder / "addons.toml").write_text(config.replace("ORIGIN_CA", str(network.ca)))
        self.log = (folder / "log").open("w+")
        command = [sys.executable, "-m", "tidegate.cli.main", "up", "--json"]
        command += ["--config", str(folder / "addons.toml"), "--state", str(self.state)]
        self.process = subprocess.Popen(
            [*self.enter, *command],
            stdout=subprocess.PIPE, stderr=self.log, text=True, env=CLEAN,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, (folder / "log").read_text()
        self.ready: dict[str, Any] = json.loads(line)
        assert self.ready["event"] == "ready", line

    def redirect(self, *ports: int) -> None:
        """Lead what comes in from the client to the node."""
        to = self.ready["intercept"]["transparent"][0].rpartition(":")[2]
        self.command("redirect", "apply", "--interface", "g0", "--to", f":{to}",
                     *(word for port in ports for word in ("--port", str(port))))  # fmt: skip

    def command(self, *argv: str) -> str:
        """What `tidegate …` prints in the gateway's namespace."""
        done = subprocess.run(
            [*self.enter, sys.executable, "-m", "tidegate.cli.main", *argv],
            env=CLEAN, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def ca(self) -> Path:
        """The node's CA, as a client gets it."""
        file = self.folder / "ca.pem"
        if not file.exists():
            self.command("ca", "export", "--state", str(self.state), "--out", str(file))
        return file

    @property
    def trust(self) -> dict[str, str]:
        """Variables by which a program trusts the node's CA and nothing else."""
        names = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
        return dict.fromkeys(names, str(self.ca))

    @property
    def logged(self) -> list[dict[str, Any]]:
        """The lines of the access log."""
        file = self.state / "addons" / "log-access" / "access.jsonl"
        if not file.exists():
            return []
        return [json.loads(line) for line in file.read_text().splitlines()]

    def logs(self, count: int, **wanted: Any) -> list[dict[str, Any]]:
        """The lines of the access log with these values, once there are so many."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            found = [
                line for line in self.logged if all(line.get(k) == v for k, v in wanted.items())
            ]
            if len(found) >= count:
                return found
            time.sleep(0.05)
        raise AssertionError(f"not logged: {wanted}; {self.logged}")

    def status(self) -> dict[str, Any]:
        got = self.network.within(
            self.network.gateway, "curl", "-s", self.ready["status"] + "/-/status"
        )
        status: dict[str, Any] = json.loads(subprocess.check_output(got, env=CLEAN, text=True))
        return status

    def count(self, name: str) -> int:
        """A counter of core's, of all workers."""
        workers = self.status()["workers"]
        return sum(worker["counters"]["core"].get(name, 0) for worker in workers)

    @property
    def rss(self) -> int:
        """Memory of all workers, in bytes."""
        return sum(worker["rss"] for worker in self.status()["workers"])

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            self.process.communicate()
            self.log.close()


def python(code: str) -> tuple[str, ...]:
    """A program of Python, as a command."""
    return sys.executable, "-c", code


needs_network = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
