"""The broker of a node keeps what whoever lends has to keep."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tidegate_limit_quota import broker
from tidegate_limit_quota.local import BrokerBackend
from tidegate_limit_quota.protocol import SOCKET, call

from tidegate.testing.contracts import LendingContract


class TestBroker(LendingContract):
    @pytest.fixture(autouse=True)
    async def _broker(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)  # the broker changes it
        self.path = tmp_path / SOCKET
        self.monkeypatch = monkeypatch
        serving = asyncio.create_task(broker.Broker(tmp_path).serve())
        yield
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    def backend(self, session, *terms):
        return BrokerBackend(
            self.path, {"hello": session, "limits": [limit.wire() for limit in terms]}
        )

    def status(self, *_) -> list[dict[str, Any]]:
        return call(self.path, {"status": True})["accounts"]

    def reset(self, limit, key, *_) -> int:
        return call(self.path, {"reset": [limit, key]})["reset"]

    def forget_quickly(self):
        self.monkeypatch.setattr(broker, "GRACE", 0.8)

    def kill(self, worker):
        worker.backend._task.cancel()
        worker.backend._writer.transport.abort()
