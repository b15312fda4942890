"""What the pipeline itself costs: 8 phases, 10 addon hooks, nothing in them.

Target: at most 3 µs for all of it. The same hooks through pluggy stand beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pluggy
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tidegate.api import AddonConfig, AddonContext, Plugin, Principal, hook, upstream_from_url
from tidegate.api.exchange import Exchange
from tidegate.api.hookspecs import HookSpecs
from tidegate.api.types import Client
from tidegate.runtime.addon import Addon
from tidegate.runtime.drive import run_now
from tidegate.runtime.lifecycle import Generation, Host, Runtime
from tidegate.runtime.messages import make_request, make_response
from tidegate.runtime.pipeline import Pipeline
from tidegate.runtime.settings import parse

SOMEONE = Principal("someone")
SOMEWHERE = upstream_from_url("http://127.0.0.1:9")


class Gate(Plugin):
    @hook
    def authenticate(self, exchange: Exchange) -> Principal:
        return SOMEONE

    @hook
    def authorize(self, exchange: Exchange) -> None:
        pass

    @hook
    def log(self, exchange: Exchange) -> None:
        pass


class Limit(Plugin):
    @hook
    def authorize(self, exchange: Exchange) -> None:
        pass


class Transform(Plugin):
    @hook
    def transform_request(self, exchange: Exchange) -> None:
        pass

    @hook
    def transform_response(self, exchange: Exchange) -> None:
        pass


class Cache(Plugin):
    @hook
    def cache_lookup(self, exchange: Exchange) -> None:
        pass

    @hook
    def cache_store(self, exchange: Exchange) -> None:
        pass


class Route(Plugin):
    @hook
    def route(self, exchange: Exchange) -> Any:
        return SOMEWHERE

    @hook
    def log(self, exchange: Exchange) -> None:
        pass


PLUGINS: tuple[type[Plugin], ...] = (Gate, Limit, Transform, Cache, Route)


def instances() -> list[Plugin]:
    return [cls(AddonConfig(), AddonContext(cls.__name__, Path())) for cls in PLUGINS]


@pytest.fixture
def pipeline() -> Pipeline:
    generation = Generation(parse(""), Runtime(Host(Path())))
    generation.addons = [
        Addon(i.context.name, i.context.name, i, position=n) for n, i in enumerate(instances())
    ]
    generation.compile()
    return generation.table.match("gateway", "host", "/", "GET")


@pytest.fixture
def exchange() -> Exchange:
    fields = ((b"host", b"host"),)
    request = make_request(b"GET", b"http", b"host", "host", 80, b"/", fields, b"", 0.0)
    exchange = Exchange("id", request, Client("127.0.0.1", 1, "127.0.0.1"))
    exchange.response = make_response(200, b"OK", (), b"", 0.0)
    return exchange


def test_dispatch_of_8_phases_with_10_hooks(
    benchmark: BenchmarkFixture, pipeline: Pipeline, exchange: Exchange
) -> None:
    def dispatch() -> bool:
        passed = run_now(pipeline.request(exchange))
        run_now(pipeline.response(exchange))
        for step in pipeline.logs:
            step.call(exchange)
        return passed

    hooks = [*pipeline.steps, *pipeline.transforms, *pipeline.logs]
    assert sum(step.addon != "core" for step in hooks) == 10
    assert benchmark.pedantic(dispatch, rounds=50, iterations=1000, warmup_rounds=3)
    assert exchange.principal is SOMEONE
    assert exchange.upstream is SOMEWHERE


def test_the_same_hooks_through_pluggy(benchmark: BenchmarkFixture, exchange: Exchange) -> None:
    manager = pluggy.PluginManager("tidegate")
    manager.add_hookspecs(HookSpecs)
    for instance in instances():
        manager.register(instance)
    phases = [
        getattr(manager.hook, name)
        for name in (
            "authenticate",
            "authorize",
            "transform_request",
            "cache_lookup",
            "route",
            "cache_store",
            "transform_response",
            "log",
        )
    ]

    def dispatch() -> Any:
        return [phase(exchange=exchange) for phase in phases]

    found = benchmark.pedantic(dispatch, rounds=50, iterations=1000, warmup_rounds=3)
    assert found[4] == [SOMEWHERE]
