"""Requests, both ways."""

from __future__ import annotations

from typing import Any, Final, cast

from tidegate_ai_formats.chat.request import effort_of
from tidegate_ai_formats.losses import InvalidRequest, Losses
from tidegate_ai_formats.model import (
    Json,
    Message,
    OutputFormat,
    Part,
    Request,
    Role,
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

from .inputs import parse_output, write_input, write_output
from .items import FAMILY, ItemWriter, parse_content, parse_item

_STATEFUL: Final = ("previous_response_id", "conversation", "prompt", "background")
_LOGPROBS: Final = "message.output_text.logprobs"
_OUTPUTS: Final = ("function_call_output", "custom_tool_call_output")


def parse_request(body: Json) -> Request:
    """A request."""
    request = Request(
        FAMILY,
        take_str(body, "model"),
        [],
        stream=take_bool(body, "stream") or False,
        max_tokens=take_int(body, "max_output_tokens"),
        temperature=take_number(body, "temperature"),
        top_p=take_number(body, "top_p"),
        top_logprobs=take_int(body, "top_logprobs"),
        parallel_tools=take_bool(body, "parallel_tool_calls"),
        metadata=take_dict(body, "metadata"),
        service_tier=take_str(body, "service_tier") or None,
        user=take_str(body, "user") or None,
        stream_usage=True,
    )
    instructions = take_str(body, "instructions")
    if instructions:
        request.messages.append(Message("system", [Text(instructions)]))
    given = body.pop("input", None)
    if isinstance(given, str):
        request.messages.append(Message("user", [Text(given)]))
    elif isinstance(given, list):
        for n, item in enumerate(given):
            _parse_input(request.messages, item, f"input[{n}]")
    elif given is not None:
        raise InvalidRequest("input", "is neither a string nor an array")
    if isinstance(body.get("include"), list) and _LOGPROBS in body["include"]:
        request.logprobs = True
    _parse_tools(request, body)
    _parse_text(request, body)
    if reasoning := take_dict(body, "reasoning"):
        thinking = Thinking(effort=take_str(reasoning, "effort") or None)
        thinking.summary = take_str(reasoning, "summary") or None
        thinking.extras = reasoning or None
        request.thinking = thinking
    request.extras = body or None
    return request


def _parse_input(messages: list[Message], item: Any, field: str) -> None:
    if not isinstance(item, dict):
        raise InvalidRequest(field, "is not an object")
    kind = item.get("type")
    if kind in _OUTPUTS:
        messages.append(Message("tool", [parse_output(item)]))
        return
    role = item.get("role")
    if kind in (None, "message") and role != "assistant":
        if role not in ("user", "system", "developer"):
            raise InvalidRequest(f"{field}.role", f"{role!r} is not a role")
        del item["role"]
        content = item.pop("content", None)
        if isinstance(content, str):
            parts: list[Part] = [Text(content)]
        elif isinstance(content, list):
            parts = [parse_content(one) for one in content]
        else:
            raise InvalidRequest(f"{field}.content", "is neither a string nor an array")
        item.pop("type", None)
        messages.append(Message(cast(Role, role), parts, extras=item or None))
        return
    if kind is None:
        item["type"] = "message"
    parts = parse_item(item)
    for part in parts:
        if isinstance(part, Text) and part.item is not None:
            part.item.pop("role", None)
            if kind is None:
                part.item.pop("type", None)
    if messages and messages[-1].role == "assistant":
        messages[-1].parts += parts
    else:
        messages.append(Message("assistant", parts))


def _parse_tools(request: Request, body: Json) -> None:
    for tool in take_list(body, "tools") or ():
        if not isinstance(tool, dict):
            raise InvalidRequest("tools", "holds what is not an object")
        kind = tool.get("type")
        if kind not in ("function", "custom"):
            request.tools.append(Tool(str(kind), builtin=True, extras=tool))
            continue
        out = Tool(take_str(tool, "name"), custom=kind == "custom")
        if isinstance(tool.get("description"), str):
            out.description = tool.pop("description")
        del tool["type"]
        out.schema = take_dict(tool, "parameters")
        out.strict = take_bool(tool, "strict")
        out.extras = tool or None
        request.tools.append(out)
    choice = body.get("tool_choice")
    if choice in ("auto", "none", "required"):
        request.tool_choice = ToolChoice(body.pop("tool_choice"))
    elif isinstance(choice, dict) and choice.get("type") in ("function", "custom"):
        request.tool_choice = ToolChoice("named", choice.get("name") or "")
        del body["tool_choice"]


def _parse_text(request: Request, body: Json) -> None:
    text = take_dict(body, "text")
    if text is None:
        return
    form = text.get("format")
    if isinstance(form, dict):
        kind = form.get("type")
        if kind == "json_schema":
            del text["format"], form["type"]
            request.output = OutputFormat(
                "schema",
                take_dict(form, "schema"),
                take_str(form, "name"),
                take_str(form, "description") or None,
                take_bool(form, "strict"),
                extras=form or None,
            )
        elif kind in ("json_object", "text") and len(form) == 1:
            del text["format"]
            request.output = OutputFormat("json" if kind == "json_object" else "text")
    if text:
        body["text"] = text


def write_request(request: Request, losses: Losses) -> Json:
    """The JSON object for a provider of this format. It is told to keep nothing."""
    same = request.family == FAMILY
    out: Json = {"model": request.model, "input": []}
    _write_messages(request, out, losses, same=same)
    values = {
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_logprobs": request.top_logprobs,
        "parallel_tool_calls": request.parallel_tools,
        "metadata": request.metadata,
        "service_tier": request.service_tier,
        "user": request.user,
    }
    out |= {key: value for key, value in values.items() if value is not None}
    if request.stream:
        out["stream"] = True
    _write_tools(request, out, losses, same=same)
    if request.output is not None:
        out["text"] = {"format": write_format(request.output)}
    _write_thinking(request, out, same=same)
    losses.unsupported(
        request, "stop", "seed", "n", "top_k", "frequency_penalty", "presence_penalty"
    )
    if same:
        merged(out, request.extras)
        return out
    out["store"] = False
    include = ["reasoning.encrypted_content"] if request.thinking is not None else []
    if request.logprobs:
        include.append(_LOGPROBS)
    if include:
        out["include"] = include
    losses.extras(request.extras)
    return out


def refuse_stateful(request: Request, losses: Losses) -> None:
    """What a provider of this format remembers, no other one knows."""
    for name in _STATEFUL:
        if request.extras and request.extras.get(name):
            losses.refuse(name, "it refers to what another provider keeps")


def _write_messages(request: Request, out: Json, losses: Losses, *, same: bool) -> None:
    items: list[Json] = out["input"]
    writer = ItemWriter(losses, same=same, request=True)
    for n, message in enumerate(request.messages):
        field = f"messages[{n}]"
        if message.name:
            losses.drop(f"{field}.name")
        if n == 0 and message.role == "system" and not message.extras:
            texts = [part for part in message.parts if isinstance(part, Text)]
            if len(texts) == len(message.parts):
                out["instructions"] = "\n\n".join(text.text for text in texts)
                if any(text.cache for text in texts):
                    losses.note(f"{field}.cache_control", "prompts are cached without it here")
                continue
        if message.role == "assistant":
            items += writer.all(message.parts, f"{field}.content")
            if not same:
                losses.extras(message.extras, field)
            continue
        rest: list[Part] = []
        for part in message.parts:
            if isinstance(part, ToolResult):
                items.append(write_output(part, losses, field, same=same))
            else:
                rest.append(part)
        if rest or not message.parts:
            _write_message(message, rest, items, losses, field, same=same)


def _write_message(
    message: Message,
    parts: list[Part],
    items: list[Json],
    losses: Losses,
    field: str,
    *,
    same: bool,
) -> None:
    only = parts[0] if len(parts) == 1 else None
    content: Any
    if isinstance(only, Text) and not only.extras and not only.cache:
        content = only.text
    else:
        written = [
            write_input(part, losses, f"{field}.content[{n}]", same=same)
            for n, part in enumerate(parts)
        ]
        content = [one for one in written if one is not None]
    item: Json = {"role": "user" if message.role == "tool" else message.role, "content": content}
    if same:
        item |= message.extras or {}
    else:
        losses.extras(message.extras, field)
    items.append(item)


def _write_tools(request: Request, out: Json, losses: Losses, *, same: bool) -> None:
    tools = write_tools(request.tools, losses, same=same)
    if tools:
        out["tools"] = tools
    choice = request.tool_choice
    if choice is not None:
        named = {"type": "function", "name": choice.name}
        out["tool_choice"] = named if choice.mode == "named" else choice.mode


def write_tools(tools: list[Tool], losses: Losses, *, same: bool) -> list[Json]:
    """The array of tools."""
    out: list[Json] = []
    for n, tool in enumerate(tools):
        if tool.builtin:
            if same and tool.extras:
                out.append(tool.extras)
            else:
                losses.drop(f"tools[{n}]", f"{losses.target} has no tool {tool.name!r} of its own")
            continue
        one: Json = {"type": "custom" if tool.custom else "function", "name": tool.name}
        if tool.description is not None:
            one["description"] = tool.description
        if tool.schema is not None:
            one["parameters"] = tool.schema
        if tool.strict is not None:
            one["strict"] = tool.strict
        elif not same and not tool.custom:
            one["strict"] = False  # what is not said means true here
        if tool.cache is not None:
            losses.note(f"tools[{n}].cache_control", "prompts are cached without it here")
        if same:
            one |= tool.extras or {}
        else:
            losses.extras(tool.extras, f"tools[{n}]")
        out.append(one)
    return out


def write_format(form: OutputFormat) -> Json:
    """`text.format`."""
    if form.kind != "schema":
        return {"type": "json_object" if form.kind == "json" else "text"}
    out: Json = {"type": "json_schema", "name": form.name or "answer"}
    if form.schema is not None:
        out["schema"] = form.schema
    if form.description is not None:
        out["description"] = form.description
    if form.strict is not None:
        out["strict"] = form.strict
    return out | (form.extras or {})


def _write_thinking(request: Request, out: Json, *, same: bool) -> None:
    thinking = request.thinking
    if thinking is None:
        return
    reasoning: Json = {}
    effort = thinking.effort if same else (thinking.effort or effort_of(thinking))
    if effort is not None and effort != "auto":
        reasoning["effort"] = effort
    if thinking.summary is not None and (same or thinking.summary != "none"):
        reasoning["summary"] = thinking.summary
    elif not same and effort != "none":
        reasoning["summary"] = "auto"
    if same:
        reasoning |= thinking.extras or {}
    if reasoning:
        out["reasoning"] = reasoning
