"""What every plugin keeps, and every plugin that routes."""

from __future__ import annotations

import pytest

from tidegate.testing import make_exchange
from tidegate.testing.contracts import PluginContract, RouteContract

CHAT = "http://api.test/v1/chat/completions"
ASKED = {"messages": [{"role": "user", "content": "Hello"}]}


class TestContract(PluginContract, RouteContract):
    name = "ai-providers"

    def options(self):
        work = {"name": "work", "url": "http://127.0.0.1:1/v1", "keys": ["sk-a"]}
        return {"providers": [work], "unknown": "pass"}

    def good_exchange(self):
        return make_exchange("POST", CHAT, body={"model": "work/llama", **ASKED})

    def unrouted_exchange(self):
        return make_exchange("POST", CHAT, body={"model": "demo", **ASKED})


class TestPoolContract(RouteContract):
    name = "ai-providers"

    def options(self):
        keys = [{"key": "sk-a", "weight": 2}, "sk-b"]
        return {"providers": [{"name": "work", "url": "http://127.0.0.1:1/v1", "keys": keys}]}

    def good_exchange(self):
        return make_exchange("POST", CHAT, body={"model": "work/llama", **ASKED})


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
