"""What a prompt costs: variables to a chat call, and the chat's answer to the output.

uv run pytest bench/test_ai_prompts.py -n 0 --benchmark-enable --benchmark-columns=min,median
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from tidegate_ai_prompts import AiPrompts, AiPromptsConfig

from tidegate.api import AddonContext, Exchange
from tidegate.testing.exchanges import make_answer, make_exchange

PROMPT = {
    "name": "summarise",
    "model": "smart",
    "system": "You summarise in {{ language }}, in {{ sentences }} sentences.",
    "user": "{{ text }}",
    "variables": {
        "text": {"max_length": 20000},
        "language": {"default": "English", "enum": ["English", "French"]},
        "sentences": {"type": "integer", "default": 2},
    },
    "output": {"schema": {"type": "object", "required": ["summary"]}},
}
ANSWER = orjson.dumps(
    {
        "model": "m",
        "choices": [{"index": 0, "message": {"content": '{"summary": "' + "word " * 150 + '"}'}}],
        "usage": {"prompt_tokens": 250, "completion_tokens": 150},
    }
)


def addon(folder: Path) -> AiPrompts:
    config = AiPromptsConfig.model_validate({"prompts": [PROMPT]})
    return AiPrompts(config, AddonContext("ai-prompts", folder))


def called() -> Exchange:
    body = {"text": "Some text to summarise. " * 40}
    return make_exchange("POST", "http://api.test/prompts/summarise", body=body)


def test_request(benchmark: Any, tmp_path: Path) -> None:
    prompts = addon(tmp_path)
    run = prompts.transform_request
    assert (
        benchmark.pedantic(run, setup=lambda: ((called(),), {}), rounds=2000, warmup_rounds=50)
        is None
    )


def test_response(benchmark: Any, tmp_path: Path) -> None:
    prompts = addon(tmp_path)

    def prepared() -> tuple[tuple[Exchange], dict[str, Any]]:
        exchange = called()
        prompts.transform_request(exchange)
        exchange.response = make_answer(200, ANSWER, {"content-type": "application/json"})
        return (exchange,), {}

    run = prompts.transform_response
    assert benchmark.pedantic(run, setup=prepared, rounds=2000, warmup_rounds=50) is None
