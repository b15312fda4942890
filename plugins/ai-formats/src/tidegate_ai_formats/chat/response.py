"""Whole answers, usage and errors, both ways."""

from __future__ import annotations

from typing import Any, Final

from tidegate_ai_formats.losses import STATUS, Failure, Losses, kind_of
from tidegate_ai_formats.model import (
    Candidate,
    Finish,
    FinishReason,
    Json,
    Response,
    Text,
    ToolCall,
    Usage,
)
from tidegate_ai_formats.wire import count, take_dict, take_int, take_list, take_str

from .dialects import FAMILY
from .messages import write_assistant
from .parts import parse_message

FINISH: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "model_length": "length",
    "error": "error",
    "insufficient_system_resource": "error",
    "eos": "stop",
    "stop_sequence": "stop_sequence",
    # words of other APIs, which servers in front of them let through
    "max_tokens": "length",
    "max_output_tokens": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "safety": "content_filter",
    "recitation": "content_filter",
    "blocklist": "content_filter",
    "prohibited_content": "content_filter",
    "refusal": "refusal",
}
_NATIVE: Final = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "pause": "stop",
    "error": "stop",
}


def parse_response(body: Json) -> Response:
    """A whole answer of any dialect."""
    choices = take_list(body, "choices")
    if choices is None:
        raise ValueError("an answer without choices")
    usage = take_dict(body, "usage")
    if body.get("object") == "chat.completion":
        del body["object"]
    return Response(
        FAMILY,
        take_str(body, "id"),
        take_str(body, "model"),
        [parse_choice(choice, n) for n, choice in enumerate(choices)],
        parse_usage(usage) if usage is not None else None,
        take_int(body, "created") or 0,
        body or None,
    )


def parse_choice(choice: Json, n: int) -> Candidate:
    """One of `choices`."""
    message = choice.get("message") or {}
    if message.get("role") == "assistant":
        del message["role"]
    parts = parse_message(message)
    if not message:
        choice.pop("message", None)
    logprobs = choice.get("logprobs")
    if isinstance(logprobs, dict) and logprobs.get("content"):
        text = next((part for part in parts if type(part) is Text), None)
        if text is not None:
            text.logprobs = logprobs.pop("content")
            if not logprobs:
                del choice["logprobs"]
    called = any(type(part) is ToolCall for part in parts)
    finish = parse_finish(take_str(choice, "finish_reason"), called=called)
    index = take_int(choice, "index")
    return Candidate(parts, finish, n if index is None else index, choice or None)


def parse_finish(word: str, *, called: bool = False) -> Finish | None:
    """Why it ended. `called`: a tool was called; with a tool that was required, some say `stop`."""
    if not word:
        return None
    reason = FINISH.get(word) or FINISH.get(word.lower(), "stop")
    return Finish("tool_calls" if called and reason == "stop" else reason, word)


def write_finish(finish: Finish | None, *, same: bool) -> str | None:
    """The word for it."""
    if finish is None:
        return None
    return finish.native if same and finish.native else _NATIVE[finish.reason]


def parse_usage(usage: Json) -> Usage:
    """Usage of any dialect: names differ, and whether thought counts as completion."""
    prompt = usage.get("prompt_tokens_details")
    completion = usage.get("completion_tokens_details")
    into = prompt if isinstance(prompt, dict) else None
    out_of = completion if isinstance(completion, dict) else None
    input = count(usage, "prompt_tokens")
    output = count(usage, "completion_tokens")
    reasoning = count(out_of, "reasoning_tokens") or count(usage, "reasoning_tokens")
    if reasoning and count(usage, "total_tokens") == input + output + reasoning:
        output += reasoning  # xAI counts thought beside the completion
    cached = count(into, "cached_tokens") or count(usage, "prompt_cache_hit_tokens")
    cached = cached or count(usage, "cached_tokens")
    return Usage(
        input,
        output,
        min(cached, input),  # some say more than there was
        count(into, "cache_write_tokens"),
        0,
        reasoning,
        count(into, "audio_tokens"),
        count(out_of, "audio_tokens"),
        FAMILY,
        usage,
    )


