"""Requests, both ways."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote, unquote

from tidegate_ai_formats.chat.request import BUDGETS, effort_of
from tidegate_ai_formats.losses import InvalidRequest, Losses, take_role
from tidegate_ai_formats.model import Json, Message, OutputFormat, Request, Tool, ToolChoice
from tidegate_ai_formats.wire import (
    dumps,
    loads,
    take_dict,
    take_int,
    take_list,
    take_number,
    take_str,
)

from .blocks import FAMILY, BlockWriter, cache_point, merge, parse_blocks

_STREAM: Final = "converse-stream"


def model_of(path: str) -> tuple[str, bool]:
    """(model, streaming) of a path `/model/{model}/converse[-stream]`."""
    pieces = path.rstrip("/").rsplit("/", 2)
    if len(pieces) < 3:
        return "", False
    return unquote(pieces[1]), pieces[2] == _STREAM


def path_of(model: str, *, stream: bool) -> str:
    """The path of a request. Dots alone are a step in it (RFC 3986 §5.2.4): they are escaped."""
    name = quote(model, safe="") if model.strip(".") else model.replace(".", "%2E")
    return f"/model/{name}/{_STREAM if stream else 'converse'}"


def parse_request(body: Json, path: str) -> Request:
    """A request; the model and whether to stream stand in its path."""
    given = take_list(body, "messages")
    if given is None:
        raise InvalidRequest("messages", "is required, and is an array")
    model, stream = model_of(path)
    request = Request(FAMILY, model, [], stream=stream, stream_usage=True)
    if system := take_list(body, "system"):
        request.messages.append(Message("system", parse_blocks(system)))
    for n, message in enumerate(given):
        request.messages.append(_parse_message(message, f"messages[{n}]"))
    if (config := take_dict(body, "inferenceConfig")) is not None:
        request.max_tokens = take_int(config, "maxTokens")
        request.temperature = take_number(config, "temperature")
        request.top_p = take_number(config, "topP")
        request.stop = take_list(config, "stopSequences")
        if config:
            body["inferenceConfig"] = config
    if tools := take_dict(body, "toolConfig"):
        _parse_tools(request, tools)
        if tools:
            body["toolConfig"] = tools
    _parse_output(request, body)
    request.metadata = take_dict(body, "requestMetadata")
    request.extras = body or None
    return request


def _parse_message(message: Any, field: str) -> Message:
    if not isinstance(message, dict):
        raise InvalidRequest(field, "is not an object")
    role = take_role(message, field, ("user", "assistant"))
    content = message.pop("content", None)
    if not isinstance(content, list):
        raise InvalidRequest(f"{field}.content", "is not an array of blocks")
    return Message(role, parse_blocks(content), extras=message or None)


def _parse_tools(request: Request, config: Json) -> None:
    for tool in take_list(config, "tools") or ():
        spec = tool.get("toolSpec")
        if isinstance(spec, dict):
            out = Tool(take_str(spec, "name"))
            if isinstance(spec.get("description"), str):
                out.description = spec.pop("description")
            schema = spec.get("inputSchema")
            if isinstance(schema, dict) and isinstance(schema.get("json"), dict):
                out.schema = schema["json"]
                del spec["inputSchema"]
            if isinstance(spec.get("strict"), bool):
                out.strict = spec.pop("strict")
            if not spec:
                del tool["toolSpec"]
            out.extras = tool or None
            request.tools.append(out)
        elif "cachePoint" in tool and request.tools:
            request.tools[-1].cache = {"type": "ephemeral"}
            if "ttl" in tool["cachePoint"]:
                request.tools[-1].cache["ttl"] = tool["cachePoint"]["ttl"]
        else:
            request.tools.append(Tool(next(iter(tool), ""), builtin=True, extras=tool))
    choice = take_dict(config, "toolChoice")
    if choice is None:
        return
    if "any" in choice:
        request.tool_choice = ToolChoice("required")
    elif isinstance(choice.get("tool"), dict):
        request.tool_choice = ToolChoice("named", choice["tool"].get("name") or "")
    else:
        request.tool_choice = ToolChoice("auto")


def _parse_output(request: Request, body: Json) -> None:
    config = body.get("outputConfig")
    form = config.get("textFormat") if isinstance(config, dict) else None
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return
    structure = form.get("structure") or {}
    inner = structure.get("jsonSchema")
    if not isinstance(inner, dict) or not isinstance(inner.get("schema"), str):
        return
    assert isinstance(config, dict)
    del config["textFormat"]
    if not config:
        del body["outputConfig"]
    text = inner["schema"]
    request.output = OutputFormat(
        "schema", loads(text), inner.get("name") or "", inner.get("description")
    )
    request.output.raw = {"schema": text}


def write_request(request: Request, losses: Losses) -> Json:
    """The JSON object for a provider of this format."""
    same = request.family == FAMILY
    writer = BlockWriter(losses, same=same, request=True)
    out: Json = {"messages": []}
    _write_messages(request, out, writer, losses, same=same)
    values = {
        "maxTokens": request.max_tokens,
        "temperature": request.temperature,
        "topP": request.top_p,
        "stopSequences": request.stop,
    }
    config = {key: value for key, value in values.items() if value is not None}
    if config:
        out["inferenceConfig"] = config
    _write_tools(request, out, losses, same=same)
    _write_output(request, out, losses)
    if request.metadata:
        out["requestMetadata"] = {key: str(value) for key, value in request.metadata.items()}
    if not same:
        _write_additional(request, out, losses)
    losses.unsupported(
        request,
        "seed",
        "n",
        "frequency_penalty",
        "presence_penalty",
        "logprobs",
        "top_logprobs",
        "user",
        "service_tier",
    )
    if request.parallel_tools is False:
        losses.drop("parallel_tool_calls")
    if request.extras:
        if same:
            merge(out, request.extras)
        else:
            losses.extras(request.extras)
    return out


def _write_messages(
    request: Request, out: Json, writer: BlockWriter, losses: Losses, *, same: bool
) -> None:
    messages: list[Json] = out["messages"]
    for n, message in enumerate(request.messages):
        field = f"messages[{n}]"
        blocks = writer.all(message.parts, f"{field}.content")
        if message.name:
            losses.drop(f"{field}.name")
        if message.role in ("system", "developer"):
            if messages:
                losses.drop(field, "a system message within the talk moves to its beginning")
            out.setdefault("system", []).extend(blocks)
            continue
        role = "assistant" if message.role == "assistant" else "user"
        last = messages[-1] if messages else None
        if last is not None and last["role"] == role and not same:
            last["content"] += blocks
        elif blocks or same:
            messages.append({"role": role, "content": blocks})
        if message.extras:
            if same:
                messages[-1] |= message.extras
            else:
                losses.extras(message.extras, field)


def _write_tools(request: Request, out: Json, losses: Losses, *, same: bool) -> None:
    tools: list[Json] = []
    for n, tool in enumerate(request.tools):
        if tool.builtin:
            if same and tool.extras:
                tools.append(tool.extras)
            else:
                losses.drop(f"tools[{n}]", f"{losses.target} has no tool {tool.name!r} of its own")
            continue
        tools.append(_write_tool(tool, losses, f"tools[{n}]", same=same))
        if tool.cache is not None:
            tools.append(cache_point(tool.cache))
    if not tools:
        return
    out["toolConfig"] = {"tools": tools}
    choice = request.tool_choice
    if choice is None:
        return
    if choice.mode == "none":
        losses.drop("tool_choice", "tools can't be forbidden here")
    elif choice.mode == "named":
        out["toolConfig"]["toolChoice"] = {"tool": {"name": choice.name}}
    else:
        out["toolConfig"]["toolChoice"] = {"any" if choice.mode == "required" else "auto": {}}


def _write_tool(tool: Tool, losses: Losses, field: str, *, same: bool) -> Json:
    spec: Json = {"name": tool.name}
    if tool.description:
        spec["description"] = tool.description
    schema = tool.schema or {"type": "object", "properties": {}}
    if tool.custom:
        losses.drop(field, "a tool of free text becomes one with the argument `input`")
        schema = {"type": "object", "properties": {"input": {"type": "string"}}}
    spec["inputSchema"] = {"json": schema}
    if tool.strict is not None and (same or tool.strict):
        spec["strict"] = tool.strict
    out: Json = {"toolSpec": spec}
    if tool.extras:
        if same:
            merge(out, tool.extras)
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
    text = dumps(form.schema)
    if form.raw is not None and request.family == FAMILY:
        text = form.raw["schema"]
    inner: Json = {"schema": text}
    if form.name:
        inner["name"] = form.name
    if form.description:
        inner["description"] = form.description
    structure = {"jsonSchema": inner}
    out["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}


def _write_additional(request: Request, out: Json, losses: Losses) -> None:
    """What only some models know goes beside the format, in the words of their makers."""
    fields: Json = {}
    model = request.model
    claude, nova = "claude" in model or "anthropic" in model, "nova" in model
    if request.top_k is not None:
        if claude:
            fields["top_k"] = request.top_k
        elif nova:
            fields["inferenceConfig"] = {"topK": request.top_k}
        else:
            losses.drop("top_k")
    thinking = request.thinking
    effort = (thinking.effort or effort_of(thinking)) if thinking is not None else None
    if thinking is not None and effort not in (None, "none", "auto"):
        assert effort is not None
        if claude:
            budget = thinking.budget or BUDGETS.get(effort, BUDGETS["medium"])
            fields["thinking"] = {"type": "enabled", "budget_tokens": max(1024, budget)}
        elif nova:
            fields["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": effort}
        else:
            losses.drop("reasoning_effort")
    if fields:
        out["additionalModelRequestFields"] = fields
