"""Whole answers and usage, both ways. Errors are those of Chat Completions."""

from __future__ import annotations

from typing import Any, Final

from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import (
    Candidate,
    Finish,
    Json,
    Part,
    Request,
    Response,
    ToolCall,
    Usage,
)
from tidegate_ai_formats.wire import count, take_int, take_list, take_str

from .items import FAMILY, ItemWriter, parse_item
from .request import write_format, write_tools

_REASONS: Final = {"max_output_tokens": "length", "content_filter": "content_filter"}
_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


def parse_response(body: Json) -> Response:
    """A whole answer."""
    items = take_list(body, "output")
    if items is None:
        raise ValueError("an answer without output")
    if body.get("object") == "response":
        del body["object"]
    parts = [part for item in items for part in parse_item(item)]
    usage = body.get("usage")
    if isinstance(usage, dict):
        del body["usage"]
    else:
        usage = None
    finish = take_finish(body, parts)
    return Response(
        FAMILY,
        take_str(body, "id"),
        take_str(body, "model"),
        [Candidate(parts, finish)],
        parse_usage(usage) if usage is not None else None,
        take_int(body, "created_at") or 0,
        body or None,
    )


def take_finish(body: Json, parts: list[Part]) -> Finish | None:
    """Why it ended: its status, and why it is incomplete; the latter stays in the extras."""
    status = take_str(body, "status")
    if not status or status in ("in_progress", "queued"):
        if status:
            body["status"] = status
        return None
    if status == "completed":
        called = any(type(part) is ToolCall for part in parts)
        return Finish("tool_calls" if called else "stop", status)
    details = body.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return Finish(_REASONS.get(reason or "", "error"), status)  # type: ignore[arg-type]


def parse_usage(usage: Json) -> Usage:
    """Usage."""
    into, out_of = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    into = into if isinstance(into, dict) else None
    out_of = out_of if isinstance(out_of, dict) else None
    return Usage(
        count(usage, "input_tokens"),
        count(usage, "output_tokens"),
        count(into, "cached_tokens"),
        count(into, "cache_write_tokens"),
        0,
        count(out_of, "reasoning_tokens"),
        count(into, "audio_tokens"),
        count(out_of, "audio_tokens"),
        FAMILY,
        usage,
    )


def write_usage(usage: Usage) -> Json:
    """Usage as OpenAI writes it here."""
    if usage.family == FAMILY and usage.raw is not None:
        return usage.raw
    into = {"cached_tokens": usage.cache_read, "cache_write_tokens": usage.cache_write}
    out_of = {"reasoning_tokens": usage.reasoning}
    if usage.audio_input:
        into["audio_tokens"] = usage.audio_input
    if usage.audio_output:
        out_of["audio_tokens"] = usage.audio_output
    return {
        "input_tokens": usage.input,
        "input_tokens_details": into,
        "output_tokens": usage.output,
        "output_tokens_details": out_of,
        "total_tokens": usage.input + usage.output,
    }


def write_response(response: Response, losses: Losses, request: Request | None) -> Json:
    """A whole answer. It has one candidate; others are lost."""
    same = response.family == FAMILY
    one = response.candidates[0] if response.candidates else Candidate([])
    for other in response.candidates[1:]:
        losses.drop(f"choices[{other.index}]", "there is one answer here")
    writer = ItemWriter(losses, same=same, request=False, seed=response.id)
    output = writer.all(one.parts, "output")
    if not same:
        losses.extras(response.extras)
        losses.extras(one.extras, f"choices[{one.index}]")
    return envelope(
        response.id,
        response.model,
        response.created,
        output,
        one.finish,
        response.usage,
        response.extras if same else echo(request),
        same=same,
    )


def envelope(
    id: str,
    model: str,
    created: int,
    output: list[Json],
    finish: Finish | None,
    usage: Usage | None,
    rest: Json | None,
    *,
    same: bool,
) -> Json:
    """The object of an answer. `finish` None: it is in progress."""
    out: Json = {"id": id, "object": "response", "created_at": created, "model": model}
    if finish is None:
        out["status"] = "in_progress"
    elif same and finish.native:
        out["status"] = finish.native
    else:
        reason = _INCOMPLETE.get(finish.reason)
        out["status"] = "incomplete" if reason else "completed"
        out["incomplete_details"] = {"reason": reason} if reason else None
    out["output"] = output
    if usage is not None:
        out["usage"] = write_usage(usage)
    return {**rest, **out} if rest else out


def echo(request: Request | None) -> Json:
    """What an answer repeats of its request."""
    out: Json = {
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": None,
        "user": None,
    }
    if request is None:
        return out
    values: dict[str, Any] = {
        "max_output_tokens": request.max_tokens,
        "metadata": request.metadata,
        "parallel_tool_calls": request.parallel_tools,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "user": request.user,
    }
    out |= {key: value for key, value in values.items() if value is not None}
    if request.tools:
        out["tools"] = write_tools(request.tools, Losses(), same=request.family == FAMILY)
    choice = request.tool_choice
    if choice is not None:
        named = {"type": "function", "name": choice.name}
        out["tool_choice"] = named if choice.mode == "named" else choice.mode
    if request.output is not None:
        out["text"] = {"format": write_format(request.output)}
    if request.thinking is not None:
        thinking = request.thinking
        out["reasoning"] = {"effort": thinking.effort, "summary": thinking.summary}
    return out
