"""What it costs to find a model's provider, choose a key, and send a call in its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidegate_ai_providers import AiProviders, AiProvidersConfig
from tidegate_ai_providers.sigv4 import Credentials, sign

from tidegate.api import AddonContext, Principal, Secret, Upstream
from tidegate.api.platform import SNAPSHOT, StoredKey, StoredProvider
from tidegate.runtime.messages import copy_request
from tidegate.testing import Platform, make_exchange

TEXT = "Why are there tides? " * 40
ASKED = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": TEXT}]}


@pytest.fixture
def addon() -> AiProviders:
    keys = ["sk-a", "sk-b", "sk-c"]
    config = AiProvidersConfig.model_validate(
        {
            "providers": [{"name": "openai", "keys": keys}, {"name": "anthropic", "keys": keys}],
            "aliases": {"fast": "openai/gpt-4o-mini"},
        }
    )
    return AiProviders(config, AddonContext("ai-providers", Path("/nowhere")))


def chat(model: str):
    return make_exchange(
        "POST", "http://api.test/v1/chat/completions", body={**ASKED, "model": model}
    )


@pytest.mark.parametrize("name", ["openai/gpt-4o-mini", "gpt-4o-mini", "fast", "openai/new"])
def test_find(benchmark, addon, name):
    assert benchmark(addon.catalog.find, name) is not None


def test_route_and_pick(benchmark, addon):
    """With the parsing of the request, which others use as well."""

    def setup():
        return (chat("openai/gpt-4o-mini"),), {}

    def run(exchange):
        upstream = addon.route(exchange)
        assert isinstance(upstream, Upstream)
        return upstream.pick(exchange, ())

    assert benchmark.pedantic(run, setup=setup, rounds=2000, warmup_rounds=200) is not None


@pytest.mark.parametrize("team", ["none", "others", "mine"])
def test_models_of_a_caller(benchmark, addon, team):
    """Of a caller without a team, of a team without providers, and of one that has some."""
    key = StoredKey("k1", "main", Secret("sk-team"))
    stored = StoredProvider("p1", "openai", "openai", "https://api.openai.com/v1", keys=(key,))
    exchange = chat("openai/gpt-4o-mini")
    exchange.principal = Principal("dev", "" if team == "none" else team)
    exchange.stash[SNAPSHOT] = Platform(providers={"mine": (stored,)})
    found = benchmark(addon.teams.of, exchange)
    assert (found is addon.catalog) == (team != "mine")


def test_encode_of_the_same_format(benchmark, addon):
    exchange = chat("openai/gpt-4o-mini")
    upstream = addon.route(exchange)
    assert isinstance(upstream, Upstream)
    leaf = upstream.pick(exchange, ())
    assert leaf is not None
    assert leaf.codec is not None
    benchmark(lambda: leaf.codec.encode(exchange, copy_request(exchange.request)))


def test_signature(benchmark):
    body = b"x" * 1024
    keys = Credentials("AKIDEXAMPLE", "secret", "token")
    target = "/model/amazon.nova-lite-v1%3A0/converse"
    options = {"region": "eu-west-1", "service": "bedrock", "now": 1.75e9}
    benchmark(lambda: sign("POST", "bedrock-runtime.test", target, body, keys, **options))
