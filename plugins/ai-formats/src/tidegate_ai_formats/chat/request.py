"""Requests, both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tidegate_ai_formats.losses import InvalidRequest, Losses, take_role
from tidegate_ai_formats.model import (
    Json,
    Message,
    OutputFormat,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
)
from tidegate_ai_formats.wire import (
    merged,
    take_bool,
    take_dict,
    take_int,
    take_list,
    take_number,
    take_str,
)

from .dialects import FAMILY, Dialect
from .messages import CACHED, ConversationWriter
from .parts import parse_call, parse_message, parse_part


def parse_request(body: Json) -> Request:
    """A request of any dialect."""
    messages = take_list(body, "messages")
    if messages is None:
        raise InvalidRequest("messages", "is required, and is an array")
    request = Request(
        FAMILY,
        take_str(body, "model"),
        [parse_one(message, n) for n, message in enumerate(messages)],
    )
    for key in [key for key in body if key in _PLAIN]:
        name, take = _PLAIN[key]
        value = take(body, key)
        if value is not None and value != "":
            setattr(request, name, value)
    if request.max_tokens is None:
        request.max_tokens = take_int(body, "max_tokens")
    if request.seed is None:
        request.seed = take_int(body, "random_seed")
    if body:
        _parse_rest(request, body)
    return request


def _parse_rest(request: Request, body: Json) -> None:
    """What has a form of its own, and what stays in the body: the extras."""
    stop = body.get("stop")
    if isinstance(stop, str):
        request.stop = [body.pop("stop")]
    elif isinstance(stop, list):
        request.stop = body.pop("stop")
    _parse_tools(request, body)
    _parse_output(request, body)
    _parse_thinking(request, body)
    if options := take_dict(body, "stream_options"):
        request.stream_usage = take_bool(options, "include_usage") or False
        if options:
            body["stream_options"] = options
    request.extras = body or None


_PLAIN: Final[dict[str, tuple[str, Callable[[Json, str], Any]]]] = {
    "stream": ("stream", take_bool),
    "max_completion_tokens": ("max_tokens", take_int),
    "temperature": ("temperature", take_number),
    "top_p": ("top_p", take_number),
    "top_k": ("top_k", take_int),
    "seed": ("seed", take_int),
    "n": ("n", take_int),
    "frequency_penalty": ("frequency_penalty", take_number),
    "presence_penalty": ("presence_penalty", take_number),
    "logprobs": ("logprobs", take_bool),
    "top_logprobs": ("top_logprobs", take_int),
    "parallel_tool_calls": ("parallel_tools", take_bool),
    "metadata": ("metadata", take_dict),
    "service_tier": ("service_tier", take_str),
    "user": ("user", take_str),
}
"""Fields that mean what they say: their names in a `Request`. Most requests have few of them."""


def parse_one(message: Any, n: int) -> Message:
    """The message at place `n`."""
    if not isinstance(message, dict):
        raise InvalidRequest(f"messages[{n}]", "is not an object")
    role = take_role(message, f"messages[{n}]")
    name = take_str(message, "name")
    if role == "assistant":
        parts = parse_message(message)
        return Message(role, parts, name, message or None)
    content = message.pop("content", None)
    if content is None:
        parts = []
    elif isinstance(content, str):
        parts = [Text(content)]
    elif isinstance(content, list):
        parts = [parse_part(part) for part in content]
    else:
        raise InvalidRequest(f"messages[{n}].content", "is neither a string nor an array")
    if role == "tool":
        result = ToolResult(take_str(message, "tool_call_id"), parts, name, extras=message or None)
        return Message(role, [result])
    return Message(role, parts, name, message or None)


def _parse_tools(request: Request, body: Json) -> None:
    for tool in take_list(body, "tools") or ():
        if not isinstance(tool, dict):
            raise InvalidRequest("tools", "holds what is not an object")
        request.tools.append(parse_tool(tool))
    choice = body.get("tool_choice")
    if choice in ("auto", "none", "required"):
        request.tool_choice = ToolChoice(body.pop("tool_choice"))
    elif choice == "any":
        request.tool_choice = ToolChoice("required")
        del body["tool_choice"]
    elif isinstance(choice, dict):
        inner = choice.get(choice.get("type") or "function")
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            request.tool_choice = ToolChoice("named", inner["name"])
            del body["tool_choice"]


def parse_tool(tool: Json) -> Tool:
    """One entry of `tools`."""
    kind = tool.get("type")
    cache = take_dict(tool, "cache_control")
    if kind == "function" and isinstance(tool.get("function"), dict):
        function = tool.pop("function")
        del tool["type"]
        out = Tool(take_str(function, "name"), cache=cache)
        if isinstance(function.get("description"), str):
            out.description = function.pop("description")
        out.schema = take_dict(function, "parameters")
        out.strict = take_bool(function, "strict")
        if function:
            tool["function"] = function
        out.extras = tool or None
        return out
    if kind == "custom" and isinstance(tool.get("custom"), dict):
        custom = tool["custom"]
        out = Tool(take_str(custom, "name"), custom=True, extras=tool)
        if isinstance(custom.get("description"), str):
            out.description = custom.pop("description")
        return out
    return Tool(str(kind), builtin=True, cache=cache, extras=tool)


def _parse_output(request: Request, body: Json) -> None:
    form = body.get("response_format")
    if not isinstance(form, dict):
        return
    del body["response_format"]
    kind = form.pop("type", None)
    if kind == "json_schema" and isinstance(form.get("json_schema"), dict):
        schema = form.pop("json_schema")
        request.output = OutputFormat(
            "schema",
            take_dict(schema, "schema"),
            take_str(schema, "name"),
            take_str(schema, "description") or None,
            take_bool(schema, "strict"),
            schema or None,
        )
    elif kind == "json_object":
        request.output = OutputFormat("json", take_dict(form, "schema"))
    elif kind == "text":
        request.output = OutputFormat("text")
    if form or request.output is None:
        body["response_format"] = {"type": kind, **form}
        request.output = None


_THOUGHT: Final = frozenset(("reasoning_effort", "reasoning", "thinking"))


def _parse_thinking(request: Request, body: Json) -> None:
    if _THOUGHT.isdisjoint(body):
        return
    thinking = Thinking()
    if effort := take_str(body, "reasoning_effort"):
        thinking.effort = effort
    if reasoning := take_dict(body, "reasoning"):
        thinking.effort = take_str(reasoning, "effort") or thinking.effort
        thinking.budget = take_int(reasoning, "max_tokens")
        thinking.enabled = take_bool(reasoning, "enabled")
        if take_bool(reasoning, "exclude"):
            thinking.summary = "none"
        if reasoning:
            body["reasoning"] = reasoning
    switch = body.get("thinking")
    if isinstance(switch, dict) and switch.get("type") in ("enabled", "disabled", "adaptive"):
        thinking.enabled = switch.pop("type") != "disabled"
        thinking.budget = take_int(switch, "budget_tokens") or thinking.budget
        if not switch:
            del body["thinking"]
    if thinking != Thinking():
        request.thinking = thinking


def write_request(request: Request, losses: Losses, dialect: Dialect) -> Json:
    """The JSON object for a provider that speaks `dialect`."""
    same = request.family == FAMILY
    writer = ConversationWriter(losses, dialect, same=same)
    for n, message in enumerate(request.messages):
        writer.add(message, f"messages[{n}]")
    out: Json = {"model": request.model, "messages": writer.finish()}
    if request.stream:
        out["stream"] = True
        if dialect.stream_options:
            out["stream_options"] = {"include_usage": True}
    _write_sampling(request, out, losses, dialect)
    _write_tools(request, out, losses, dialect, same=same)
    if request.output is not None:
        out["response_format"] = _write_output(request.output, losses, dialect)
    if request.thinking is not None:
        _write_thinking(request.thinking, out, losses, dialect)
    if request.extras:
        if same:
            merged(out, request.extras)
        else:
            losses.extras(request.extras)
    return out


def _write_sampling(request: Request, out: Json, losses: Losses, dialect: Dialect) -> None:
    if request.max_tokens is not None:
        out[dialect.max_tokens] = request.max_tokens
    for name in ("temperature", "top_p", "n", "frequency_penalty", "presence_penalty", "logprobs"):
        value = getattr(request, name)
        if value is not None:
            out[name] = value
    for name in ("top_logprobs", "stop", "user", "metadata", "service_tier"):
        value = getattr(request, name)
        if value is not None:
            out[name] = value
    if request.seed is not None:
        if dialect.seed is None:
            losses.drop("seed")
        else:
            out[dialect.seed] = request.seed
    if request.top_k is not None:
        if dialect.top_k or request.family == FAMILY:
            out["top_k"] = request.top_k
        else:
            losses.drop("top_k")


def _write_tools(
    request: Request, out: Json, losses: Losses, dialect: Dialect, *, same: bool
) -> None:
    tools = []
    for n, tool in enumerate(request.tools):
        one = _write_tool(tool, losses, f"tools[{n}]", dialect, same=same)
        if one is not None:
            tools.append(one)
    if tools:
        out["tools"] = tools
    choice = request.tool_choice
    if choice is not None:
        if choice.mode == "named":
            out["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        else:
            out["tool_choice"] = dialect.required if choice.mode == "required" else choice.mode
    if request.parallel_tools is not None:
        if dialect.parallel:
            out["parallel_tool_calls"] = request.parallel_tools
        else:
            losses.drop("parallel_tool_calls")


def _write_tool(
    tool: Tool, losses: Losses, field: str, dialect: Dialect, *, same: bool
) -> Json | None:
    if tool.builtin:
        if same:
            return tool.extras
        losses.drop(field, f"{losses.target} has no tool {tool.name!r} of its own")
        return None
    inner: Json = {"name": tool.name}
    if tool.description is not None:
        inner["description"] = tool.description
    if tool.custom:
        own = (tool.extras or {}).get("custom") if same else None
        if not same:
            losses.extras(tool.extras, field)
        return {"type": "custom", "custom": inner | (own or {})}
    if tool.schema is not None:
        inner["parameters"] = tool.schema
    if tool.strict is not None:
        if dialect.strict_tools:
            inner["strict"] = tool.strict
        elif tool.strict:
            losses.drop(f"{field}.strict")
    out: Json = {"type": "function", "function": inner}
    if tool.cache is not None and (same or dialect.cache):
        out["cache_control"] = tool.cache
    elif tool.cache is not None:
        losses.note(f"{field}.cache_control", CACHED)
    if tool.extras:
        if same:
            extras = dict(tool.extras)
            inner |= extras.pop("function", {})
            out |= extras
        else:
            losses.extras(tool.extras, field)
    return out


def _write_output(form: OutputFormat, losses: Losses, dialect: Dialect) -> Json:
    if form.kind == "text":
        return {"type": "text"}
    if form.kind == "json":
        out: Json = {"type": "json_object"}
        if form.schema is not None:
            out["schema"] = form.schema
        return out
    if not dialect.json_schema:
        losses.drop("response_format", "only JSON without a schema can be asked for")
        return {"type": "json_object"}
    schema: Json = {"name": form.name or "answer"}
    if form.schema is not None:
        schema["schema"] = form.schema
    if form.description is not None:
        schema["description"] = form.description
    if form.strict is not None:
        schema["strict"] = form.strict
    return {"type": "json_schema", "json_schema": schema | (form.extras or {})}


def _write_thinking(thinking: Thinking, out: Json, losses: Losses, dialect: Dialect) -> None:
    if dialect.thinking == "type":
        if thinking.enabled is not None:
            out["thinking"] = {"type": "enabled" if thinking.enabled else "disabled"}
        elif thinking.effort is not None:
            out["thinking"] = {"type": "disabled" if thinking.effort == "none" else "enabled"}
        if thinking.budget is not None:
            losses.drop("thinking.budget_tokens")
        return
    if dialect.thinking == "object":
        object: Json = {}
        if thinking.effort is not None:
            object["effort"] = thinking.effort
        elif thinking.budget is not None:
            object["max_tokens"] = thinking.budget
        elif thinking.enabled is not None:
            object["enabled"] = thinking.enabled
        if thinking.summary == "none":
            object["exclude"] = True
        out["reasoning"] = object
        return
    effort = thinking.effort or effort_of(thinking)
    if effort is not None:
        out["reasoning_effort"] = effort


def effort_of(thinking: Thinking) -> str | None:
    """The effort that comes nearest to a budget of tokens, or to on and off."""
    if thinking.enabled is False or thinking.budget == 0:
        return "none"
    if thinking.budget is None or thinking.budget < 0:
        return "medium" if thinking.enabled else None
    if thinking.budget <= 2048:
        return "low"
    return "medium" if thinking.budget <= 16384 else "high"


BUDGETS = {
    "none": 0,
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 24576,
    "xhigh": 32768,
    "max": 32768,
}
"""The budget in tokens that stands for an effort, where only a budget can be said."""

__all__ = ["BUDGETS", "Reasoning", "effort_of", "parse_call", "parse_request", "write_request"]
