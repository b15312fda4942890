"""What choosing a model costs: plan and first pick, without the provider's own part.

uv run pytest bench/test_ai_route.py -n 0 --benchmark-enable --benchmark-columns=min,median
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tidegate_ai_route import AiRoute, AiRouteConfig
from tidegate_ai_route.plan import Plan

from tidegate.api import AddonContext, Exchange, Upstream, upstream_from_url
from tidegate.api.formats import AiCall, ai_call
from tidegate.api.models import MODELS, Model
from tidegate.testing.exchanges import make_exchange

NAMES = ("openai/gpt-4o", "openai/gpt-4o-mini")


class Two:
    """Two models of one provider."""

    def __init__(self) -> None:
        self._models = {name: Model(*name.split("/"), "openai-chat") for name in NAMES}
        self._upstream = upstream_from_url("http://provider.test/v1")

    def find(self, name: str, kind: str = "chat") -> Model | None:
        return self._models.get(name)

    def all(self) -> Sequence[Model]:
        return list(self._models.values())

    def upstream(self, model: Model, call: AiCall) -> Upstream:
        return self._upstream


@pytest.mark.parametrize("strategy", ["priority", "weighted", "latency", "cost", "sticky"])
def test_route(benchmark: Any, tmp_path: Path, strategy: str) -> None:
    options = {"models": [{"name": "smart", "strategy": strategy, "targets": NAMES}]}
    addon = AiRoute(AiRouteConfig.model_validate(options), AddonContext("ai-route", tmp_path))
    models = Two()
    body = {"model": "smart", "messages": [{"role": "user", "content": "Hello there. " * 20}]}

    def prepared() -> tuple[tuple[Exchange], dict[str, Any]]:
        exchange = make_exchange("POST", "http://api.test/v1/chat/completions", body=body)
        exchange.stash[MODELS] = models
        ai_call(exchange)
        return (exchange,), {}

    def run(exchange: Exchange) -> Upstream | None:
        plan = addon.route(exchange)
        assert isinstance(plan, Plan)
        return plan.pick(exchange, ())

    assert benchmark.pedantic(run, setup=prepared, rounds=2000, warmup_rounds=50) is not None
