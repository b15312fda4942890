"""Whole answers, usage and errors, both ways."""

from __future__ import annotations

from typing import Any, Final

from tidegate_ai_formats.losses import STATUS, Failure, Losses, kind_of
from tidegate_ai_formats.model import Candidate, Finish, FinishReason, Json, Response, Usage
from tidegate_ai_formats.wire import count, take_dict, take_str

from .parts import FAMILY, parse_message, write_message

FINISH: Final[dict[str, FinishReason]] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop_sequence",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR": "error",
    "TIMEOUT": "error",
    "ERROR_TOXIC": "content_filter",
}
_NATIVE: Final = {
    "stop": "COMPLETE",
    "stop_sequence": "STOP_SEQUENCE",
    "length": "MAX_TOKENS",
    "tool_calls": "TOOL_CALL",
    "content_filter": "ERROR",
    "refusal": "COMPLETE",
    "pause": "COMPLETE",
    "error": "ERROR",
}


def parse_response(body: Json) -> Response:
    """A whole answer. It does not name its model."""
    message = body.get("message")
    if not isinstance(message, dict):
        raise ValueError("an answer without a message")
    parts = parse_message(message)
    if message.get("role") == "assistant":
        del message["role"]
    if not message:
        del body["message"]
    usage = take_dict(body, "usage")
    return Response(
        FAMILY,
        take_str(body, "id"),
        take_str(body, "model"),
        [Candidate(parts, parse_finish(take_str(body, "finish_reason")))],
        parse_usage(usage) if usage is not None else None,
        0,
        body or None,
    )


def parse_finish(word: str) -> Finish | None:
    """Why it ended."""
    return Finish(FINISH.get(word, "stop"), word) if word else None


def write_finish(finish: Finish | None, *, same: bool) -> str:
    """The word for why it ended."""
    if finish is None:
        return "COMPLETE"
    return finish.native if same and finish.native else _NATIVE[finish.reason]


def parse_usage(usage: Json) -> Usage:
    """Usage: the tokens that the model saw; what is billed stands beside them."""
    tokens = usage.get("tokens")
    if not isinstance(tokens, dict):
        tokens = usage.get("billed_units")
    tokens = tokens if isinstance(tokens, dict) else {}
    return Usage(
        _count(tokens, "input_tokens") + _count(tokens, "image_tokens"),
        _count(tokens, "output_tokens"),
        _count(usage, "cached_tokens"),
        reasoning=_count(tokens, "reasoning_tokens"),
        family=FAMILY,
        raw=usage,
    )


def _count(obj: Json, key: str) -> int:
    """Cohere's schema has numbers of tokens as floats."""
    value = obj.get(key)
    return int(value) if isinstance(value, float) else count(obj, key)


def write_usage(usage: Usage | None) -> Json:
    """Usage as Cohere writes it."""
    if usage is None:
        return {}
    if usage.family == FAMILY and usage.raw is not None:
        return usage.raw
    tokens: Json = {"input_tokens": usage.input, "output_tokens": usage.output}
    if usage.reasoning:
        tokens["reasoning_tokens"] = usage.reasoning
    billed = {"input_tokens": usage.input, "output_tokens": usage.output}
    return {"billed_units": billed, "tokens": tokens, "cached_tokens": usage.cache_read}


def write_response(response: Response, losses: Losses) -> Json:
    """A whole answer. It has one candidate; others are lost."""
    same = response.family == FAMILY
    one = response.candidates[0] if response.candidates else Candidate([])
    for other in response.candidates[1:]:
        losses.drop(f"choices[{other.index}]", "there is one answer here")
    message = write_message(one.parts, losses, "content", same=same)
    out: Json = {
        "id": response.id,
        "finish_reason": write_finish(one.finish, same=same),
        "message": message,
        "usage": write_usage(response.usage),
    }
    if response.model and same:
        out["model"] = response.model
    if response.usage is None:
        del out["usage"]
    if same:
        extras = dict(response.extras or {})
        message |= extras.pop("message", {})
        out |= extras
    else:
        losses.extras(response.extras)
        losses.extras(one.extras, f"choices[{one.index}]")
    return out


def parse_error(status: int, body: Any) -> Failure:
    """An error: `{"message": …, "id": …}`."""
    if not isinstance(body, dict):
        text = body if isinstance(body, str) else ""
        return Failure(status, kind_of(status, text), text or f"status {status}", family=FAMILY)
    message = body.get("message") or f"status {status}"
    code = str(body.get("error_type") or "")
    kind = kind_of(status, code, message)
    return Failure(status, kind, message, code, None, body.get("id") or "", FAMILY, body)


def write_error(failure: Failure) -> tuple[int, Json]:
    """Status and body: Cohere's SDKs choose the exception by status."""
    if failure.family == FAMILY and failure.raw is not None:
        return failure.status, failure.raw
    out: Json = {"message": failure.message}
    if failure.request_id:
        out["id"] = failure.request_id
    return STATUS.get(failure.kind, failure.status), out
