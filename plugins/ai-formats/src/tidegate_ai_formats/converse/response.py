"""Whole answers, usage and errors, both ways."""

from __future__ import annotations

from typing import Any, Final

from tidegate_ai_formats.losses import STATUS, Failure, Losses, kind_of
from tidegate_ai_formats.model import Candidate, Finish, FinishReason, Json, Response, Usage
from tidegate_ai_formats.wire import count, take_dict, take_list, take_str

from .blocks import FAMILY, BlockWriter, merge, parse_blocks

FINISH: Final[dict[str, FinishReason]] = {
    "end_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "stop_sequence": "stop_sequence",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
    "model_context_window_exceeded": "length",
}
_NATIVE: Final = {
    "stop": "end_turn",
    "tool_calls": "tool_use",
    "length": "max_tokens",
    "stop_sequence": "stop_sequence",
    "content_filter": "content_filtered",
    "refusal": "content_filtered",
    "pause": "end_turn",
    "error": "malformed_model_output",
}


def parse_response(body: Json) -> Response:
    """A whole answer. It has neither id nor model."""
    output = body.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    if not isinstance(message, dict):
        raise ValueError("an answer without a message")
    parts = parse_blocks(take_list(message, "content") or ())
    if message.get("role") == "assistant":
        del message["role"]
    assert isinstance(output, dict)
    if not message:
        del output["message"]
    if not output:
        del body["output"]
    word = take_str(body, "stopReason")
    finish = Finish(FINISH.get(word, "stop"), word) if word else None
    usage = take_dict(body, "usage")
    return Response(
        FAMILY,
        "",
        "",
        [Candidate(parts, finish)],
        parse_usage(usage) if usage is not None else None,
        0,
        body or None,
    )


def parse_usage(usage: Json) -> Usage:
    """Usage: what was read from or written to the cache stands beside the input."""
    read = count(usage, "cacheReadInputTokens")
    written = count(usage, "cacheWriteInputTokens")
    details = usage.get("cacheDetails")
    long = 0
    if type(details) is list:
        long = sum(count(one, "inputTokens") for one in details if one.get("ttl") == "1h")
    return Usage(
        count(usage, "inputTokens") + read + written,
        count(usage, "outputTokens"),
        read,
        written,
        long,
        family=FAMILY,
        raw=usage,
    )


def write_usage(usage: Usage) -> Json:
    """Usage as Bedrock writes it."""
    if usage.family == FAMILY and usage.raw is not None:
        return usage.raw
    out: Json = {
        "inputTokens": max(0, usage.input - usage.cache_read - usage.cache_write),
        "outputTokens": usage.output,
        "totalTokens": usage.total,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write,
    }
    if usage.cache_write_1h:
        short = usage.cache_write - usage.cache_write_1h
        out["cacheDetails"] = [{"ttl": "1h", "inputTokens": usage.cache_write_1h}]
        if short:
            out["cacheDetails"].append({"ttl": "5m", "inputTokens": short})
    return out


def write_finish(finish: Finish | None, *, same: bool) -> str:
    """The word for why it ended."""
    if finish is None:
        return "end_turn"
    return finish.native if same and finish.native else _NATIVE[finish.reason]


def write_response(response: Response, losses: Losses) -> Json:
    """A whole answer. It has one candidate; others are lost."""
    same = response.family == FAMILY
    one = response.candidates[0] if response.candidates else Candidate([])
    for other in response.candidates[1:]:
        losses.drop(f"choices[{other.index}]", "there is one answer here")
    writer = BlockWriter(losses, same=same, request=False)
    message = {"role": "assistant", "content": writer.all(one.parts, "content")}
    out: Json = {
        "output": {"message": message},
        "stopReason": write_finish(one.finish, same=same),
        "metrics": {"latencyMs": 0},
        "usage": write_usage(response.usage or Usage()),
    }
    if same:
        if response.extras:
            merge(out, response.extras)
    else:
        losses.extras(response.extras)
        losses.extras(one.extras, f"choices[{one.index}]")
    return out


_TYPES: Final = {
    "authentication": (403, "UnrecognizedClientException"),
    "permission": (403, "AccessDeniedException"),
    "not_found": (404, "ResourceNotFoundException"),
    "rate_limit": (429, "ThrottlingException"),
    "quota": (429, "ServiceQuotaExceededException"),
    "overloaded": (503, "ServiceUnavailableException"),
    "timeout": (408, "ModelTimeoutException"),
    "server": (500, "InternalServerException"),
}


def parse_error(status: int, body: Any) -> Failure:
    """An error: `{"message": …}`; its name stands in a header, or in `__type`."""
    if not isinstance(body, dict):
        text = body if isinstance(body, str) else ""
        return Failure(status, kind_of(status, text), text or f"status {status}", family=FAMILY)
    message = body.get("message") or body.get("Message") or f"status {status}"
    name = str(body.get("__type") or "").rpartition("#")[2]
    kind = kind_of(status, message)
    if "security token" in message.lower() or name == "UnrecognizedClientException":
        kind = "authentication"
    return Failure(status, kind, message, name, family=FAMILY, raw=body)


def write_error(failure: Failure) -> tuple[int, Json]:
    """Status and body: the AWS SDKs choose the exception by `__type`."""
    if failure.family == FAMILY and failure.raw is not None:
        return failure.status, failure.raw
    status, name = _TYPES.get(failure.kind, (400, "ValidationException"))
    return status, {"message": failure.message, "__type": name}


def stream_failure(name: str, body: Json) -> Failure:
    """An exception within a stream, such as `throttlingException`."""
    known = name[:1].upper() + name[1:]
    for kind, (status, type_) in _TYPES.items():
        if type_ == known:
            return Failure(status, kind, body.get("message") or name, known, family=FAMILY)
    kind = "server" if "rror" in name else "invalid_request"
    status = body.get("originalStatusCode") or STATUS[kind]
    return Failure(status, kind, body.get("message") or name, known, family=FAMILY)
