"""The table of providers and the facts of models."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from tidegate_ai_providers.config import AiProvidersConfig, Call, Kind
from tidegate_ai_providers.known import COMPATIBLE, facts, known, models_of
from tidegate_ai_providers.source import ConfiguredSource

from tidegate.api.formats import find_format
from tidegate.api.models import Capability
from tidegate.api.upstream import parse_url

ROWS = sorted(known().values(), key=lambda row: row.name)
OPTIONS = {
    "vertex": {"project": "p", "location": "europe-west4"},
    "azure": {"resource": "r"},
    "bedrock": {"region": "eu-west-1"},
}


def test_over_sixty_providers_are_known_by_name_most_of_them_compatible():
    assert len(ROWS) > 60
    assert sum(row.kind == COMPATIBLE for row in ROWS) > 50


def test_no_two_have_the_same_name_for_people_or_the_same_address():
    assert len({row.title for row in ROWS}) == len(ROWS)
    assert len({row.url for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_says_what_can_be_used(row):
    filled = row.url.format(**dict.fromkeys(row.options, "x"))
    parts = parse_url(filled)
    here = parts.hostname == "127.0.0.1"
    assert parts.scheme == ("http" if here else "https")
    assert not filled.endswith("/")
    assert row.kind in get_args(Kind.__value__)
    for kind, format in row.kinds.items():
        assert kind == "count-tokens" or kind in get_args(Call.__value__)
        assert find_format(format).kind == kind
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", row.env) or here
    assert all(find_format(name).kind == "chat" for name in row.formats)
    assert row.formats or row.kinds
    for name in models_of(row.name):
        found = facts(row.name, name)
        assert found is not None
        assert not found.format or found.format in row.formats, name


@pytest.mark.parametrize("row", [r for r in ROWS if r.env], ids=lambda row: row.name)
def test_a_provider_is_on_where_its_key_is_and_off_where_not(row, tmp_path):
    config = AiProvidersConfig.model_validate(
        {"providers": [{"name": row.name, **OPTIONS.get(row.name, {})}]}
    )
    if row.kind not in ("vertex", "bedrock"):
        off = ConfiguredSource(config, {}, tmp_path)
        assert off.providers() == []
        assert off.off == {row.name: f"{row.env} is not set"}
    (provider,) = ConfiguredSource(config, {row.env: "sk-1"}, tmp_path).providers()
    assert provider.formats == row.formats
    assert "{" not in provider.url


def test_facts_are_of_a_known_kind_and_sensible():
    for row in ROWS:
        for name, found in models_of(row.name).items():
            where = f"{row.name}/{name}"
            assert found.kind in get_args(Call.__value__), where
            assert (found.capabilities or set()) <= set(get_args(Capability.__value__)), where
            assert found.context is None or 1_000 <= found.context <= 20_000_000, where
            assert found.max_output is None or found.max_output <= (found.context or 10**9), where


def test_what_is_not_known_is_said_to_be_unknown():
    assert facts("openai", "gpt-99") is None
    assert facts("nobody", "gpt-4o-mini") is None


def test_a_region_before_a_name_of_bedrock_changes_no_fact():
    plain = facts("bedrock", "anthropic.claude-haiku-4-5-20251001-v1:0")
    assert plain is not None
    assert facts("bedrock", "us.anthropic.claude-haiku-4-5-20251001-v1:0") == plain
