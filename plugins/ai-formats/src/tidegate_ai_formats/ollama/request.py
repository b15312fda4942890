"""Requests, both ways. Images are base64 without a type; calls have no id in older servers."""

from __future__ import annotations

from typing import Any, Final

from tidegate_ai_formats.chat.request import effort_of, parse_tool
from tidegate_ai_formats.gemini.parts import INVENTED
from tidegate_ai_formats.losses import InvalidRequest, Losses, take_role
from tidegate_ai_formats.model import (
    Json,
    Media,
    Message,
    Opaque,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from tidegate_ai_formats.wire import (
    arguments_object,
    dumps,
    merged,
    take_bool,
    take_dict,
    take_int,
    take_list,
    take_number,
    take_str,
)

FAMILY: Final = "ollama"
_OPTIONS: Final = (
    ("num_predict", "max_tokens"),
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("seed", "seed"),
    ("stop", "stop"),
    ("frequency_penalty", "frequency_penalty"),
    ("presence_penalty", "presence_penalty"),
)


def parse_call(call: Json, id: str) -> ToolCall:
    """A tool call; `id` names it where it has no id."""
    function = take_dict(call, "function") or {}
    arguments = function.pop("arguments", None)
    part = ToolCall(
        take_str(call, "id") or id,
        take_str(function, "name"),
        arguments if isinstance(arguments, str) else dumps(arguments or {}),
    )
    function.pop("index", None)
    if function:
        call["function"] = function
    part.extras = call or None
    return part


def parse_parts(message: Json, seed: str) -> list[Part]:
    """The parts of a message; `seed` begins the ids of calls that have none."""
    parts: list[Part] = []
    if thought := take_str(message, "thinking"):
        parts.append(Reasoning(thought))
    content = message.get("content")
    if isinstance(content, str) and (content or not message.get("tool_calls")):
        parts.append(Text(message.pop("content")))
    for image in take_list(message, "images") or ():
        parts.append(Media("image", mime_of(image), image))
    for n, call in enumerate(take_list(message, "tool_calls") or ()):
        parts.append(parse_call(call, f"{INVENTED}{seed}_{n}"))
    return parts


def mime_of(data: str) -> str:
    """The type of an image by how its base64 begins."""
    for head, mime in (("/9j/", "jpeg"), ("iVBOR", "png"), ("R0lG", "gif"), ("UklG", "webp")):
        if data.startswith(head):
            return f"image/{mime}"
    return "image/png"


def parse_request(body: Json) -> Request:
    """A request. It streams unless it says that it does not."""
    given = take_list(body, "messages")
    if given is None:
        raise InvalidRequest("messages", "is required, and is an array")
    stream = take_bool(body, "stream")
    request = Request(FAMILY, take_str(body, "model"), [], stream=stream is not False)
    request.stream_usage = True
    open_calls: dict[str, list[str]] = {}
    for n, message in enumerate(given):
        request.messages.append(_parse_message(message, n, open_calls))
    options = take_dict(body, "options") or {}
    for name, field in _OPTIONS:
        take = take_number if field in ("temperature", "top_p") or "penalty" in field else take_int
        value: Any = take_list(options, name) if name == "stop" else take(options, name)
        setattr(request, field, value)
    if options:
        body["options"] = options
    request.tools = [parse_tool(tool) for tool in take_list(body, "tools") or ()]
    request.logprobs = take_bool(body, "logprobs")
    request.top_logprobs = take_int(body, "top_logprobs")
    form = body.get("format")
    if form == "json" or isinstance(form, dict):
        schema = form if isinstance(form, dict) else None
        request.output = OutputFormat("schema" if schema else "json", schema)
        del body["format"]
    think = body.get("think")
    if isinstance(think, bool):
        request.thinking = Thinking(enabled=body.pop("think"))
    elif isinstance(think, str):
        request.thinking = Thinking(effort=body.pop("think"))
    request.extras = body or None
    return request


def _parse_message(message: Any, n: int, open_calls: dict[str, list[str]]) -> Message:
    field = f"messages[{n}]"
    if not isinstance(message, dict):
        raise InvalidRequest(field, "is not an object")
    role = take_role(message, field)
    if role == "tool":
        name = take_str(message, "tool_name")
        waiting = open_calls.get(name) or next((v for v in open_calls.values() if v), [])
        made = waiting.pop(0) if waiting else f"{INVENTED}{n}"
        id = take_str(message, "tool_call_id") or made
        result = ToolResult(id, parse_parts(message, str(n)), name, extras=message or None)
        return Message("tool", [result])
    parts = parse_parts(message, str(n))
    for part in parts:
        if isinstance(part, ToolCall):
            open_calls.setdefault(part.name, []).append(part.id)
    return Message(role, parts, extras=message or None)


def write_message(role: str, parts: list[Part], losses: Losses, field: str, *, same: bool) -> Json:
    """A message of one role."""
    out: Json = {"role": role, "content": ""}
    for n, part in enumerate(parts):
        where = f"{field}[{n}]"
        match part:
            case Text() | Refusal():
                out["content"] += part.text
                if isinstance(part, Text) and part.citations:
                    losses.note(f"{where}.citations", "they have no place here")
            case Reasoning():
                if part.text:
                    out["thinking"] = out.get("thinking", "") + part.text
                if part.signature or part.encrypted:
                    losses.note(f"{where}.signature", "proofs of thought have no place here")
            case ToolCall():
                call = _write_call(part, len(out.get("tool_calls", ())), losses, where)
                out.setdefault("tool_calls", []).append(merged(call, part.extras if same else None))
            case Media(kind="image", data=data) if data:
                out.setdefault("images", []).append(data)
            case Media(text=text) if text:
                out["content"] += text
            case _:
                what = part.value.get("type", "part") if isinstance(part, Opaque) else "media"
                losses.drop(f"{where}.{what}")
                continue
        if not same:
            losses.extras(part.extras, where)
            if getattr(part, "cache", None) is not None:
                losses.note(f"{where}.cache_control", "prompts are cached without it here")
    return out


def _write_call(part: ToolCall, n: int, losses: Losses, field: str) -> Json:
    arguments = arguments_object(part.arguments)
    if arguments is None:
        if not part.custom:
            losses.note(f"{field}.arguments", "they are no JSON object: sent as `input`")
        arguments = {"input": part.arguments}
    call: Json = {"function": {"index": n, "name": part.name, "arguments": arguments}}
    if part.signature:
        losses.note(f"{field}.signature", "proofs of thought have no place here")
    if part.id and not part.id.startswith(INVENTED):
        call["id"] = part.id
    return call


def write_request(request: Request, losses: Losses) -> Json:
    """The JSON object for a provider of this format."""
    same = request.family == FAMILY
    out: Json = {"model": request.model, "messages": [], "stream": request.stream}
    names: dict[str, str] = {}
    for n, message in enumerate(request.messages):
        _write_messages(message, out["messages"], names, losses, f"messages[{n}]", same=same)
    options = {}
    for name, field in _OPTIONS:
        value = getattr(request, field)
        if value is not None:
            options[name] = value
    if options:
        out["options"] = options
    _write_tools(request, out, losses, same=same)
    form = request.output
    if form is not None and form.kind != "text":
        out["format"] = form.schema if form.schema is not None else "json"
        if form.description:
            losses.drop("response_format.json_schema.description")
    thinking = request.thinking
    if thinking is not None:
        effort = thinking.effort or effort_of(thinking)
        if same and thinking.enabled is not None:
            out["think"] = thinking.enabled
        elif effort is not None:
            out["think"] = effort if effort in ("low", "medium", "high") else effort != "none"
    for name in ("logprobs", "top_logprobs"):
        value = getattr(request, name)
        if value is not None:
            out[name] = value
    losses.unsupported(request, "n", "user", "metadata", "service_tier")
    if request.parallel_tools is False:
        losses.drop("parallel_tool_calls")
    if same:
        merged(out, request.extras)
    else:
        losses.extras(request.extras)
    return out


def _write_messages(
    message: Message,
    messages: list[Json],
    names: dict[str, str],
    losses: Losses,
    field: str,
    *,
    same: bool,
) -> None:
    rest: list[Part] = []
    if message.name:
        losses.drop(f"{field}.name")
    for part in message.parts:
        if isinstance(part, ToolCall):
            names[part.id] = part.name
        if not isinstance(part, ToolResult):
            rest.append(part)
            continue
        result = write_message("tool", part.parts, losses, field, same=same)
        name = part.name or names.get(part.call_id, "")
        if name:
            result["tool_name"] = name
        if part.call_id and not part.call_id.startswith(INVENTED):
            result["tool_call_id"] = part.call_id
        if part.is_error:
            losses.drop(f"{field}.is_error", "a tool's failure is said in its content only")
        messages.append(result | ((part.extras or {}) if same else {}))
        if not same:
            losses.extras(part.extras, field)
    if rest or not message.parts:
        role = {"developer": "system", "tool": "user"}.get(message.role, message.role)
        out = write_message(role, rest, losses, f"{field}.content", same=same)
        if same:
            out |= message.extras or {}
        else:
            losses.extras(message.extras, field)
        messages.append(out)


def _write_tools(request: Request, out: Json, losses: Losses, *, same: bool) -> None:
    tools: list[Json] = []
    for n, tool in enumerate(request.tools):
        field = f"tools[{n}]"
        if tool.builtin or tool.custom:
            losses.drop(field, f"{losses.target} knows functions only")
            continue
        function: Json = {"name": tool.name, "description": tool.description or ""}
        if tool.description is None and same:
            del function["description"]
        if tool.schema is not None or not same:
            function["parameters"] = tool.schema or {"type": "object", "properties": {}}
        if tool.strict and not same:
            losses.drop(f"{field}.strict")
        if tool.cache is not None:
            losses.note(f"{field}.cache_control", "prompts are cached without it here")
        if not same:
            losses.extras(tool.extras, field)
        one: Json = {"type": "function", "function": function}
        tools.append(merged(one, tool.extras if same else None))
    if tools:
        out["tools"] = tools
    if request.tool_choice is not None and request.tool_choice.mode != "auto":
        losses.drop("tool_choice")
