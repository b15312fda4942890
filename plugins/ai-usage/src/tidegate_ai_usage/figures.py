"""What a provider says that it used, in any of the shapes in which providers say it.

The shape is told by its keys, not by the host or the path: proxies, dialects and models that one
provider serves in the format of another (Bedrock's InvokeModel, Vertex AI) need nothing of their
own. No I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

type Json = dict[str, Any]


@dataclass(slots=True)
class Usage:
    """Tokens (an `AiUsage`). `input` counts cached ones too, `output` those of thought too."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    billed: tuple[int, int] | None = None
    """Input and output that are billed, where the provider tells them apart (Cohere)."""
    searches: int = 0
    """Searches of the web that the provider made for the call."""
    cost: Decimal | None = None
    """US dollars, where the provider says them itself (OpenRouter, Perplexity)."""
    tier: str = ""
    """How the provider served the call: flex, priority, batch; "" is the usual way."""


COUNTS: Final = frozenset(
    (
        "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens",
        "promptTokenCount", "totalTokenCount", "inputTokens", "outputTokens", "billed_units",
        "tokens", "inputTokenCount", "outputTokenCount", "prompt_eval_count", "eval_count",
    )
)  # fmt: skip
"""One of these is in every usage object."""
BESIDES: Final = frozenset(
    (
        "billed_units", "cost", "cost_in_usd_ticks", "num_search_queries", "num_sources_used",
        "server_tool_use", "serviceTier", "service_tier",
    )
)  # fmt: skip
"""Where none of these is in a usage object, it says nothing besides its tokens."""
_WRAPPERS: Final = ("response", "message", "delta", "x_groq", "metadata")
_TICKS: Final = Decimal(10) ** -10
"""xAI counts money in these."""


def find(value: Json) -> Json | None:
    """The usage object in an answer, or in an event of a stream; None: it says none."""
    usage = value.get("usage") or value.get("usageMetadata")
    if type(usage) is dict:
        return usage
    for key in _WRAPPERS:
        inner = value.get(key)
        if type(inner) is dict:
            usage = inner.get("usage") or inner.get("usageMetadata")
            if type(usage) is dict:
                return usage
    if "prompt_eval_count" in value or "eval_count" in value:
        return {key: value.get(key) for key in ("prompt_eval_count", "eval_count")}
    meta = value.get("meta")
    if type(meta) is dict and ("billed_units" in meta or "tokens" in meta):
        return meta
    metrics = value.get("amazon-bedrock-invocationMetrics")
    if type(metrics) is dict:
        return metrics
    if "inputTextTokenCount" in value:
        return {"inputTokenCount": value["inputTextTokenCount"]}
    return _predictions(value)


def _predictions(value: Json) -> Json | None:
    """Vertex AI's embeddings say the tokens of each text."""
    predictions = value.get("predictions")
    if type(predictions) is not list:
        return None
    total = 0
    for one in predictions:
        embeddings = one.get("embeddings") if type(one) is dict else None
        statistics = embeddings.get("statistics") if type(embeddings) is dict else None
        total += number(statistics, "token_count")
    return {"prompt_tokens": total} if total else None


def number(value: Any, key: str) -> int:
    """The number of tokens that an object says under `key`; 0 where it says none."""
    found = value.get(key) if type(value) is dict else None
    if type(found) is int:
        return found if found > 0 else 0
    return int(found) if type(found) is float and 0 <= found < 1e15 else 0


def usage_of(raw: Json) -> Usage:
    """The figures of a usage object, or of those of a stream's events, merged."""
    if "prompt_tokens" in raw or "completion_tokens" in raw:
        usage = _chat(raw)
    elif "input_tokens" in raw or "output_tokens" in raw:
        usage = _responses(raw) if _is_responses(raw) else _anthropic(raw)
    elif "promptTokenCount" in raw or "totalTokenCount" in raw:
        usage = _gemini(raw)
    elif "inputTokens" in raw or "outputTokens" in raw:
        usage = _converse(raw)
    elif "billed_units" in raw or "tokens" in raw:
        usage = _cohere(raw)
    elif "inputTokenCount" in raw:
        usage = _invocation(raw)
    else:
        usage = Usage(number(raw, "prompt_eval_count"), number(raw, "eval_count"))
        usage.input = usage.input or number(raw, "total_tokens")  # embeddings, rerank
    usage.cache_read = min(usage.cache_read, usage.input)  # some say more than there was
    usage.cost = _cost(raw)
    tier = raw.get("service_tier") or raw.get("serviceTier") or ""
    usage.tier = tier if type(tier) is str and tier not in ("default", "standard", "auto") else ""
    return usage


