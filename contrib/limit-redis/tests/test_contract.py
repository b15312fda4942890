"""Redis keeps what the broker of a node keeps: the same suite."""

from __future__ import annotations

from typing import Any

import pytest
from tidegate_limit_redis import store

from tidegate.testing.contracts import LendingContract


class TestRedis(LendingContract):
    @pytest.fixture(autouse=True)
    def _server(self, server, monkeypatch):
        self.url = server.url
        self.monkeypatch = monkeypatch

    def backend(self, session, *terms):
        return store.RedisStore(self.url, "t", terms).backend(session)

    def status(self, *terms) -> list[dict[str, Any]]:
        return store.RedisStore(self.url, "t", terms).status()["accounts"]

    def reset(self, limit, key, *terms) -> int:
        return store.RedisStore(self.url, "t", terms).reset(limit, key)

    def forget_quickly(self):
        self.monkeypatch.setattr(store, "GRACE", 0.8)

    def kill(self, worker):
        worker.backend._task.cancel()
