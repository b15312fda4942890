"""Requests, both ways."""

from __future__ import annotations

from typing import Any, Final

from tidegate_ai_formats.chat.request import BUDGETS
from tidegate_ai_formats.losses import InvalidRequest, Losses, take_role
from tidegate_ai_formats.model import (
    Json,
    Message,
    OutputFormat,
    Part,
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

from .blocks import FAMILY, BlockWriter, parse_content

DEFAULT_MAX_TOKENS: Final = 8192
"""Sent where the caller's format lets it leave the limit out, which this one does not."""
_CHOICES: Final = {"auto": "auto", "none": "none", "any": "required"}
_TIERS: Final = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only"}


def parse_request(body: Json) -> Request:
    """A request."""
    given = take_list(body, "messages")
    if given is None:
        raise InvalidRequest("messages", "is required, and is an array")
    messages = [_parse_message(one, f"messages[{n}]") for n, one in enumerate(given)]
    if "system" in body:
        system = parse_content(body.pop("system"), "system")
        messages.insert(0, Message("system", system))
    request = Request(
        FAMILY,
        take_str(body, "model"),
        messages,
        stream=take_bool(body, "stream") or False,
        max_tokens=take_int(body, "max_tokens"),
        temperature=take_number(body, "temperature"),
        top_p=take_number(body, "top_p"),
        top_k=take_int(body, "top_k"),
        stop=take_list(body, "stop_sequences"),
        service_tier=take_str(body, "service_tier") or None,
        stream_usage=True,
    )
    for tool in take_list(body, "tools") or ():
        if not isinstance(tool, dict):
            raise InvalidRequest("tools", "holds what is not an object")
        request.tools.append(_parse_tool(tool))
    _parse_choice(request, body)
    _parse_thinking(request, body)
    if metadata := take_dict(body, "metadata"):
        request.user = take_str(metadata, "user_id") or None
        if metadata:
            body["metadata"] = metadata
    request.extras = body or None
    return request


def _parse_message(message: Any, field: str) -> Message:
    if not isinstance(message, dict):
        raise InvalidRequest(field, "is not an object")
    role = take_role(message, field, ("user", "assistant", "system"))
    parts = parse_content(message.pop("content", None), f"{field}.content")
    return Message(role, parts, extras=message or None)


def _parse_tool(tool: Json) -> Tool:
    cache = take_dict(tool, "cache_control")
    if tool.get("type") in (None, "custom") and isinstance(tool.get("input_schema"), dict):
        out = Tool(take_str(tool, "name"), cache=cache)
        if isinstance(tool.get("description"), str):
            out.description = tool.pop("description")
        out.schema = take_dict(tool, "input_schema")
        out.strict = take_bool(tool, "strict")
        out.extras = tool or None
        return out
    return Tool(str(tool.get("name") or ""), builtin=True, cache=cache, extras=tool)


def _parse_choice(request: Request, body: Json) -> None:
    choice = take_dict(body, "tool_choice")
    if choice is None:
        return
    kind = choice.pop("type", None)
    if kind == "tool":
        request.tool_choice = ToolChoice("named", take_str(choice, "name"))
    elif kind in _CHOICES:
        request.tool_choice = ToolChoice(_CHOICES[kind])  # type: ignore[arg-type]
    disabled = take_bool(choice, "disable_parallel_tool_use")
    if disabled is not None:
        request.parallel_tools = not disabled
    if choice:
        body["tool_choice"] = choice


def _parse_thinking(request: Request, body: Json) -> None:
    if "thinking" not in body and "output_config" not in body:
        return
    thinking = Thinking()
    switch = body.get("thinking")
    if isinstance(switch, dict) and switch.get("type") in ("enabled", "disabled"):
        thinking.enabled = switch.pop("type") == "enabled"
        thinking.budget = take_int(switch, "budget_tokens")
        if not switch:
            del body["thinking"]
    elif isinstance(switch, dict) and switch.get("type") == "adaptive":
        thinking.enabled = True
        thinking.effort = "auto"
        del switch["type"]
        if not switch:
            del body["thinking"]
    if config := take_dict(body, "output_config"):
        if effort := take_str(config, "effort"):
            thinking.effort = effort
            if thinking.enabled and thinking.budget is None:
                thinking.summary = "auto"  # adaptive thinking, of which the effort is known
        form = config.get("format")
        if isinstance(form, dict) and form.get("type") == "json_schema":
            del config["format"], form["type"]
            request.output = OutputFormat("schema", take_dict(form, "schema"), extras=form or None)
        if config:
            body["output_config"] = config
    if thinking != Thinking():
        request.thinking = thinking


def write_request(request: Request, losses: Losses) -> Json:
    """The JSON object for a provider of this format."""
    same = request.family == FAMILY
    writer = BlockWriter(losses, same=same, request=True)
    out: Json = {"model": request.model, "messages": []}
    out["max_tokens"] = request.max_tokens or DEFAULT_MAX_TOKENS
    _write_messages(request, out, writer, losses, same=same)
    for name in ("temperature", "top_p", "top_k"):
        value = getattr(request, name)
        if value is not None:
            out[name] = value
    if out.get("temperature", 0) > 1:
        losses.drop("temperature", "it is at most 1 here")
        out["temperature"] = 1.0
    if request.stream:
        out["stream"] = True
    if request.stop:
        out["stop_sequences"] = request.stop
    if request.tools or request.tool_choice is not None:
        _write_tools(request, out, losses, same=same)
    _write_output(request, out, losses)
    if request.thinking is not None:
        _write_thinking(request.thinking, request, out, losses)
    _write_identity(request, out, losses)
    if request.seed or request.n or request.logprobs or request.top_logprobs:
        losses.unsupported(request, "seed", "n", "logprobs", "top_logprobs")
    if request.frequency_penalty or request.presence_penalty:
        losses.unsupported(request, "frequency_penalty", "presence_penalty")
    if request.extras and same:
        merged(out, request.extras)
    elif request.extras:
        losses.extras(request.extras)
    return out


def _write_messages(
    request: Request, out: Json, writer: BlockWriter, losses: Losses, *, same: bool
) -> None:
    system: list[Json] = []
    messages: list[Json] = out["messages"]
    for n, message in enumerate(request.messages):
        field = f"messages[{n}]"
        if message.role in ("system", "developer") and not (same and messages):
            if messages:
                losses.drop(field, "a system message within the talk moves to its beginning")
            system += writer.all(message.parts, f"{field}.content")
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if message.role == "system":
            role = "system"
        if message.name:
            losses.drop(f"{field}.name")
        content = _content(message.parts, writer, field)
        if not content and not same:
            continue
        last = messages[-1] if messages else None
        if last is not None and last["role"] == role and (message.role == "tool" or not same):
            last["content"] = [*_blocks(last["content"]), *_blocks(content)]
        else:
            messages.append({"role": role, "content": content})
        if message.extras:
            if same:
                messages[-1] |= message.extras
            else:
                losses.extras(message.extras, field)
    if len(system) == 1 and system[0].keys() == {"type", "text"}:
        out["system"] = system[0]["text"]
    elif system:
        out["system"] = system


def _content(parts: list[Part], writer: BlockWriter, field: str) -> Any:
    """A string where it is plain text, else blocks; results of tools stand first."""
    if len(parts) == 1:
        only = parts[0]
        if type(only) is Text and not only.cache and not only.extras and not only.citations:
            return only.text
    if not writer.same and any(isinstance(part, ToolResult) for part in parts):
        parts = sorted(parts, key=lambda part: not isinstance(part, ToolResult))
    return writer.all(parts, f"{field}.content")


def _blocks(content: Any) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _write_tools(request: Request, out: Json, losses: Losses, *, same: bool) -> None:
    tools = []
    for n, tool in enumerate(request.tools):
        one = _write_tool(tool, losses, f"tools[{n}]", same=same)
        if one is not None:
            tools.append(one)
    if tools:
        out["tools"] = tools
    choice = request.tool_choice
    if choice is not None:
        kind = {"required": "any", "named": "tool"}.get(choice.mode, choice.mode)
        out["tool_choice"] = {"type": kind}
        if choice.mode == "named":
            out["tool_choice"]["name"] = choice.name
    parallel = request.parallel_tools
    if (tools or choice) and (parallel is False or (same and parallel)):
        out.setdefault("tool_choice", {"type": "auto"})
        out["tool_choice"]["disable_parallel_tool_use"] = not parallel


def _write_tool(tool: Tool, losses: Losses, field: str, *, same: bool) -> Json | None:
    if tool.builtin:
        if same:
            return (tool.extras or {}) | ({"cache_control": tool.cache} if tool.cache else {})
        losses.drop(field, f"{losses.target} has no tool {tool.name!r} of its own")
        return None
    out: Json = {"name": tool.name}
    if tool.description is not None:
        out["description"] = tool.description
    if tool.custom:
        losses.drop(field, "a tool of free text becomes one with the argument `input`")
        properties = {"input": {"type": "string"}}
        out["input_schema"] = {"type": "object", "properties": properties, "required": ["input"]}
        return out
    out["input_schema"] = tool.schema or {"type": "object", "properties": {}}
    if tool.strict is not None and (tool.strict or same):
        out["strict"] = tool.strict
    if tool.cache is not None:
        out["cache_control"] = tool.cache
    if tool.extras:
        if same:
            out |= tool.extras
        else:
            losses.extras(tool.extras, field)
    return out


def _write_output(request: Request, out: Json, losses: Losses) -> None:
    form = request.output
    if form is None or form.kind == "text":
        return
    if form.kind == "json" or form.schema is None:
        losses.drop("response_format", "JSON can be asked for with a schema only")
        return
    if form.description:
        losses.drop("response_format.json_schema.description")
    schema = {"type": "json_schema", "schema": form.schema}
    if request.family == FAMILY and form.extras:
        schema |= form.extras
    out["output_config"] = {"format": schema}


def _write_thinking(thinking: Thinking, request: Request, out: Json, losses: Losses) -> None:
    if request.family == FAMILY:
        if thinking.enabled is not None:
            adaptive = thinking.enabled and thinking.budget is None
            kind = "adaptive" if adaptive else "enabled" if thinking.enabled else "disabled"
            out["thinking"] = {"type": kind}
            if thinking.budget is not None:
                out["thinking"]["budget_tokens"] = thinking.budget
        if thinking.effort not in (None, "auto"):
            out.setdefault("output_config", {})["effort"] = thinking.effort
        return
    budget = thinking.budget
    if budget is None and thinking.effort is not None:
        budget = BUDGETS.get(thinking.effort, BUDGETS["medium"])
    if thinking.enabled is False or budget == 0:
        out["thinking"] = {"type": "disabled"}
        return
    if budget is None or budget < 0:
        if not thinking.enabled and budget is None:
            return
        budget = BUDGETS["medium"]
    if request.max_tokens is None:
        out["max_tokens"] = budget + DEFAULT_MAX_TOKENS
    budget = max(1024, budget)
    if out["max_tokens"] <= budget:
        budget = out["max_tokens"] // 2
        if budget < 1024:
            losses.drop("reasoning_effort", "max_tokens leaves no room for thought")
            return
    out["thinking"] = {"type": "enabled", "budget_tokens": budget}
    for name in ("temperature", "top_k"):
        if name in out and out[name] != 1:
            losses.drop(name, "it can't be set together with thinking")
            del out[name]


def _write_identity(request: Request, out: Json, losses: Losses) -> None:
    if request.user is not None:
        out["metadata"] = {"user_id": request.user}
    if request.metadata:
        losses.drop("metadata")
    if request.service_tier is not None:
        tier = _TIERS.get(request.service_tier)
        if tier is None:
            losses.drop("service_tier", f"there is no tier {request.service_tier!r}")
        else:
            out["service_tier"] = tier
