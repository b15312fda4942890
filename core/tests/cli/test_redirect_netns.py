"""The redirect for real: a client, a gateway and an origin in network namespaces of the test.

client 10.7.1.2 ── 10.7.1.1 gateway 10.7.2.1 ── 10.7.2.2 origin 198.51.100.7
       fd07:1::2 ─ fd07:1::1        fd07:2::1 ─ fd07:2::2       2001:db8:7::7
"""

import ctypes
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tidegate.cli.redirect.commands import app
from tidegate.cli.redirect.host import CGROUPS, Host, cgroup_root
from tidegate.runtime.problems import ConfigError

V4, V6 = "198.51.100.7", "2001:db8:7::7"
GATEWAY = 8081
ORIGINAL_DST = 80  # SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST
USER, GROUP, GATEWAY_USER = 54321, 54322, 54323
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)

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


class Network:
    """The three namespaces, and what listens in them."""

    def __init__(self) -> None:
        tag = f"tg{uuid.uuid4().hex[:8]}"
        self.client, self.gateway, self.origin = f"{tag}c", f"{tag}g", f"{tag}o"
        self._listeners: list[socket.socket] = []

    def open(self) -> None:
        names = {"C": self.client, "G": self.gateway, "O": self.origin}
        for line in SETUP.strip().splitlines():
            for command in line.strip().split("; "):
                subprocess.run([names.get(w, w) for w in command.split()], check=True)
        self._listen(self.gateway, GATEWAY, original_destination)
        for port in (22, 80, 443):
            self._listen(self.origin, port, says(f"origin {port}"))
        self._listen(self.gateway, 443, says("local 443"))

    def close(self) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for name in (self.client, self.gateway, self.origin):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _listen(self, netns: str, port: int, say: Callable[[socket.socket], str]) -> None:
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            listener = within(netns, socket.create_server, (host, port), family=family)
            self._listeners.append(listener)
            threading.Thread(target=serve, args=(listener, say), daemon=True).start()

    def ask(
        self, host: str, port: int = 443, *, netns: str = "", uid: int = 0, gid: int = 0
    ) -> str:
        """Who answers a program that connects to an address, in the gateway's namespace."""
        return within(netns or self.gateway, ask, host, port, uid=uid, gid=gid)

    def ruleset(self) -> list[str]:
        """Everything that the kernel has in the gateway's namespace."""
        enter = ["nsenter", f"--net=/run/netns/{self.gateway}"]
        tools = (["nft", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"])
        printed = (subprocess.check_output([*enter, *tool], text=True) for tool in tools)
        return [line for text in printed for line in text.splitlines() if line[:1] != "#"]


def within[T](netns: str, call: Callable[..., T], *args: Any, **named: Any) -> T:
    """The result of a call made in a network namespace: in a thread that has entered it."""
    box: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        handle = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        try:
            os.setns(handle, CLONE_NEWNET)
            box.append(call(*args, **named))
        except BaseException as error:
            failed.append(error)
        finally:
            os.close(handle)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return box[0]


def ask(host: str, port: int, *, uid: int, gid: int) -> str:
    """What a server says. The kernel matches by the file-system ids (of this thread alone) that
    made the socket."""
    LIBC.setfsgid(gid)
    LIBC.setfsuid(uid)
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    LIBC.setfsuid(0)
    with sock:
        sock.settimeout(5)
        sock.connect((host, port))
        return sock.recv(200).decode()


def says(text: str) -> Callable[[socket.socket], str]:
    return lambda _: text


def serve(listener: socket.socket, say: Callable[[socket.socket], str]) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        with sock:
            sock.sendall(say(sock).encode())


def original_destination(sock: socket.socket) -> str:
    if sock.family == socket.AF_INET:
        port, host = struct.unpack_from("!2xH4s", sock.getsockopt(0, ORIGINAL_DST, 16))
    else:
        data = sock.getsockopt(socket.IPPROTO_IPV6, ORIGINAL_DST, 28)
        port, host = struct.unpack_from("!2xH4x16s", data)
    return f"gateway for {socket.inet_ntop(sock.family, host)} {port}"


def for_(host: str, port: int = 443) -> str:
    return f"gateway for {host} {port}"


@pytest.fixture(scope="module")
def topology() -> Iterator[Network]:
    missing = [t for t in ("ip", "nft", "iptables", "nsenter") if not Host().has(t)]
    if os.geteuid() != 0 or missing:
        pytest.skip("needs root, and: apt-get install iproute2 nftables iptables util-linux")
    network = Network()
    try:
        network.open()
    except (OSError, subprocess.CalledProcessError) as error:
        network.close()
        pytest.skip(f"network namespaces can't be made here (CAP_SYS_ADMIN): {error}")
    yield network
    network.close()


@pytest.fixture
def network(topology: Network) -> Iterator[Network]:
    """The namespaces, whose rules must be the same after the test."""
    before = topology.ruleset()
    yield topology
    redirect("remove", network=topology)
    assert topology.ruleset() == before


def redirect(*argv: str, network: Network) -> Any:
    netns = ["--netns", network.gateway, "--json"]
    result = CliRunner().invoke(app, [*argv, *netns], catch_exceptions=False)
    return json.loads(result.stdout)


PORTS = ("--port", "443", "--port", "80", "--gateway-uid", str(GATEWAY_USER))
both_backends = pytest.mark.parametrize("backend", ["nft", "iptables"])


def apply(backend: str, *argv: str, network: Network) -> Any:
    return redirect("apply", *PORTS, "--backend", backend, *argv, network=network)


@both_backends
def test_connections_of_a_user_reach_the_gateway_and_no_others(
    network: Network, backend: str
) -> None:
    applied = apply(backend, "--uid", str(USER), network=network)
    assert applied["applied"]
    assert network.ask(V4, uid=USER) == for_(V4)
    assert network.ask(V4, 80, uid=USER) == for_(V4, 80)
    assert network.ask(V6, uid=USER) == for_(V6)
    assert network.ask(V4, 22, uid=USER) == "origin 22"
    assert network.ask(V4, uid=USER + 1000) == "origin 443"
    assert network.ask(V6, uid=GATEWAY_USER) == "origin 443"


@both_backends
def test_connections_of_a_group_reach_the_gateway(network: Network, backend: str) -> None:
    apply(backend, "--gid", str(GROUP), network=network)
    assert network.ask(V4, uid=USER, gid=GROUP) == for_(V4)
    assert network.ask(V6, uid=USER, gid=GROUP) == for_(V6)
    assert network.ask(V4, uid=USER) == "origin 443"
    assert network.ask(V4, uid=GATEWAY_USER, gid=GROUP) == "origin 443"


@both_backends
def test_a_whole_namespace_but_for_the_gateway_and_the_machine_itself(
    network: Network, backend: str
) -> None:
    apply(backend, network=network)  # no program is named: all of the namespace
    assert network.ask(V4) == for_(V4)
    assert network.ask(V6, 80, uid=USER) == for_(V6, 80)
    assert network.ask(V4, uid=GATEWAY_USER) == "origin 443"
    assert network.ask("127.0.0.1") == "local 443"
    assert network.ask("10.7.1.1") == "local 443"
    assert network.ask("::1") == "local 443"


@both_backends
def test_only_the_ip_version_that_has_a_target(network: Network, backend: str) -> None:
    apply(backend, "--to", f"127.0.0.1:{GATEWAY}", network=network)
    assert network.ask(V4) == for_(V4)
    assert network.ask(V6) == "origin 443"


@both_backends
def test_a_router_redirects_what_comes_in(network: Network, backend: str) -> None:
    assert network.ask(V4, netns=network.client) == "origin 443"
    apply(backend, "--interface", "g0", network=network)
    assert network.ask(V4, netns=network.client) == for_(V4)
    assert network.ask(V6, netns=network.client) == for_(V6)
    assert network.ask(V4, 22, netns=network.client) == "origin 22"
    assert network.ask("10.7.1.1", netns=network.client) == "local 443"
    assert network.ask(V4) == "origin 443"


@both_backends
def test_excepted_destinations_are_left_alone(network: Network, backend: str) -> None:
    apply(backend, "--except", f"{V4}/32", "--except", "2001:db8:ffff::/48", network=network)
    assert network.ask(V4) == "origin 443"
    assert network.ask(V6) == for_(V6)
    assert network.ask("10.7.2.2") == for_("10.7.2.2")


@both_backends
@pytest.mark.parametrize(("source", "meant"), [("10.7.1.0/24", True), ("10.9.0.0/16", False)])
def test_a_router_redirects_by_source(
    network: Network, backend: str, source: str, meant: bool
) -> None:
    apply(backend, "--source", source, network=network)
    assert network.ask(V4, netns=network.client) == (for_(V4) if meant else "origin 443")
    assert network.ask(V6, netns=network.client) == "origin 443"


@both_backends
def test_connections_of_a_cgroup_reach_the_gateway(network: Network, backend: str) -> None:
    folder = Path(CGROUPS) / cgroup_root() / f"tidegate-test-{uuid.uuid4().hex[:8]}" / "inner"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"needs a writable cgroup v2: {error}")
    client = f"import socket; print(socket.create_connection(('{V4}', 443), 5).recv(99).decode())"
    script = f'echo $$ > {folder}/cgroup.procs; exec "$@"'
    enter = ["nsenter", f"--net=/run/netns/{network.gateway}", sys.executable, "-c", client]
    try:
        apply(backend, "--cgroup", f"{folder.parent.name}/inner", network=network)
        inside = subprocess.check_output(["sh", "-c", script, "sh", *enter], text=True)
        outside = subprocess.check_output(enter, text=True)
    finally:
        redirect("remove", network=network)
        folder.rmdir()
        folder.parent.rmdir()
    assert (inside, outside) == (for_(V4) + "\n", "origin 443\n")


@both_backends
def test_to_apply_twice_is_to_apply_once(network: Network, backend: str) -> None:
    first = apply(backend, "--uid", str(USER), network=network)
    assert apply(backend, "--uid", str(USER), network=network) == first
    apply(backend, "--interface", "g0", network=network)
    assert network.ask(V4, uid=USER) == "origin 443"
    assert redirect("remove", network=network) == {"removed": True}
    assert redirect("remove", network=network) == {"removed": False}


@pytest.mark.parametrize(("first", "second"), [("nft", "iptables"), ("iptables", "nft")])
def test_one_backend_replaces_the_other(network: Network, first: str, second: str) -> None:
    apply(first, "--uid", str(USER), network=network)
    rules = apply(second, "--gid", str(GROUP), network=network)["rules"]
    assert set(rules) == ({"nft"} if second == "nft" else {"iptables", "ip6tables"})
    assert network.ask(V4, uid=USER) == "origin 443"
    assert network.ask(V4, gid=GROUP) == for_(V4)


@both_backends
def test_status_says_what_is_there(network: Network, backend: str) -> None:
    assert redirect("status", network=network) == {
        "applied": False, "netns": network.gateway, "rules": {},
    }  # fmt: skip
    apply(backend, "--uid", str(USER), network=network)
    found = redirect("status", network=network)
    assert found["applied"]
    assert any(str(USER) in rule for rules in found["rules"].values() for rule in rules)
    argv = ["status", "--netns", network.gateway]
    assert CliRunner().invoke(app, argv).exit_code == 0
    redirect("remove", network=network)
    assert CliRunner().invoke(app, argv).exit_code == 1


FOREIGN = """*nat
:OTHER - [0:0]
-A OUTPUT -p tcp --dport 9 -j OTHER
-A OTHER -j RETURN
COMMIT
"""


@both_backends
def test_rules_of_others_stay_as_they_are(network: Network, backend: str) -> None:
    host = Host(network.gateway)
    host.run(("iptables-restore", "--noflush"), FOREIGN)
    host.run(("nft", "-f", "-"), "table inet other { chain x { tcp dport 9 return; }; }")
    before = network.ruleset()
    try:
        apply(backend, "--uid", str(USER), network=network)
        assert network.ask(V4, uid=USER) == for_(V4)
        redirect("remove", network=network)
        assert network.ruleset() == before
    finally:
        host.run(("nft", "-f", "-"), "delete table inet other; delete table ip nat")


def test_where_ipv6_fails_ipv4_is_taken_back(network: Network, tmp_path: Path) -> None:
    for tool in ("iptables", "iptables-save", "iptables-restore", "nft", "nsenter"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool, path="/usr/sbin:/usr/bin")))
    for tool, text in (("ip6tables", ""), ("ip6tables-save", ""), ("ip6tables-restore", "exit 4")):
        (tmp_path / tool).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / tool).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        with pytest.raises(ConfigError) as refused:
            apply("iptables", "--uid", str(USER), network=network)
    assert refused.value.problems[0].code == "redirect_failed"
    assert redirect("status", network=network)["applied"] is False


def test_a_namespace_or_cgroup_that_is_not_there_is_refused(network: Network) -> None:
    with pytest.raises(ConfigError, match="no-such-namespace"):
        Host("no-such-namespace").rules()
    with pytest.raises(ConfigError, match="no-such-cgroup"):
        apply("nft", "--cgroup", "no-such-cgroup", network=network)


@pytest.mark.parametrize(
    ("capabilities", "says"), [("-all", "redirect_not_permitted"), ("-all,+net_admin", "")]
)
def test_the_one_right_that_is_needed_is_net_admin(
    network: Network, capabilities: str, says: str
) -> None:
    code = (
        "from tidegate.cli.redirect.host import Host; from tidegate.cli.redirect.plan import "
        "make_plan; Host().apply(make_plan(ports=[443], to=[':1'], interface=['a']), 'nft')"
    )
    drop = ["setpriv", "--bounding-set", capabilities, "--inh-caps", "-all"]
    enter = ["nsenter", f"--net=/run/netns/{network.gateway}", *drop, sys.executable, "-c", code]
    done = subprocess.run(enter, capture_output=True, text=True, check=False)
    assert says in done.stderr
    assert (done.returncode == 0) == (says == "")
