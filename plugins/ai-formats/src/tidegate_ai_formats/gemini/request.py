"""Requests, both ways."""

from __future__ import annotations

from typing import Any, Final, cast
from urllib.parse import quote, unquote

from tidegate_ai_formats.chat.request import BUDGETS
from tidegate_ai_formats.losses import InvalidRequest, Losses
from tidegate_ai_formats.model import (
    Json,
    Message,
    OutputFormat,
    Part,
    Request,
    Role,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from tidegate_ai_formats.signatures import lower
from tidegate_ai_formats.wire import (
    merged,
    take_bool,
    take_dict,
    take_int,
    take_list,
    take_number,
    take_str,
)

from .parts import FAMILY, INVENTED, PartWriter, camel, parse_part
from .schema import to_json_schema

_ROLES: Final[dict[str, Role]] = {"user": "user", "model": "assistant", "function": "user"}
_MODES: Final = {"AUTO": "auto", "NONE": "none", "ANY": "required"}
_LEVELS: Final = {"none": "minimal", "minimal": "minimal", "low": "low", "medium": "medium"}


def model_of(path: str) -> tuple[str, bool]:
    """(model, streaming) of a path that ends in `models/{model}:{method}`."""
    name, _, method = path.partition("?")[0].rpartition("models/")[2].rpartition(":")
    return unquote(name), method == "streamGenerateContent"


def path_of(model: str, *, stream: bool) -> str:
    """The path of a request."""
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"/models/{quote(model, safe='')}:{method}"


def parse_request(body: Json, path: str) -> Request:
    """A request; the model and whether to stream stand in its path."""
    body = camel(body)
    contents = body.pop("contents", None)
    if isinstance(contents, dict):
        contents = [contents]
    if not isinstance(contents, list):
        raise InvalidRequest("contents", "is required, and is an array")
    model, stream = model_of(path)
    request = Request(FAMILY, model, [], stream=stream, stream_usage=True)
    if not model:
        request.model = take_str(body, "model")
    if isinstance(body.get("systemInstruction"), dict):
        system = body.pop("systemInstruction")
        parts = [parse_part(part) for part in system.pop("parts", None) or ()]
        system.pop("role", None)
        request.messages.append(Message("system", parts, extras=system or None))
    ids = _Ids()
    for n, content in enumerate(contents):
        request.messages.append(_parse_content(content, f"contents[{n}]", ids))
    for tool in take_list(body, "tools") or ():
        _parse_tool(request, camel(tool))
    _parse_choice(request, body)
    if config := take_dict(body, "generationConfig"):
        _parse_config(request, camel(config), body)
    request.extras = body or None
    return request


class _Ids:
    """Ids for calls that have none; a result belongs to the first open call of its name."""

    def __init__(self) -> None:
        self.count = 0
        self.open: dict[str, list[str]] = {}

    def call(self, name: str) -> str:
        self.count += 1
        made = f"{INVENTED}{self.count}_{name}"
        self.open.setdefault(name, []).append(made)
        return made

    def result(self, name: str) -> str:
        waiting = self.open.get(name)
        return waiting.pop(0) if waiting else f"{INVENTED}0_{name}"


def _parse_content(content: Any, field: str, ids: _Ids) -> Message:
    if not isinstance(content, dict):
        raise InvalidRequest(field, "is not an object")
    role = content.pop("role", None) or "user"
    if role not in _ROLES:
        raise InvalidRequest(f"{field}.role", f"{role!r} is not a role")
    parts: list[Part] = []
    for raw in content.pop("parts", None) or ():
        part = parse_part(raw)
        if isinstance(part, ToolCall) and not part.id:
            part.id = ids.call(part.name)
        elif isinstance(part, ToolResult) and not part.call_id:
            part.call_id = ids.result(part.name)
        parts.append(part)
    return Message(_ROLES[role], parts, extras=content or None)


def _parse_tool(request: Request, tool: Json) -> None:
    for declaration in take_list(tool, "functionDeclarations") or ():
        declaration = camel(declaration)
        out = Tool(take_str(declaration, "name"))
        if isinstance(declaration.get("description"), str):
            out.description = declaration.pop("description")
        for key in ("parameters", "parametersJsonSchema"):
            if isinstance(declaration.get(key), dict):
                schema = declaration.pop(key)
                out.raw = {key: schema}
                out.schema = to_json_schema(schema) if key == "parameters" else schema
                break
        out.extras = declaration or None
        request.tools.append(out)
    if tool:
        request.tools.append(Tool(next(iter(tool)), builtin=True, extras=tool))


def _parse_choice(request: Request, body: Json) -> None:
    config = body.get("toolConfig")
    if not isinstance(config, dict):
        return
    config = body["toolConfig"] = camel(config)
    calling = config.get("functionCallingConfig")
    if not isinstance(calling, dict):
        return
    calling = camel(calling)
    mode = str(calling.get("mode", "")).upper()
    names = calling.get("allowedFunctionNames") or []
    if mode in _MODES and len(names) <= (1 if mode == "ANY" else 0):
        if names:
            request.tool_choice = ToolChoice("named", names[0])
        else:
            request.tool_choice = ToolChoice(_MODES[mode])  # type: ignore[arg-type]
        del config["functionCallingConfig"]
    if not config:
        del body["toolConfig"]


def _parse_config(request: Request, config: Json, body: Json) -> None:
    request.max_tokens = take_int(config, "maxOutputTokens")
    request.temperature = take_number(config, "temperature")
    request.top_p = take_number(config, "topP")
    top_k = take_number(config, "topK")
    request.top_k = None if top_k is None else int(top_k)
    request.stop = take_list(config, "stopSequences")
    request.n = take_int(config, "candidateCount")
    request.seed = take_int(config, "seed")
    request.presence_penalty = take_number(config, "presencePenalty")
    request.frequency_penalty = take_number(config, "frequencyPenalty")
    request.logprobs = take_bool(config, "responseLogprobs")
    request.top_logprobs = take_int(config, "logprobs")
    _parse_output(request, config)
    thinking = config.get("thinkingConfig")
    if isinstance(thinking, dict):
        del config["thinkingConfig"]
        thinking = camel(thinking)
        shown = take_bool(thinking, "includeThoughts")
        level = take_str(thinking, "thinkingLevel").lower()
        request.thinking = Thinking(
            effort=level or None,
            budget=take_int(thinking, "thinkingBudget"),
            summary=None if shown is None else "auto" if shown else "none",
            extras=thinking or None,
        )
    if config:
        body["generationConfig"] = config


def _parse_output(request: Request, config: Json) -> None:
    if config.get("responseMimeType") != "application/json":
        return
    for key in ("responseJsonSchema", "responseSchema"):
        if isinstance(config.get(key), dict):
            schema = config.pop(key)
            plain = to_json_schema(schema) if key == "responseSchema" else schema
            request.output = OutputFormat("schema", plain, raw={key: schema})
            break
    else:
        request.output = OutputFormat("json")
    del config["responseMimeType"]


def write_request(request: Request, losses: Losses) -> Json:
    """The JSON object for a provider of this format."""
    same = request.family == FAMILY
    writer = PartWriter(losses, same=same, request=True)
    out: Json = {"contents": []}
    _write_messages(request, out, writer, losses, same=same)
    _write_tools(request, out, losses, same=same)
    config = _write_config(request, losses, same=same)
    if config:
        out["generationConfig"] = config
    if request.parallel_tools is False:
        losses.drop("parallel_tool_calls")
    losses.unsupported(request, "user", "metadata", "service_tier")
    if request.extras and same:
        merged(out, request.extras)
    elif request.extras:
        losses.extras(request.extras)
    return out


def _write_messages(
    request: Request, out: Json, writer: PartWriter, losses: Losses, *, same: bool
) -> None:
    contents: list[Json] = out["contents"]
    for n, message in enumerate(request.messages):
        field = f"messages[{n}]"
        parts = message.parts if same else lower(message.parts, FAMILY)
        written = writer.all(parts, f"{field}.content")
        if message.name:
            losses.drop(f"{field}.name")
        if message.extras and not same:
            losses.extras(message.extras, field)
        extras = cast(Json, message.extras or {}) if same else {}
        if message.role in ("system", "developer"):
            if contents:
                losses.drop(field, "a system message within the talk moves to its beginning")
            system = out.setdefault("systemInstruction", {"parts": []})
            system["parts"] += written
            system |= extras
            continue
        role = "model" if message.role == "assistant" else "user"
        last = contents[-1] if contents else None
        if last is not None and last["role"] == role and message.role == "tool":
            last["parts"] += written
        elif written or same:
            contents.append({"role": role, "parts": written, **extras})


def _write_tools(request: Request, out: Json, losses: Losses, *, same: bool) -> None:
    tools: list[Json] = []
    declarations: list[Json] = []
    for n, tool in enumerate(request.tools):
        if tool.builtin:
            if same and tool.extras:
                tools.append(tool.extras)
            else:
                losses.drop(f"tools[{n}]", f"{losses.target} has no tool {tool.name!r} of its own")
            continue
        declarations.append(_write_tool(tool, losses, f"tools[{n}]", same=same))
    if declarations:
        tools.insert(0, {"functionDeclarations": declarations})
    if tools:
        out["tools"] = tools
    choice = request.tool_choice
    if choice is not None:
        calling: Json = {"mode": {"auto": "AUTO", "none": "NONE"}.get(choice.mode, "ANY")}
        if choice.mode == "named":
            calling["allowedFunctionNames"] = [choice.name]
        out["toolConfig"] = {"functionCallingConfig": calling}


def _write_tool(tool: Tool, losses: Losses, field: str, *, same: bool) -> Json:
    out: Json = {"name": tool.name}
    if tool.description is not None:
        out["description"] = tool.description
    if tool.custom:
        losses.drop(field, "a tool of free text becomes one with the argument `input`")
        properties = {"input": {"type": "string"}}
        out["parametersJsonSchema"] = {"type": "object", "properties": properties}
        return out
    if same and tool.raw is not None:
        out |= tool.raw
    elif tool.schema is not None:
        out["parametersJsonSchema"] = tool.schema
    if tool.strict:
        losses.drop(f"{field}.strict")
    if tool.cache is not None:
        losses.drop(f"{field}.cache_control")
    if same:
        out |= tool.extras or {}
    else:
        losses.extras(tool.extras, field)
    return out


def _write_config(request: Request, losses: Losses, *, same: bool) -> Json:
    values = {
        "maxOutputTokens": request.max_tokens,
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "stopSequences": request.stop,
        "candidateCount": request.n,
        "seed": request.seed,
        "presencePenalty": request.presence_penalty,
        "frequencyPenalty": request.frequency_penalty,
        "responseLogprobs": request.logprobs,
        "logprobs": request.top_logprobs,
    }
    config: Json = {key: value for key, value in values.items() if value is not None}
    form = request.output
    if form is not None and form.kind != "text":
        config["responseMimeType"] = "application/json"
        if same and form.raw is not None:
            config |= form.raw
        elif form.schema is not None:
            config["responseJsonSchema"] = form.schema
        if form.description:
            losses.drop("response_format.json_schema.description")
    if request.thinking is not None:
        config["thinkingConfig"] = _write_thinking(request.thinking, request, same=same)
    return config


def _write_thinking(thinking: Thinking, request: Request, *, same: bool) -> Json:
    out: Json = {}
    off = thinking.enabled is False or thinking.effort == "none" or thinking.budget == 0
    if thinking.summary is not None:
        out["includeThoughts"] = thinking.summary != "none"
    elif not same and not off:
        out["includeThoughts"] = True
    if thinking.budget is not None:
        out["thinkingBudget"] = thinking.budget
    if same:
        if thinking.effort is not None:
            out["thinkingLevel"] = thinking.effort
        return out | (thinking.extras or {})
    effort = "none" if off else thinking.effort
    if effort is not None and thinking.budget is None and effort != "auto":
        if "gemini-3" in request.model:
            out["thinkingLevel"] = _LEVELS.get(effort, "high")
        else:
            out["thinkingBudget"] = BUDGETS.get(effort, BUDGETS["medium"])
    return out
