"""What every router keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import typer
from tidegate_ai_route.cli import verb
from typer.testing import CliRunner

from tidegate.api import Exchange, Plugin, Upstream, hook, upstream_from_url
from tidegate.api.formats import AiCall
from tidegate.api.models import MODELS, Model
from tidegate.runtime.registry import available
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


def test_the_verb_shows_the_models_of_the_configuration():
    config = available()["ai-route"].load().Config.model_validate({"models": MODELS_HERE})
    app = typer.Typer()
    app.command()(verb(config))
    table = CliRunner().invoke(app, [])
    assert table.exit_code == 0
    assert "weighted" in table.output
    assert "3 x b/two" in table.output
    told = json.loads(CliRunner().invoke(app, ["--json"]).output)
    assert [target["model"] for target in told[0]["targets"]] == ["a/one", "b/two"]


@pytest.mark.parametrize(
    ("models", "reason"),
    [
        ([], "at least one model"),
        ([{"name": "a", "targets": []}], "at least one target"),
        ([{"name": "a", "targets": ["x/y", "x/y"]}], "'x/y' is named twice"),
        ([{"name": "a", "targets": ["b"]}, {"name": "b", "targets": ["x/y"]}], "virtual model"),
        ([{"name": "a", "targets": ["x/y"]}, {"name": "a", "targets": ["x/y"]}], "called 'a'"),
        ([{"name": "a", "targets": ["x/y"], "canary": {"model": "x/z", "percent": 200}}], "100"),
        ([{"name": "a", "targets": ["x/y"], "fallback": {"on": ["sunshine"]}}], "rate-limit"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_told(models, reason):
    with pytest.raises(ValueError, match=reason):
        available()["ai-route"].load().Config.model_validate({"models": models})
