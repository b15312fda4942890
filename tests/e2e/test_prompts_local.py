"""Prompts over a real language model on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
from tidegate_local_model.install import MODEL
from tidegate_local_model.plugin import SITE

from tidegate.testing import Gateway

INSTALLED = os.environ.get(SITE, "")
pytestmark = pytest.mark.skipif(
    not INSTALLED or not (Path(INSTALLED) / MODEL).is_file(),
    reason=f"not installed: uv run python -m tidegate_local_model.install DIR, then set {SITE}=DIR",
)
CONFIG = """
[gateway]
workers = 1
deadlines = { drain = "5s" }

[[addon]]
use = "ai-prompts"
scope = { paths = ["/prompts/*"] }

[[addon.prompts]]
name = "capital"
model = "local"
parameters = { temperature = 0, max_tokens = 60 }
user = "What is the capital of {{ country }}?"
variables.country = { type = "string" }
[addon.prompts.output.schema]
type = "object"
required = ["capital"]
additionalProperties = false
properties = { capital = { type = "string", maxLength = 40 } }

[[addon.prompts]]
name = "say"
model = "local"
parameters = { temperature = 0, max_tokens = 24 }
user = "What is the capital of {{ country }}?"
variables.country = { type = "string" }

[[addon]]
use = "local-model"
context = 1024
wait = "25s"
"""


async def test_a_real_model_answers_prompts_as_text_as_a_stream_and_as_json(tmp_path):
    async with (
        Gateway(tmp_path, CONFIG, carrier="lane") as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=100, trust_env=False) as client,
    ):
        text = await client.post(
            "/prompts/say", json={"country": "France"}, headers={"accept": "text/plain"}
        )
        assert text.status_code == 200, text.text
        assert "Paris" in text.text
        stream = await client.post("/prompts/say", json={"country": "France", "stream": True})
        assert stream.text.count('"delta"') > 3
        assert "event: done" in stream.text
        assert '"output_tokens":' in stream.text
        exact = await client.post("/prompts/capital", json={"country": "France"})
        assert exact.status_code == 200, exact.text
        assert list(exact.json()["output"]) == ["capital"]
