"""Which model a name means, and what the options refuse."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tidegate_ai_providers import AiProvidersConfig
from tidegate_ai_providers.catalog import KEPT, Catalog
from tidegate_ai_providers.source import ConfiguredSource

from tidegate.api.formats import AiCall, find_format

A = {"name": "a", "url": "http://127.0.0.1:1/v1", "models": ["one", "both"]}
B = {"name": "b", "url": "http://127.0.0.1:2/v1", "models": ["two", "both"]}
OPEN = {"name": "openai", "url": "http://127.0.0.1:3/v1", "keys": ["sk"]}


def source(*providers: Any, env: dict[str, str] | None = None, **options: Any) -> ConfiguredSource:
    config = AiProvidersConfig.model_validate({"providers": providers, **options})
    from pathlib import Path

    return ConfiguredSource(config, env or {}, Path("/nowhere"))


def catalog(*providers: Any, **options: Any) -> Catalog:
    return Catalog(source(*providers, **options))


def call(model: str, format: str = "openai-chat") -> AiCall:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
    return AiCall(format, find_format("openai-chat").parse_request(body))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a/one", "a/one"),
        ("one", "a/one"),
        ("b/both", "b/both"),
        ("both", None),
        ("a/two", None),
        ("c/one", None),
        ("fast", "b/two"),
        ("faster", "b/two"),
        ("openai/gpt-4o-mini", "openai/gpt-4o-mini"),
        ("gpt-4o-mini", "openai/gpt-4o-mini"),
        ("openai/gpt-99", "openai/gpt-99"),
        ("gpt-99", None),
        ("openai/", None),
        ("openai", None),
        ("", None),
        ("/", None),
        ("openai/text-embedding-3-small", None),
    ],
)
def test_a_name_means_one_model_or_none(name, found):
    models = catalog(A, B, OPEN, aliases={"fast": "b/two", "faster": "fast"})
    model = models.find(name)
    assert (model.id if model else None) == found


def test_a_model_is_found_for_its_own_kind_of_call():
    models = catalog(OPEN)
    found = models.find("text-embedding-3-small", "embeddings")
    assert found is not None
    assert (found.id, found.kind) == ("openai/text-embedding-3-small", "embeddings")
    assert models.find("openai/gpt-4o-mini", "embeddings") is None
    assert models.find("openai/anything", "rerank") is None
    assert models.find("openai/anything", "images") is not None


def test_models_are_listed_in_the_order_of_the_configuration():
    assert [m.id for m in catalog(B, A).all()] == ["b/two", "b/both", "a/one", "a/both"]


def test_facts_of_a_known_model_may_hold_for_another_name():
    mine = {"name": "gpt", "id": "my-deployment", "like": "gpt-4o-mini"}
    own = {"name": "own", "capabilities": ["tools"], "context": 4096}
    models = catalog({**OPEN, "models": [mine, own]})
    gpt, other = models.all()
    assert (gpt.context, gpt.max_output) == (128_000, 16_384)
    assert gpt.capabilities is not None
    assert "images" in gpt.capabilities
    assert (other.context, other.capabilities) == (4096, {"tools", "stream"})
    leaf = models.upstream(gpt, call("gpt")).members[0].upstream
    assert leaf.name == "openai/gpt"


def test_the_upstream_of_a_model_and_a_format_is_one_object():
    models = catalog(OPEN)
    model = models.find("gpt-4o-mini")
    assert model is not None
    first = models.upstream(model, call("x"))
    assert models.upstream(model, call("y")) is first
    assert models.upstream(model, call("x", "anthropic-messages")) is not first


def test_callers_can_not_fill_the_memory_with_names():
    models = catalog(OPEN)
    for number in range(KEPT + 50):
        model = models.find(f"openai/m{number}")
        assert model is not None
        models.upstream(model, call("x"))
    assert len(models._upstreams) == KEPT


def test_an_openai_caller_speaks_to_a_responses_only_model_in_responses():
    model = catalog(OPEN).find("o3-pro")
    assert model is not None
    assert model.format == "openai-responses"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"providers": ["nobody"]}, "no provider is known as 'nobody'"),
        ({"providers": [{"name": "Bad Name", "url": "http://x"}]}, "should match pattern"),
        ({"providers": [{"name": "x", "url": "ftp://x"}]}, "starts with http"),
        ({"providers": [{"name": "x", "url": "http://u:p@x"}]}, "credentials"),
        ({"providers": ["openai", "openai"]}, "names of providers are unique"),
        ({"providers": [{**A, "models": ["m", "m"]}]}, "models are unique"),
        ({"providers": [{**A, "keys": [{"name": "k"}]}]}, "`key` or as `file`"),
        ({"providers": [{**A, "keys": ["a\nb"]}]}, "no control characters"),
        ({"providers": [{**A, "like": "nobody"}]}, "known as 'nobody'"),
        ({"providers": [A], "aliases": {"x": "one"}}, 'write "provider/model"'),
        ({"providers": [A], "aliases": {"x": "c/one"}}, "no provider is named 'c'"),
        ({"providers": [A], "aliases": {"x": "y", "y": "x"}}, "leads back to itself"),
    ],
)
def test_what_can_not_be_meant_is_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        AiProvidersConfig.model_validate(options)


def test_an_option_that_an_address_needs_is_asked_for():
    with pytest.raises(ValueError, match="'azure' needs `resource`"):
        source({"name": "azure", "keys": ["k"]})


def test_a_key_may_stand_in_a_file(tmp_path):
    (tmp_path / "key").write_text("sk-file\n")
    config = AiProvidersConfig.model_validate(
        {"providers": [{**A, "keys": [{"file": "key", "weight": 3, "name": "mine"}]}]}
    )
    (provider,) = ConfiguredSource(config, {}, tmp_path).providers()
    (key,) = provider.keys
    assert (key.label, key.secret.get_secret_value(), key.weight) == ("mine", "sk-file", 3)
    (tmp_path / "key").unlink()
    with pytest.raises(ValueError, match=r"a: mine: .* can't be read"):
        ConfiguredSource(config, {}, tmp_path)


def test_a_provider_whose_variable_is_not_set_is_off_and_so_are_its_aliases():
    entry = {"name": "openai", "if_env": "MINE", "keys": ["${MINE}"]}
    off = source(entry, A, aliases={"x": "openai/m", "y": "a/one"})
    assert off.off == {"openai": "MINE is not set"}
    assert [p.name for p in off.providers()] == ["a"]
    assert off.aliases() == {"y": "a/one"}


def test_vertex_in_all_the_world_has_a_host_of_its_own(tmp_path):
    (tmp_path / "c.json").write_text("{}")
    there = {"name": "vertex", "project": "p", "location": "global", "credentials": "c.json"}
    (provider,) = source(there).providers()
    assert provider.url == (
        "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/google"
    )