def write_usage(usage: Usage) -> Json:
    """Usage as OpenAI writes it."""
    if usage.family == FAMILY and usage.raw is not None:
        return usage.raw
    into: Json = {"cached_tokens": usage.cache_read, "audio_tokens": usage.audio_input}
    if usage.cache_write:
        into["cache_write_tokens"] = usage.cache_write
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": into,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.audio_output,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def write_response(response: Response, losses: Losses) -> Json:
    """A whole answer."""
    same = response.family == FAMILY
    out: Json = {
        "id": response.id,
        "object": "chat.completion",
        "created": response.created,
        "model": response.model,
        "choices": [write_choice(one, losses, same=same) for one in response.candidates],
    }
    if response.usage is not None:
        out["usage"] = write_usage(response.usage)
    if response.extras:
        if same:
            out |= response.extras
        else:
            losses.extras(response.extras)
    return out


def write_choice(candidate: Candidate, losses: Losses, *, same: bool) -> Json:
    """One of `choices`."""
    field = f"choices[{candidate.index}]"
    message = write_assistant(candidate.parts, losses, field, same=same)
    out: Json = {
        "index": candidate.index,
        "message": message,
        "finish_reason": write_finish(candidate.finish, same=same),
    }
    logprobs = next((p.logprobs for p in candidate.parts if type(p) is Text and p.logprobs), None)
    if logprobs:
        out["logprobs"] = {"content": logprobs, "refusal": None}
    if not same:
        message.setdefault("refusal", None)
        out.setdefault("logprobs", None)
        losses.extras(candidate.extras, field)
    elif candidate.extras:
        extras = dict(candidate.extras)
        message |= extras.pop("message", {})
        if logprobs and isinstance(extras.get("logprobs"), dict):
            out["logprobs"] = {"content": logprobs, **extras.pop("logprobs")}
        out |= extras
    return out


def parse_error(status: int, body: Any) -> Failure:
    """An error of any dialect: `{"error": {…}}`, `{"error": "…"}`, `{"detail": …}`, text."""
    if not isinstance(body, dict):
        text = body if isinstance(body, str) else ""
        return Failure(status, kind_of(status, text), text or f"status {status}", family=FAMILY)
    error = body.get("error")
    inner = error if isinstance(error, dict) else {}
    message = inner.get("message") or (error if isinstance(error, str) else "")
    if not message:
        said = body.get("message") or body.get("detail") or ""
        message = said if isinstance(said, str) else str(said)
    code = inner.get("code") if inner else body.get("code")
    kind = inner.get("type") or body.get("type") or ""
    code = str(code) if code is not None else ""
    return Failure(
        status,
        kind_of(status, code, str(kind), message),
        message or f"status {status}",
        code,
        inner.get("param"),
        family=FAMILY,
        raw=body,
    )


_TYPES: Final = {
    "authentication": ("invalid_request_error", "invalid_api_key"),
    "permission": ("invalid_request_error", "permission_denied"),
    "not_found": ("invalid_request_error", "model_not_found"),
    "context_length": ("invalid_request_error", "context_length_exceeded"),
    "rate_limit": ("requests", "rate_limit_exceeded"),
    "quota": ("insufficient_quota", "insufficient_quota"),
    "content_filter": ("invalid_request_error", "content_filter"),
    "overloaded": ("server_error", "overloaded"),
    "timeout": ("server_error", "timeout"),
    "server": ("server_error", None),
}


def write_error(failure: Failure) -> tuple[int, Json]:
    """Status and body. OpenAI's SDKs choose the exception by status, programs by `code`."""
    if failure.family == FAMILY and failure.raw is not None and "error" in failure.raw:
        return failure.status, failure.raw
    kind, code = _TYPES.get(failure.kind, ("invalid_request_error", failure.code or None))
    error = {"message": failure.message, "type": kind, "param": failure.param, "code": code}
    return _status(failure), {"error": error}


def _status(failure: Failure) -> int:
    """400 where a provider said so to a bad key; else its own status, if it is an error's."""
    if failure.kind in ("authentication", "context_length"):
        return STATUS[failure.kind]
    return 503 if failure.status == 529 else failure.status
