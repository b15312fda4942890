"""A Redis on a free port of loopback, one for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tidegate.testing.redis import MISSING, RedisServer


class Server(RedisServer):
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=10)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if not Server.installed():
        pytest.skip(MISSING)
    with Server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    """The server, empty."""
    with shared.client() as client:
        client.flushall()
    return shared


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """One that a test may kill."""
    if not Server.installed():
        pytest.skip(MISSING)
    with Server(tmp_path) as server:
        yield server
