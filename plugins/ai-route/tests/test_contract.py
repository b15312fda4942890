"""What every router keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.api import Exchange, Plugin, Upstream, hook, upstream_from_url
from tidegate.api.formats import AiCall
from tidegate.api.models import MODELS, Model
from tidegate.testing import Use, make_exchange
from tidegate.testing.contracts import PluginContract, RouteContract

MODELS_HERE = [
    {"name": "smart", "strategy": "weighted", "targets": ["a/one", {"model": "b/two", "weight": 3}]}
]


class Two(Plugin):
    """Knows two models."""

    def find(self, name: str, kind: str = "chat") -> Model | None:
        provider, _, model = name.partition("/")
        return Model(provider, model, "openai-chat") if name in ("a/one", "b/two") else None

    def all(self) -> Sequence[Model]:
        return [Model("a", "one", "openai-chat"), Model("b", "two", "openai-chat")]

    def upstream(self, model: Model, call: AiCall) -> Upstream:
        return upstream_from_url(f"http://{model.provider}.test/v1", name=model.id)

    @hook
    def authorize(self, exchange: Exchange) -> None:
        exchange.stash[MODELS] = self


def chat(model: str = "smart") -> Exchange:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    return make_exchange("POST", "http://api.test/v1/chat/completions", body=body)


class Common:
    name = "ai-route"

    def options(self) -> Mapping[str, Any]:
        return {"models": MODELS_HERE}

    def others(self) -> tuple[Use, ...]:
        return (Use(Two),)

    def good_exchange(self) -> Exchange:
        return chat()


class TestPlugin(Common, PluginContract):
    pass


class TestRoute(Common, RouteContract):
    def unrouted_exchange(self) -> Exchange | None:
        return chat("another")
