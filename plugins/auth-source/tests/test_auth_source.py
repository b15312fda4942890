"""Sources: addresses as a table, owners asked of the real kernel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError
from tidegate_auth_source import AuthSource, AuthSourceConfig
from tidegate_auth_source.owner import Unknown, cgroup_numbers, cgroup_root, owner_of

from tidegate.api import AddonContext, Client, Exchange
from tidegate.testing import make_exchange
from tidegate.testing.contracts import PluginContract

linux = pytest.mark.skipif(sys.platform != "linux", reason="sock_diag is Linux's")


def addon(tmp_path: Path, *sources: dict[str, object]) -> AuthSource:
    config = AuthSourceConfig.model_validate({"sources": sources})
    return AuthSource(config, AddonContext("auth-source", tmp_path))


def who(plugin: AuthSource, client: Client) -> str:
    exchange: Exchange = make_exchange()
    exchange.client = client
    principal = plugin.authenticate(exchange)
    return principal.id if principal is not None else ""


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.1.4.9", "apps/billing"),
        ("10.1.5.9", "rest"),
        ("10.2.0.1", ""),
        ("fd00:4::1", "apps/billing"),
        ("fd00:5::1", ""),
        ("fe80::1%eth0", "local"),
    ],
)
def test_the_first_source_with_the_address_counts(
    tmp_path: Path, address: str, expected: str
) -> None:
    plugin = addon(
        tmp_path,
        {"name": "billing", "team": "apps", "addresses": ["10.1.4.0/24", "fd00:4::/64"]},
        {"name": "rest", "addresses": ["10.1.0.0/16"]},
        {"name": "local", "addresses": ["fe80::/10"]},
    )
    assert who(plugin, Client(address, 1, address)) == expected


@pytest.mark.parametrize(
    "source",
    [
        {"name": "x"},
        {"name": "", "addresses": ["10.0.0.1"]},
        {"name": "x", "addresses": ["10.0.0.1/8"]},
        {"name": "x", "addresses": ["example.com"]},
    ],
)
def test_a_source_that_says_nothing_or_nonsense_is_refused(
    tmp_path: Path, source: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        addon(tmp_path, source)


def test_an_unknown_user_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no user 'nobody-at-all'"):
        addon(tmp_path, {"name": "x", "users": ["nobody-at-all"]})


@contextmanager
def connected(uid: int | None = None, family: int = socket.AF_INET) -> Iterator[Client]:
    """The client end of a connection that a process of this user has opened."""
    host = "127.0.0.1"
    # An address of this process's own: elsewhere another test may hold the same port.
    own = f"127.77.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
    code = (
        "import socket, sys, os\n"
        f"os.setuid({uid}) if {uid} is not None else None\n"
        f"s = socket.socket({int(family)})\n"
        f"mapped = '::ffff:' if s.family == {int(socket.AF_INET6)} else ''\n"
        f"s.bind((mapped + '{own}', 0))\n"
        f"s.connect((mapped + '{host}', int(sys.argv[1])))\n"
        "sys.stdin.read()\n"
    )
    with socket.create_server((host, 0)) as server:
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(server.getsockname()[1])], stdin=subprocess.PIPE
        )
        try:
            server.settimeout(30)
            accepted, (address, port) = server.accept()
            with accepted:
                yield Client(address, port, address)
        finally:
            assert child.stdin is not None
            child.stdin.close()
            child.wait(30)


@linux
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_kernel_knows_whose_socket_it_is(family: int) -> None:
    with connected(family=family) as client:
        owner = owner_of(client.peer, client.port)
    assert owner is not None
    assert owner.uid == os.geteuid()


@linux
def test_a_socket_that_is_not_here_has_no_owner(tmp_path: Path) -> None:
    assert owner_of("192.0.2.1", 9) is None
    plugin = addon(tmp_path, {"name": "me", "users": [os.geteuid()]})
    assert who(plugin, Client("192.0.2.1", 9, "192.0.2.1")) == ""


@linux
def test_two_owners_of_one_address_and_port_are_no_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def several(address: str, port: int) -> None:
        raise Unknown("2 owners")

    monkeypatch.setattr("tidegate_auth_source.plugin.owner_of", several)
    plugin = addon(tmp_path, {"name": "me", "users": [os.geteuid()]})
    assert who(plugin, Client("127.0.0.1", 9, "127.0.0.1")) == ""
    assert plugin.context.counters.values["unknown_owner_total"] == 1


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_user_is_told_from_another(tmp_path: Path) -> None:
    plugin = addon(
        tmp_path,
        {"name": "app", "users": [54321], "addresses": ["127.0.0.0/8"]},
        {"name": "root", "users": ["root"]},
    )
    with connected(54321) as client:
        assert who(plugin, client) == "app"
        assert who(plugin, client) == "app"  # remembered
        proxied = Client("10.0.0.1", client.port, client.peer)
        assert who(plugin, proxied) == ""
    with connected() as client:
        assert who(plugin, client) == "root"
    with connected(54322) as client:
        assert who(plugin, client) == ""


@linux
def test_the_members_of_a_cgroup_are_found(tmp_path: Path) -> None:
    root = cgroup_root()
    if root is None:
        pytest.skip("cgroup v2 is not mounted here")
    with connected() as client:
        owner = owner_of(client.peer, client.port)
        assert owner is not None
        assert owner.cgroup in cgroup_numbers(root, "/")
        assert who(addon(tmp_path, {"name": "all", "cgroups": ["/"]}), client) == "all"
        assert who(addon(tmp_path, {"name": "x", "cgroups": ["/no-such"]}), client) == ""


class TestPlugin(PluginContract):
    name = "auth-source"

    def options(self) -> dict[str, object]:
        return {"sources": [{"name": "loopback", "addresses": ["127.0.0.0/8"]}]}