def _chat(raw: Json) -> Usage:
    into, out_of = raw.get("prompt_tokens_details"), raw.get("completion_tokens_details")
    usage = Usage(number(raw, "prompt_tokens"), number(raw, "completion_tokens"))
    if type(out_of) is dict:
        usage.reasoning = number(out_of, "reasoning_tokens")
        usage.audio_output = number(out_of, "audio_tokens")
    usage.reasoning = usage.reasoning or number(raw, "reasoning_tokens")
    if usage.reasoning:
        beside = usage.input + usage.output + usage.reasoning
        if number(raw, "total_tokens") == beside:
            usage.output += usage.reasoning  # xAI counts thought beside the completion
    if type(into) is dict:
        usage.cache_read = number(into, "cached_tokens")
        usage.cache_write = number(into, "cache_write_tokens")
        usage.audio_input = number(into, "audio_tokens")
    if not usage.cache_read:
        usage.cache_read = number(raw, "prompt_cache_hit_tokens") or number(raw, "cached_tokens")
    usage.searches = number(raw, "num_search_queries") or number(raw, "num_sources_used")
    return usage


def _is_responses(raw: Json) -> bool:
    """OpenAI's Responses, images and transcription: what is cached is part of the input."""
    if "cache_read_input_tokens" in raw or "cache_creation_input_tokens" in raw:
        return False
    return "input_tokens_details" in raw or "total_tokens" in raw or "input_token_details" in raw


def _responses(raw: Json) -> Usage:
    into = raw.get("input_tokens_details") or raw.get("input_token_details")
    out_of = raw.get("output_tokens_details") or raw.get("output_token_details")
    return Usage(
        number(raw, "input_tokens"),
        number(raw, "output_tokens"),
        number(into, "cached_tokens"),
        number(into, "cache_write_tokens"),
        reasoning=number(out_of, "reasoning_tokens"),
        audio_input=number(into, "audio_tokens"),
        audio_output=number(out_of, "audio_tokens"),
    )


def _anthropic(raw: Json) -> Usage:
    read = number(raw, "cache_read_input_tokens")
    written = number(raw, "cache_creation_input_tokens")
    return Usage(
        number(raw, "input_tokens") + read + written,
        number(raw, "output_tokens"),
        read,
        written,
        number(raw.get("cache_creation"), "ephemeral_1h_input_tokens"),
        number(raw.get("output_tokens_details"), "thinking_tokens"),
        searches=number(raw.get("server_tool_use"), "web_search_requests"),
    )


def _gemini(raw: Json) -> Usage:
    thoughts = number(raw, "thoughtsTokenCount")
    return Usage(
        number(raw, "promptTokenCount") + number(raw, "toolUsePromptTokenCount"),
        number(raw, "candidatesTokenCount") + thoughts,
        number(raw, "cachedContentTokenCount"),
        reasoning=thoughts,
        audio_input=_modality(raw.get("promptTokensDetails"), "AUDIO"),
        audio_output=_modality(raw.get("candidatesTokensDetails"), "AUDIO"),
    )


def _modality(details: Any, name: str) -> int:
    if type(details) is not list:
        return 0
    named = [d for d in details if type(d) is dict and d.get("modality") == name]
    return sum(number(one, "tokenCount") for one in named)


def _converse(raw: Json) -> Usage:
    read, written = number(raw, "cacheReadInputTokens"), number(raw, "cacheWriteInputTokens")
    details = raw.get("cacheDetails")
    long = 0
    if type(details) is list:
        hours = [d for d in details if type(d) is dict and d.get("ttl") == "1h"]
        long = sum(number(one, "inputTokens") for one in hours)
    into, out_of = number(raw, "inputTokens"), number(raw, "outputTokens")
    return Usage(into + read + written, out_of, read, written, long)


def _cohere(raw: Json) -> Usage:
    billed = raw.get("billed_units")
    tokens = raw.get("tokens")
    tokens = tokens if type(tokens) is dict else billed
    usage = Usage(
        number(tokens, "input_tokens") + number(tokens, "image_tokens"),
        number(tokens, "output_tokens"),
        number(raw, "cached_tokens"),
        reasoning=number(tokens, "reasoning_tokens"),
    )
    if type(billed) is dict:
        usage.billed = number(billed, "input_tokens"), number(billed, "output_tokens")
        usage.searches = number(billed, "search_units")
    return usage


def _invocation(raw: Json) -> Usage:
    read, written = (
        number(raw, "cacheReadInputTokenCount"),
        number(raw, "cacheWriteInputTokenCount"),
    )
    into, out_of = number(raw, "inputTokenCount"), number(raw, "outputTokenCount")
    return Usage(into + read + written, out_of, read, written)


def _cost(raw: Json) -> Decimal | None:
    """What the provider itself says that the call cost."""
    cost = raw.get("cost")
    if type(cost) is dict:
        cost = cost.get("total_cost")
    if type(cost) in (int, float):
        return Decimal(str(cost))
    ticks = raw.get("cost_in_usd_ticks")
    return ticks * _TICKS if type(ticks) is int else None
