"""The OpenAI format: requests checked, answers made, whole or as a stream of events.

Source: OpenAI API reference, "Chat", "Chat streaming", "Models", "Embeddings" and "Errors".
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import struct
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

import orjson

from .model import DIMENSIONS, embedding, example, prompt_tokens, reply, words
from .server import Answer, Request

JSON: Final = {"content-type": "application/json"}
EVENTS: Final = {"content-type": "text/event-stream", "cache-control": "no-cache"}
MODEL: Final = "demo"
CREATED: Final = 1_764_547_200
MAX_INPUTS: Final = 2048
ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")


class Refused(Exception):
    """A request that the format does not allow."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


def error(status: int, message: str, param: str | None = None) -> Answer:
    """An error in OpenAI's shape."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": None}}
    return Answer(status, orjson.dumps(body), dict(JSON))


def answer(request: Request, pace: float) -> Answer:
    """The answer to any request. `pace`: seconds between two words of a stream."""
    try:
        return _answer(request, pace)
    except Refused as refused:
        return error(refused.status, str(refused), refused.param)


def _answer(request: Request, pace: float) -> Answer:
    path = request.path.rstrip("/")
    post = {"/v1/chat/completions": True, "/v1/embeddings": True}.get(path, False)
    known = post or path == "/v1/models" or path.startswith("/v1/models/")
    if not known:
        raise Refused(
            f"The demo upstream has no {path or '/'}: it serves chat completions, embeddings "
            "and models.",
            status=404,
        )
    if request.method not in (("POST",) if post else ("GET", "HEAD")):
        raise Refused(f"Not a method of {path}: {request.method}", status=405)
    if path == "/v1/models":
        return _whole({"object": "list", "data": [_model(MODEL)]})
    if not post:
        return _whole(_model(path.removeprefix("/v1/models/")))
    body = _body(request)
    if path == "/v1/embeddings":
        return _whole(_embeddings(body))
    return _chat(body, pace)


def _whole(value: object) -> Answer:
    return Answer(200, orjson.dumps(value), dict(JSON))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "tidegate"}


def _body(request: Request) -> dict[str, Any]:
    try:
        body = orjson.loads(request.body)
    except ValueError:
        raise Refused("The body of the request is not JSON.") from None
    if not isinstance(body, dict):
        raise Refused("The body of the request is not a JSON object.")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise Refused("You must provide a model parameter.", "model")
    return body


# -- chat -------------------------------------------------------------------------------------


class Completion:
    """What is answered to one chat request, decided before its first byte is sent."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        messages = _messages(body)
        self.id = f"chatcmpl-demo-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.model = body["model"]
        self.finish = "stop"
        self.tool: str | None = _chosen_tool(body)
        text = _arguments(body, self.tool) if self.tool is not None else _text(body, messages)
        self.pieces = words(text)
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        if limit is not None and (type(limit) is not int or limit < 1):
            raise Refused("The maximum number of tokens is a positive integer.", "max_tokens")
        if self.tool is not None:
            self.finish = "tool_calls"
            self.call_id = f"call_demo_{secrets.token_hex(8)}"
        elif limit is not None and limit < len(self.pieces):
            self.finish = "length"
            self.pieces = self.pieces[:limit]
        sent = prompt_tokens(messages, body.get("tools"))
        self.usage = {
            "prompt_tokens": sent,
            "completion_tokens": len(self.pieces),
            "total_tokens": sent + len(self.pieces),
        }

    def whole(self) -> dict[str, Any]:
        """The `chat.completion` object."""
        text = "".join(self.pieces)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self.tool is not None:
            function = {"name": self.tool, "arguments": text}
            message["content"] = None
            message["tool_calls"] = [{"id": self.call_id, "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "usage": self.usage,
        }

    async def events(self, pace: float, with_usage: bool) -> AsyncGenerator[bytes, None]:
        """The same as server-sent events: role, words, finish reason, usage where asked for."""
        yield self._chunk(self._opening(), None, with_usage)
        for piece in self.pieces:
            if pace:
                await asyncio.sleep(pace)
            if self.tool is None:
                delta: dict[str, Any] = {"content": piece}
            else:
                delta = {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
            yield self._chunk(delta, None, with_usage)
        yield self._chunk({}, self.finish, with_usage)
        if with_usage:
            yield _event({**self._frame(), "choices": [], "usage": self.usage})
        yield b"data: [DONE]\n\n"

    def _opening(self) -> dict[str, Any]:
        if self.tool is None:
            return {"role": "assistant", "content": "", "refusal": None}
        function = {"name": self.tool, "arguments": ""}
        call = {"index": 0, "id": self.call_id, "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    def _frame(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
        }

    def _chunk(self, delta: dict[str, Any], finish: str | None, with_usage: bool) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = {**self._frame(), "choices": [choice]}
        if with_usage:
            chunk["usage"] = None
        return _event(chunk)


def _event(value: object) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _chat(body: Mapping[str, Any], pace: float) -> Answer:
    completion = Completion(body)
    if not body.get("stream"):
        return _whole(completion.whole())
    options = body.get("stream_options")
    with_usage = isinstance(options, Mapping) and bool(options.get("include_usage"))
    return Answer(200, completion.events(pace, with_usage), dict(EVENTS))


def _messages(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("Missing required parameter: 'messages'.", "messages")
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            raise Refused(f"Invalid value: messages[{number}] has no known role.", "messages")
    return messages


def _chosen_tool(body: Mapping[str, Any]) -> str | None:
    """The name of the tool that the answer must call, if `tool_choice` says so."""
    names = [_function(tool).get("name") for tool in _list(body.get("tools"))]
    choice = body.get("tool_choice")
    if choice == "required":
        if not names or not isinstance(names[0], str):
            raise Refused("'tool_choice' is \"required\", but there are no tools.", "tool_choice")
        return names[0]
    if isinstance(choice, Mapping):
        wanted = _function(choice).get("name")
        if not isinstance(wanted, str) or wanted not in names:
            raise Refused("'tool_choice' names a tool that is not in 'tools'.", "tool_choice")
        return wanted
    return None


def _function(tool: object) -> Mapping[str, Any]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    return function if isinstance(function, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else []


def _arguments(body: Mapping[str, Any], name: str) -> str:
    functions = (_function(tool) for tool in _list(body.get("tools")))
    schema = next(f.get("parameters") for f in functions if f.get("name") == name)
    return orjson.dumps(example(schema) if schema else {}).decode()


def _text(body: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> str:
    """The reply; where JSON is asked for, JSON."""
    form = body.get("response_format")
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "json_object":
        return orjson.dumps({"answer": reply(messages)}).decode()
    if kind == "json_schema":
        assert isinstance(form, Mapping)
        described = form.get("json_schema")
        schema = described.get("schema") if isinstance(described, Mapping) else None
        return orjson.dumps(example(schema)).decode()
    return reply(messages)


# -- embeddings -------------------------------------------------------------------------------


def _embeddings(body: Mapping[str, Any]) -> dict[str, Any]:
    given = body.get("input")
    inputs = [given] if isinstance(given, str) or _is_tokens(given) else _list(given)
    texts = [_input_text(item) for item in inputs]
    if not texts or len(texts) > MAX_INPUTS or "" in texts:
        raise Refused("'input' is a text, or 1 to 2048 of them, none empty.", "input")
    dimensions = body.get("dimensions", DIMENSIONS)
    if type(dimensions) is not int or not 1 <= dimensions <= 4096:
        raise Refused("'dimensions' is an integer from 1 to 4096.", "dimensions")
    encoded = body.get("encoding_format") == "base64"
    data = []
    for index, text in enumerate(texts):
        vector: object = embedding(text, dimensions)
        if encoded:
            vector = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()  # type: ignore[misc]
        data.append({"object": "embedding", "index": index, "embedding": vector})
    tokens = sum(len(words(text)) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def _is_tokens(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def _input_text(item: object) -> str:
    if isinstance(item, str):
        return item
    return " ".join(map(str, item)) if _is_tokens(item) else ""  # type: ignore[call-overload]
