"""Requests go where those of recorded calls went: address, path, and the field of the key."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from tidegate_ai_providers import AiProvidersConfig
from tidegate_ai_providers.catalog import Catalog
from tidegate_ai_providers.source import ConfiguredSource

from tidegate.api.formats import ai_call
from tidegate.testing import make_exchange

RECORDINGS = Path(__file__).resolve().parents[4] / "shared/recordings/providers.jsonl.gz"
INBOUND = {
    r"/chat/completions$": "/v1/chat/completions",
    r"/v1/messages$": "/v1/messages",
    r"/responses$": "/v1/responses",
    r"/v2/chat$": "/v2/chat",
    r"/api/chat$": "/api/chat",
    r"/model/[^/]+/(converse(?:-stream)?)$": r"/model/m/\1",
    r"/models/[^/]+:(generateContent|streamGenerateContent)$": r"/v1beta/models/m:\1",
}
OPTIONS: dict[str, dict[str, str]] = {
    "bedrock": {"region": "<AWS_REGION>"},
    "vertex": {"project": "<GOOGLE_CLOUD_PROJECT>", "location": "<GOOGLE_CLOUD_LOCATION>"},
    "ollama": {"like": "ollama-cloud"},
}
NOT_OURS = (
    "services.ai.azure.com",  # Foundry's other path; Azure OpenAI's own is tested in test_lane
    "v1beta1/projects",  # Vertex's preview of the same API
)


def recorded() -> list[dict[str, Any]]:
    if not RECORDINGS.exists():
        return []
    with gzip.open(RECORDINGS) as lines:
        rows = [json.loads(line) for line in lines]
    return [
        row
        for row in rows
        if isinstance(row["request"], dict)
        and row["status"] == 200
        and not any(part in row["url"] for part in NOT_OURS)
        and any(re.search(path, row["url"].partition("?")[0]) for path in INBOUND)
    ]


@pytest.fixture(scope="module")
def rows():
    found = recorded()
    if not found:
        pytest.skip(f"no recordings at {RECORDINGS}")
    return found


def catalog() -> Catalog:
    names = "openai anthropic gemini mistral cohere xai deepseek openrouter perplexity bedrock"
    entries = [
        {"name": n, **OPTIONS.get(n, {}), "keys": ["sk"]} for n in [*names.split(), "ollama"]
    ]
    config = AiProvidersConfig.model_validate({"providers": entries})
    return Catalog(ConfiguredSource(config, {}, Path()))


def test_a_call_goes_where_recorded_ones_went_with_the_same_body(rows):
    models, seen = catalog(), set()
    for row in rows:
        bare = row["url"].partition("?")[0]
        pattern, inbound = next((p, i) for p, i in INBOUND.items() if re.search(p, bare))
        found = re.search(pattern, bare)
        assert found is not None
        path = found.expand(inbound)
        name = row["request"].get("model") or unquote(bare.split("/")[-2 if "conv" in bare else -1])
        name = name.partition(":generate")[0].partition(":stream")[0]
        body = json.dumps(row["request"])
        exchange = make_exchange("POST", f"http://api.test{path}", body=body)
        call = ai_call(exchange)
        assert call is not None
        model = models.find(f"{row['provider']}/{name}")
        assert model is not None, name
        leaf = models.upstream(model, call).pick(exchange, ())
        assert leaf is not None
        assert leaf.codec is not None
        sent = leaf.codec.encode(exchange, exchange.request.copy())
        target = sent.path.partition("?")[0]
        assert unquote(leaf.url + target).lower() == unquote(bare).lower()
        wanted, said = json.loads(body), json.loads(sent.content or b"")
        if row["provider"] in ("openai", "anthropic", "gemini", "cohere", "bedrock"):
            wanted.pop("model", None)
            said.pop("model", None)
            assert said == wanted, "the same format: nothing but the model's name changes"
        seen.add(row["provider"])
    assert len(seen) >= 9


def test_what_providers_ask_for_in_limits_is_understood(rows):
    """The answers that were recorded with 429 say when to come again, or nothing."""
    from tidegate_ai_providers.limits import retry_after

    with gzip.open(RECORDINGS) as lines:
        limited = [row for row in map(json.loads, lines) if row["status"] == 429]
    assert limited
    for row in limited:
        found = retry_after((), base64.b64decode(row["body_b64"]), 0.0)
        assert found is None or 0.0 < found < 3600.0
