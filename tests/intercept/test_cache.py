"""The cache of the gateway answers programs that know of no gateway."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from .conftest import CONFIG
from .network import LISTED, Network, Node, needs_network

pytestmark = [needs_network, pytest.mark.xdist_group("intercept-cache")]

STRANGER = "10.7.1.9"


@pytest.fixture(scope="module")
def node(up: Callable[..., Node], network: Network) -> Node:
    """With a cache, for the client by its two addresses and for a program at a third one."""
    network.run("ip", "addr", "add", f"{STRANGER}/24", "dev", "c0")
    others = f'{{ name = "other", addresses = ["{STRANGER}"] }}]\n\n[[addon]]\nuse = "limit-rate"'
    config = CONFIG.replace(']\n\n[[addon]]\nuse = "limit-rate"', f", {others}")
    made = up(config + '\n[[addon]]\nuse = "cache-http"\nsize = "16MiB"\n')
    made.redirect(80, 443)
    return made


def get(network: Network, node: Node, path: str, *options: str) -> tuple[str, dict[str, list[str]]]:
    """Body and fields of an answer."""
    got = network.run(
        "curl", "-sS", "-w", "\n%{header_json}", *options, f"https://{LISTED}{path}",
        env=node.trust,
    )  # fmt: skip
    body, _, fields = got.stdout.partition("\n")
    assert fields, got.stderr
    return body, json.loads(fields)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_an_answer_comes_from_the_cache(network: Network, node: Node, version: str) -> None:
    path = f"/cacheable/{version}"
    first, fields = get(network, node, path, version)
    assert "fwd=uri-miss" in fields["cache-status"][0]
    for option in ("--http1.1", "--http2"):
        again, fields = get(network, node, path, option)
        assert again == first
        assert "hit" in fields["cache-status"][0]
        assert fields["x-transformed"] == ["yes"]
    assert len(network.seen(path)) == 1
    assert {line["cache"] for line in node.logs(3, path=path)} >= {"hit"}


def test_it_is_not_for_another_program(network: Network, node: Node) -> None:
    own, _ = get(network, node, "/cacheable/own")
    other, _ = get(network, node, "/cacheable/own", "--interface", STRANGER)
    assert own != other
    assert len(network.seen("/cacheable/own")) == 2


def test_another_address_of_a_host_is_another_origin(network: Network, node: Node) -> None:
    """A Host field does not prove who answered."""
    for option in ("-4", "-6"):
        _, fields = get(network, node, "/cacheable/six", option)
        assert "fwd=uri-miss" in fields["cache-status"][0]


def test_cleartext_and_tls_are_kept_apart(network: Network, node: Node) -> None:
    get(network, node, "/cacheable/scheme")
    got = network.run("curl", "-sS", f"http://{LISTED}/cacheable/scheme")
    assert got.stdout.startswith("answer"), got.stderr
    assert len(network.seen("/cacheable/scheme")) == 2
