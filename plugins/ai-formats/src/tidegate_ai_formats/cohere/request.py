"""Requests, both ways."""

from __future__ import annotations

from typing import Any

from tidegate_ai_formats.chat.request import BUDGETS, parse_tool
from tidegate_ai_formats.losses import InvalidRequest, Losses, take_role
from tidegate_ai_formats.model import (
    Json,
    Message,
    OutputFormat,
    Part,
    Request,
    Thinking,
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

from .parts import FAMILY, parse_content, parse_message, parse_result, write_content, write_message


def parse_request(body: Json) -> Request:
    """A request."""
    given = take_list(body, "messages")
    if given is None:
        raise InvalidRequest("messages", "is required, and is an array")
    request = Request(
        FAMILY,
        take_str(body, "model"),
        [_parse_message(message, f"messages[{n}]") for n, message in enumerate(given)],
        stream=take_bool(body, "stream") or False,
        max_tokens=take_int(body, "max_tokens"),
        temperature=take_number(body, "temperature"),
        top_p=take_number(body, "p"),
        top_k=take_int(body, "k"),
        seed=take_int(body, "seed"),
        stop=take_list(body, "stop_sequences"),
        frequency_penalty=take_number(body, "frequency_penalty"),
        presence_penalty=take_number(body, "presence_penalty"),
        logprobs=take_bool(body, "logprobs"),
        stream_usage=True,
    )
    strict = body.get("strict_tools")
    for tool in take_list(body, "tools") or ():
        request.tools.append(parse_tool(tool))
        if isinstance(strict, bool):
            request.tools[-1].strict = strict
    if isinstance(strict, bool) and request.tools:
        del body["strict_tools"]
    choice = body.get("tool_choice")
    if choice in ("REQUIRED", "NONE"):
        request.tool_choice = ToolChoice("required" if choice == "REQUIRED" else "none")
        del body["tool_choice"]
    _parse_output(request, body)
    switch = body.get("thinking")
    if isinstance(switch, dict) and switch.get("type") in ("enabled", "disabled"):
        del body["thinking"]
        request.thinking = Thinking(
            switch["type"] == "enabled", None, take_int(switch, "token_budget")
        )
    request.extras = body or None
    return request


def _parse_message(message: Any, field: str) -> Message:
    if not isinstance(message, dict):
        raise InvalidRequest(field, "is not an object")
    role = take_role(message, field)
    if role == "assistant":
        return Message("assistant", parse_message(message), extras=message or None)
    if role == "tool":
        return Message("tool", [parse_result(message)])
    parts = parse_content(message.pop("content", None))
    return Message(role, parts, extras=message or None)


def _parse_output(request: Request, body: Json) -> None:
    form = take_dict(body, "response_format")
    if form is None:
        return
    if form.get("type") == "json_object":
        for key in ("json_schema", "schema"):
            if isinstance(form.get(key), dict):
                request.output = OutputFormat("schema", form[key], raw={key: form[key]})
                return
        request.output = OutputFormat("json")
    else:
        request.output = OutputFormat("text")


def write_request(request: Request, losses: Losses) -> Json:
    """The JSON object for a provider of this format."""
    same = request.family == FAMILY
    out: Json = {"model": request.model, "messages": []}
    for n, message in enumerate(request.messages):
        _write_message(message, out["messages"], losses, f"messages[{n}]", same=same)
    values = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "p": request.top_p,
        "k": request.top_k,
        "seed": request.seed,
        "stop_sequences": request.stop,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "logprobs": request.logprobs,
    }
    out |= {key: value for key, value in values.items() if value is not None}
    if request.stream:
        out["stream"] = True
    _write_tools(request, out, losses, same=same)
    form = request.output
    if form is not None:
        out["response_format"] = {"type": "text" if form.kind == "text" else "json_object"}
        if form.schema is not None:
            key = next(iter(form.raw)) if form.raw and same else "json_schema"
            out["response_format"][key] = form.schema
        if form.description:
            losses.drop("response_format.json_schema.description")
    if request.thinking is not None:
        _write_thinking(request.thinking, out)
    losses.unsupported(request, "n", "user", "metadata", "service_tier", "top_logprobs")
    if request.parallel_tools is False:
        losses.drop("parallel_tool_calls")
    if same:
        out |= request.extras or {}
    else:
        losses.extras(request.extras)
    return out


def _write_message(
    message: Message, messages: list[Json], losses: Losses, field: str, *, same: bool
) -> None:
    if message.name:
        losses.drop(f"{field}.name")
    if message.role == "assistant":
        out = write_message(message.parts, losses, f"{field}.content", same=same, request=True)
        _finish(message, out, messages, losses, field, same=same)
        return
    rest: list[Part] = []
    for part in message.parts:
        if not isinstance(part, ToolResult):
            rest.append(part)
            continue
        result: Json = {"role": "tool", "tool_call_id": part.call_id}
        result["content"] = write_content(part.parts, losses, field, same=same)
        if part.is_error:
            losses.drop(f"{field}.is_error", "a tool's failure is said in its content only")
        if same:
            result |= part.extras or {}
        else:
            losses.extras(part.extras, field)
        messages.append(result)
    if rest or not message.parts:
        role = {"tool": "user", "developer": "system"}.get(message.role, message.role)
        out = {"role": role, "content": write_content(rest, losses, field, same=same)}
        _finish(message, out, messages, losses, field, same=same)


def _finish(
    message: Message, out: Json, messages: list[Json], losses: Losses, field: str, *, same: bool
) -> None:
    if same:
        out |= message.extras or {}
    else:
        losses.extras(message.extras, field)
    messages.append(out)


def _write_tools(request: Request, out: Json, losses: Losses, *, same: bool) -> None:
    tools: list[Json] = []
    for n, tool in enumerate(request.tools):
        field = f"tools[{n}]"
        if tool.builtin:
            losses.drop(field, f"{losses.target} has no tool {tool.name!r} of its own")
            continue
        function: Json = {"name": tool.name}
        if tool.description is not None:
            function["description"] = tool.description
        if tool.custom:
            losses.drop(field, "a tool of free text becomes one with the argument `input`")
            properties = {"input": {"type": "string"}}
            function["parameters"] = {"type": "object", "properties": properties}
        elif tool.schema is not None or not same:
            function["parameters"] = tool.schema or {"type": "object", "properties": {}}
        if tool.cache is not None:
            losses.note(f"{field}.cache_control", "prompts are cached without it here")
        one: Json = {"type": "function", "function": function}
        if same:
            merged(one, tool.extras)
        else:
            losses.extras(tool.extras, field)
        tools.append(one)
    if tools:
        out["tools"] = tools
        said = {tool.strict for tool in request.tools}
        if True in said or (same and False in said):
            out["strict_tools"] = True in said
            if len(said) > 1:
                losses.note("tools.strict", "all tools are strict, or none")
    choice = request.tool_choice
    if choice is None or choice.mode == "auto":
        return
    if choice.mode == "named":
        losses.drop("tool_choice", "some tool can be required, not a certain one")
    out["tool_choice"] = "NONE" if choice.mode == "none" else "REQUIRED"


def _write_thinking(thinking: Thinking, out: Json) -> None:
    off = thinking.enabled is False or thinking.effort == "none" or thinking.budget == 0
    out["thinking"] = {"type": "disabled" if off else "enabled"}
    budget = thinking.budget
    if budget is None and thinking.effort is not None:
        budget = BUDGETS.get(thinking.effort)
    if budget and not off and budget > 0:
        out["thinking"]["token_budget"] = budget
