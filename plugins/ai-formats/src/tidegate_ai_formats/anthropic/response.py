"""Whole answers, usage and errors, both ways."""

from __future__ import annotations

from typing import Any, Final

from tidegate_ai_formats.losses import Failure, Losses, kind_of
from tidegate_ai_formats.model import (
    Candidate,
    Finish,
    FinishReason,
    Json,
    Part,
    Refusal,
    Response,
    Usage,
)
from tidegate_ai_formats.wire import count, take_dict, take_list, take_str

from .blocks import FAMILY, parse_block, write_answer

FINISH: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "max_tokens": "length",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "refusal",
    "model_context_window_exceeded": "length",
}
_NATIVE: Final = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refusal": "refusal",
    "pause": "pause_turn",
    "error": "end_turn",
}


def parse_response(body: Json) -> Response:
    """A whole answer."""
    content = take_list(body, "content")
    if content is None:
        raise ValueError("an answer without content")
    if body.get("type") == "message":
        del body["type"]
    if body.get("role") == "assistant":
        del body["role"]
    usage = take_dict(body, "usage")
    finish = take_finish(body)
    return Response(
        FAMILY,
        take_str(body, "id"),
        take_str(body, "model"),
        [Candidate([parse_block(block) for block in content], finish)],
        parse_usage(usage) if usage is not None else None,
        0,
        body or None,
    )


def take_finish(body: Json) -> Finish | None:
    """Why it ended, taken out of an answer or a `message_delta`."""
    word = take_str(body, "stop_reason")
    if not word:
        return None
    stop = take_str(body, "stop_sequence") if body.get("stop_sequence") else None
    return Finish(FINISH.get(word, "stop"), word, stop)


def parse_usage(usage: Json) -> Usage:
    """Usage. What was read from or written to the cache is not in `input_tokens` here."""
    read = count(usage, "cache_read_input_tokens")
    written = count(usage, "cache_creation_input_tokens")
    details = usage.get("output_tokens_details")
    creation = usage.get("cache_creation")
    return Usage(
        count(usage, "input_tokens") + read + written,
        count(usage, "output_tokens"),
        read,
        written,
        count(creation, "ephemeral_1h_input_tokens") if type(creation) is dict else 0,
        count(details, "thinking_tokens") if type(details) is dict else 0,
        family=FAMILY,
        raw=usage,
    )


def write_usage(usage: Usage | None) -> Json:
    """Usage as Anthropic writes it."""
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    if usage.family == FAMILY and usage.raw is not None:
        return usage.raw
    out: Json = {
        "input_tokens": max(0, usage.input - usage.cache_read - usage.cache_write),
        "output_tokens": usage.output,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
    }
    if usage.cache_write_1h:
        short = usage.cache_write - usage.cache_write_1h
        out["cache_creation"] = {
            "ephemeral_5m_input_tokens": short,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        }
    if usage.reasoning:
        out["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return out


def write_finish(finish: Finish | None, *, same: bool, refused: bool = False) -> str | None:
    """The word for why it ended; `refused`: the model has declined in words."""
    if finish is None:
        return None
    if refused and finish.reason == "stop":
        return "refusal"  # those words are text here: this alone tells what they are
    if same and finish.native:
        return finish.native
    if finish.reason == "stop_sequence" and finish.stop is None:
        return "end_turn"  # without the sequence the word would promise too much
    return _NATIVE[finish.reason]


def _declines(parts: list[Part]) -> bool:
    return Refusal in map(type, parts)


def write_response(response: Response, losses: Losses) -> Json:
    """A whole answer. It has one candidate; others are lost."""
    same = response.family == FAMILY
    one = response.candidates[0] if response.candidates else Candidate([])
    for other in response.candidates[1:]:
        losses.drop(f"choices[{other.index}]", "there is one answer here")
    finish = one.finish
    out: Json = {
        "id": response.id,
        "type": "message",
        "role": "assistant",
        "model": response.model,
        "content": write_answer(one.parts, losses, same=same),
        "stop_reason": write_finish(finish, same=same, refused=_declines(one.parts)),
        "stop_sequence": finish.stop if finish else None,
        "usage": write_usage(response.usage),
    }
    if same:
        if response.extras:
            out |= response.extras
    else:
        losses.extras(response.extras)
        losses.extras(one.extras, f"choices[{one.index}]")
    return out


_TYPES: Final = {
    "invalid_request": (400, "invalid_request_error"),
    "context_length": (400, "invalid_request_error"),
    "content_filter": (400, "invalid_request_error"),
    "conflict": (409, "invalid_request_error"),
    "authentication": (401, "authentication_error"),
    "permission": (403, "permission_error"),
    "not_found": (404, "not_found_error"),
    "too_large": (413, "request_too_large"),
    "rate_limit": (429, "rate_limit_error"),
    "quota": (429, "rate_limit_error"),
    "overloaded": (529, "overloaded_error"),
    "timeout": (504, "timeout_error"),
    "server": (500, "api_error"),
}
_KINDS: Final = {
    "invalid_request_error": ("invalid_request", 400),
    "authentication_error": ("authentication", 401),
    "billing_error": ("quota", 402),
    "permission_error": ("permission", 403),
    "not_found_error": ("not_found", 404),
    "request_too_large": ("too_large", 413),
    "rate_limit_error": ("rate_limit", 429),
    "timeout_error": ("timeout", 504),
    "overloaded_error": ("overloaded", 529),
    "api_error": ("server", 500),
}


def parse_error(status: int, body: Any) -> Failure:
    """An error. Those in a stream come without a status: the type has one."""
    if not isinstance(body, dict):
        text = body if isinstance(body, str) else ""
        return Failure(status, kind_of(status, text), text or f"status {status}", family=FAMILY)
    error = body.get("error")
    inner = error if isinstance(error, dict) else {}
    type_ = inner.get("type") or ""
    message = inner.get("message") or body.get("message") or f"status {status}"
    kind, own_status = _KINDS.get(type_, ("", 0))
    if not status:
        status = own_status or 500
    said = kind_of(status, message)
    if said in ("context_length", "content_filter") or not kind:
        kind = said
    return Failure(
        status,
        kind,
        message,
        type_,
        request_id=body.get("request_id") or "",
        family=FAMILY,
        raw=body,
    )


def write_error(failure: Failure) -> tuple[int, Json]:
    """Status and body: Anthropic's SDKs choose the exception by status, programs by type."""
    if failure.family == FAMILY and failure.raw is not None:
        return failure.status, failure.raw
    status, kind = _TYPES.get(failure.kind, (500, "api_error"))
    if failure.kind == "server" and failure.status > 500:
        status = failure.status
    error = {"type": kind, "message": failure.message}
    return status, {"type": "error", "error": error, "request_id": failure.request_id or None}
