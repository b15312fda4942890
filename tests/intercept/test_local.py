"""Programs on the gateway's own machine: told apart by user, redirected by nft and iptables."""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tidegate.cli.redirect.host import CGROUPS, cgroup_root

from .network import CLEAN, LISTED, V4, V6, Network, Node, needs_network

pytestmark = [
    needs_network,
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="apt-get install util-linux"),
    pytest.mark.xdist_group("intercept-local"),
]

APP, OTHER_APP, STRANGER = 54321, 54322, 54323
RESOLVE = ("--resolve", f"{LISTED}:443:{V4},[{V6}]")
HELLO = "hello from the origin"

CONFIG = f"""
[gateway]
environment = "staging"
listen = ["127.0.0.1:0"]
workers = 2
limits = {{ lag = "5s" }}
deadlines = {{ drain = "2s" }}

[[intercept]]
mode = "transparent@0"
allow_hosts = ["{LISTED}"]
upstream_ca = "ORIGIN_CA"

[[addon]]
use = "auth-source"
sources = [
  {{ name = "app", users = [{APP}] }},
  {{ name = "other", users = [{OTHER_APP}] }},
  {{ name = "service", cgroups = ["/CGROUP"] }},
]

[[addon]]
use = "log-access"
"""


@pytest.fixture(scope="module")
def cgroup() -> Iterator[Path]:
    """One with nobody in it."""
    folder = Path(CGROUPS) / cgroup_root() / f"tidegate-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"needs a writable cgroup v2: {error}")
    yield folder
    for _ in range(100):  # until its last process is gone for good
        with suppress(OSError):
            folder.rmdir()
            break
        time.sleep(0.05)


@pytest.fixture(scope="module")
def node(up: Callable[..., Node], cgroup: Path) -> Node:
    return up(CONFIG.replace("CGROUP", cgroup.name), whole=True)


@pytest.fixture(params=["nft", "iptables"])
def redirect(request: pytest.FixtureRequest, node: Node) -> Iterator[Callable[..., None]]:
    """`redirect("--uid", …)`: their port 443 leads to the node. Nothing is left behind."""
    if shutil.which(request.param) is None:
        pytest.skip(f"apt-get install {request.param.replace('nft', 'nftables')}")

    def apply(*whose: str) -> None:
        to = node.ready["intercept"]["transparent"][0].rpartition(":")[2]
        node.command("redirect", "apply", "--backend", request.param, "--port", "443",
                     "--to", f":{to}", "--gateway-uid", "0", *whose)  # fmt: skip

    yield apply
    node.command("redirect", "remove")
    left = subprocess.check_output(
        node.network.within(node.network.gateway, "sh", "-c", "nft list ruleset; iptables-save"),
        env=CLEAN, text=True,
    )  # fmt: skip
    assert "tidegate" not in left.lower()


def fetch(
    network: Network, node: Node, uid: int, path: str, *options: str, cgroup: str = ""
) -> str:
    """What a program of a user, or in a cgroup, gets on the gateway's machine."""
    join = f"echo $$ > {cgroup}/cgroup.procs;" if cgroup else ""
    as_user = f"exec setpriv --reuid={uid} --regid={uid} --clear-groups"
    with node.ca.open() as trusted:  # where the user may not look
        got = subprocess.run(
            [
                *node.enter, "sh", "-c", f'{join} {as_user} "$@"', "sh",
                "curl", "-sS", "-m", "20", *options, *RESOLVE, f"https://{LISTED}{path}",
            ],
            env={**CLEAN, "CURL_CA_BUNDLE": "/dev/stdin"}, stdin=trusted,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert got.returncode == 0, got.stderr
    return got.stdout


@pytest.mark.parametrize("version", ["-4", "-6"])
def test_users_of_the_machine_are_told_apart(
    network: Network, node: Node, redirect: Callable[..., None], version: str
) -> None:
    redirect(*(word for uid in (APP, OTHER_APP, STRANGER) for word in ("--uid", str(uid))))
    before = len(node.logged)
    assert fetch(network, node, APP, "/local", version) == HELLO
    assert fetch(network, node, OTHER_APP, "/local", version) == HELLO
    assert '"unauthenticated"' in fetch(network, node, STRANGER, "/local", version)
    lines = node.logs(before + 3, host=LISTED)[before:]
    assert sorted(str(line["principal"]) for line in lines) == ["None", "app", "other"]
    assert {":" in line["client"] for line in lines} == {version == "-6"}


def test_a_cgroup_is_told_from_its_users(
    network: Network, node: Node, redirect: Callable[..., None], cgroup: Path
) -> None:
    redirect("--cgroup", cgroup.name)
    before = len(node.logged)
    assert fetch(network, node, STRANGER, "/cgroup", cgroup=str(cgroup)) == HELLO
    assert node.logs(before + 1, host=LISTED)[-1]["principal"] == "service"


def test_other_users_are_left_alone(
    network: Network, node: Node, redirect: Callable[..., None]
) -> None:
    redirect("--uid", str(APP))
    before = node.count("intercepted_connections_total")
    assert fetch(network, node, STRANGER, "/left-alone", "--insecure") == HELLO
    assert node.count("intercepted_connections_total") == before
