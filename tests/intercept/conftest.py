"""A network of namespaces per file, and nodes in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .network import LISTED, OPENAI, Network, Node

CONFIG = f"""
[gateway]
environment = "staging"
listen = ["127.0.0.1:0"]
workers = 2
limits = {{ lag = "5s" }}
deadlines = {{ drain = "2s" }}

[[intercept]]
mode = "transparent@0"
allow_hosts = ["{LISTED}", "{OPENAI}"]
upstream_ca = "ORIGIN_CA"

[[addon]]
use = "auth-source"
sources = [{{ name = "client", team = "lab", addresses = ["10.7.1.2", "fd07:1::2"] }}]

[[addon]]
use = "limit-rate"
rate = "2/hour"
scope = {{ paths = ["/limited"] }}

[[addon]]
use = "transform-headers"
request.set = {{ x-caller = "{{principal}}" }}
response.set = {{ x-transformed = "yes" }}

[[addon]]
use = "log-access"
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    made = Network(tmp_path_factory.mktemp("origin"))
    try:
        made.open()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def up(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Node]]:
    """`up(config)`: a node in the gateway's namespace."""
    nodes: list[Node] = []
    folder: Path = tmp_path_factory.mktemp("nodes")

    def start(config: str = CONFIG, **options: bool) -> Node:
        nodes.append(Node(network, folder / str(len(nodes)), config, **options))
        return nodes[-1]

    yield start
    for node in nodes:
        node.close()


@pytest.fixture(scope="module")
def node(up: Callable[..., Node]) -> Node:
    """One that intercepts what the client sends to ports 80 and 443."""
    made = up()
    made.redirect(80, 443)
    return made
