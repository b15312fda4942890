"""How providers of this format differ in what they take. Parsers take all dialects at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FAMILY: Final = "openai"

DETAIL_FORMATS: Final = {
    "anthropic-claude-v1": "anthropic",
    "google-gemini-v1": "gemini",
    "openai-responses-v1": "responses",
    "xai-responses-v1": "responses",
    "azure-openai-responses-v1": "responses",
}
"""Whose proof a `reasoning_details` entry holds (OpenRouter's words) → our origin."""
DETAIL_NAMES: Final = {
    "anthropic": "anthropic-claude-v1",
    "gemini": "google-gemini-v1",
    "responses": "openai-responses-v1",
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a provider's requests need. `openai` is the format itself."""

    name: str = "openai"
    max_tokens: str = "max_completion_tokens"
    seed: str | None = "seed"
    developer: bool = True
    """Whether the role `developer` is known; else it is sent as `system`."""
    stream_options: bool = True
    """Whether usage in streams has to be asked for, and may be."""
    thinking: str = "effort"
    """`effort`: reasoning_effort; `object`: OpenRouter's `reasoning`; `type`: `thinking`."""
    reasoning_field: str | None = None
    """The field in which thought goes back with the history; None: it doesn't."""
    required: str = "required"
    """The word of `tool_choice` for "call some tool"."""
    json_schema: bool = True
    strict_tools: bool = True
    top_k: bool = False
    parallel: bool = True
    cache: bool = False
    """Whether cache breakpoints are known; others refuse fields that they don't know."""


DIALECTS: Final = {
    dialect.name: dialect
    for dialect in (
        Dialect(),
        Dialect("generic", max_tokens="max_tokens", developer=False, top_k=True),
        Dialect("azure"),
        Dialect(
            "mistral",
            max_tokens="max_tokens",
            seed="random_seed",
            developer=False,
            stream_options=False,
            reasoning_field="content",
            required="any",
        ),
        Dialect(
            "deepseek",
            max_tokens="max_tokens",
            seed=None,
            developer=False,
            thinking="type",
            reasoning_field="reasoning_content",
            json_schema=False,
            strict_tools=False,
            parallel=False,
        ),
        Dialect("xai", reasoning_field="reasoning_content", developer=False),
        Dialect(
            "openrouter",
            max_tokens="max_tokens",
            developer=False,
            thinking="object",
            reasoning_field="details",
            top_k=True,
            cache=True,
        ),
        Dialect(
            "perplexity",
            max_tokens="max_tokens",
            seed=None,
            developer=False,
            stream_options=False,
            top_k=True,
        ),
        Dialect("groq", developer=False, reasoning_field="reasoning"),
        Dialect("ollama", max_tokens="max_tokens", developer=False, reasoning_field="reasoning"),
    )
}
