"""The machines of the formats whose events are few; see the writers for each grammar."""

from __future__ import annotations

from json import loads
from typing import Any, Final

from .base import Machine, need, value


def chat(*, strict: bool = True) -> Machine:
    """OpenAI Chat Completions. `strict`: as OpenAI itself sends it; else also as others do, who
    repeat usage and names, change `created`, and leave out what is null."""
    finished: set[int] = set()
    seen: set[int] = set()
    calls: set[tuple[int, int]] = set()
    head: tuple[Any, ...] | None = None
    usage = False
    while True:
        event = yield
        if event is not None and event.data == "[DONE]":
            break
        need(event is None or not event.event, "chunks have no event name")
        chunk = value(event, "[DONE] is missing")
        if "error" in chunk:
            need(chunk["error"].get("message"), "an error says something")
            continue
        need(chunk["object"] == "chat.completion.chunk", "the object is chat.completion.chunk")
        same = (chunk["id"], chunk["model"], chunk["created"])
        head = head or same
        need(same == head or not strict, "id, model and created are the same in every chunk")
        need(not usage or not strict, "usage is last")
        usage = bool(chunk.get("usage"))
        alone = chunk["choices"] == [] or not strict
        need(not usage or alone, "the chunk with usage has no choices")
        for choice in chunk["choices"]:
            n = choice["index"]
            delta = choice["delta"]
            need(n not in finished or not strict, "nothing follows the finish reason")
            begun = n in seen or delta.get("role") == "assistant" or not strict
            need(begun, "the first delta has the role")
            seen.add(n)
            for call in delta.get("tool_calls") or ():
                _chat_call(n, call, calls, strict=strict)
            need("finish_reason" in choice or not strict, "finish_reason is there, or null")
            if choice.get("finish_reason"):
                finished.add(n)
    whole = finished == seen or head is None or usage is False or not strict
    need(whole, "every choice has a finish reason")
    yield


def _chat_call(n: int, call: Any, calls: set[tuple[int, int]], *, strict: bool) -> None:
    inner = call.get("function") or call.get("custom")
    if (n, call["index"]) not in calls:
        calls.add((n, call["index"]))
        need(call.get("type") and "name" in inner, "a call begins with type and name")
        expected = sum(1 for one in calls if one[0] == n) - 1
        need(call["index"] == expected, "calls are numbered from 0")
    else:
        once = "name" not in inner and "id" not in call
        need(once or not strict, "a name is said once")


_DELTAS: Final = {
    "text": ("text_delta", "citations_delta"),
    "thinking": ("thinking_delta", "signature_delta"),
    "tool_use": ("input_json_delta",),
    "server_tool_use": ("input_json_delta",),
    "mcp_tool_use": ("input_json_delta",),
}


def anthropic() -> Machine:
    """Anthropic Messages."""
    event = yield
    data = value(event)
    if data["type"] == "error":
        yield
        return
    need(data["type"] == "message_start", "a stream begins with message_start")
    message = data["message"]
    need(message["role"] == "assistant" and message["content"] == [], "it begins empty")
    need("input_tokens" in message["usage"], "message_start has usage")
    count, block, signed = 0, None, False
    while True:
        event = yield
        data = value(event)
        kind = data["type"]
        need(event is not None and event.event == kind, "the event is named by its type")
        if kind == "error":
            yield
            return
        if kind == "message_delta":
            break
        if kind == "ping":
            continue
        need(data["index"] == count, "blocks are numbered from 0, one after the other")
        if kind == "content_block_start":
            need(block is None, "blocks do not overlap")
            block, signed = data["content_block"], False
        elif kind == "content_block_stop":
            need(block is not None, "no block is open")
            block, count = None, count + 1
        else:
            need(kind == "content_block_delta" and block is not None, "a delta needs a block")
            assert block is not None
            delta = data["delta"]["type"]
            need(delta in _DELTAS.get(block["type"], ()), f"{block['type']} has no {delta}")
            need(not signed, "a signature ends its block")
            signed = delta == "signature_delta"
    need(block is None, "a block is open")
    need(data["delta"]["stop_reason"], "there is a stop reason")
    need("output_tokens" in data["usage"], "message_delta has usage")
    event = yield
    need(value(event)["type"] == "message_stop", "message_stop ends a stream")
    yield


def gemini() -> Machine:
    """Gemini."""
    finished: set[int] = set()
    seen: set[int] = set()
    while True:
        event = yield
        if event is None:
            break
        chunk = loads(event.data)
        if "error" in chunk:
            need(chunk["error"]["message"], "an error says something")
            yield
            return
        for candidate in chunk["candidates"]:
            n = candidate.get("index", 0)
            need(n not in finished, "nothing follows the finish reason")
            seen.add(n)
            content = candidate.get("content", {"role": "model"})
            need(content["role"] == "model", "the role is model")
            need(content.get("parts") != [], "there is no empty content")
            if candidate.get("finishReason"):
                finished.add(n)
    need(finished == seen, "every candidate has a finish reason")


def cohere() -> Machine:
    """Cohere Chat."""
    event = yield
    data = value(event)
    if data["type"] == "message-end":
        yield
        return
    need(data["type"] == "message-start" and data["id"], "it begins with message-start and id")
    counts = {"content": 0, "tool-call": 0, "citation": 0}
    current = ""
    while True:
        event = yield
        data = value(event)
        kind = data["type"]
        need(event is not None and event.event == kind, "the event is named by its type")
        if kind == "message-end":
            break
        if kind == "tool-plan-delta":
            continue
        what, _, step = kind.rpartition("-")
        need(what in counts, f"there is no event {kind}")
        need(data["index"] == counts[what], f"each {what} is numbered from 0")
        if step == "end":
            counts[what] += 1
        if what == "citation":
            continue
        if step == "start":
            need(not current, "contents and calls do not overlap")
            current = what
        else:
            need(current == what, f"no {what} is open")
            current = "" if step == "end" else current
    reason = data["delta"]["finish_reason"]
    need(reason, "there is a finish reason")
    need(not current or reason == "ERROR", f"a {current} is open")
    event = yield
    if event is not None:
        need(event.data == "[DONE]", "nothing but [DONE] may follow message-end")
        yield


def converse() -> Machine:
    """Bedrock Converse."""
    event = yield
    if event is not None and event.event.startswith("!"):
        yield
        return
    need(event is not None and event.event == "messageStart", "it begins with messageStart")
    count, is_open = 0, False
    while True:
        event = yield
        data = value(event)
        assert event is not None
        if event.event.startswith("!"):
            yield
            return
        if event.event == "messageStop":
            break
        need(data["contentBlockIndex"] == count, "blocks are numbered from 0, in order")
        if event.event == "contentBlockStart":
            need(not is_open and "toolUse" in data["start"], "only calls of tools start")
            is_open = True
        elif event.event == "contentBlockDelta":
            need(is_open or "toolUse" not in data["delta"], "a call starts first")
            is_open = True
        else:
            need(event.event == "contentBlockStop", f"there is no event {event.event}")
            is_open, count = False, count + 1
    need(not is_open, "a block is open")
    need(data["stopReason"], "there is a stop reason")
    event = yield
    need(event is not None and event.event == "metadata", "metadata ends a stream")
    need(value(event)["usage"]["totalTokens"] >= 0, "metadata has usage")
    yield


def ollama() -> Machine:
    """Ollama's own chat."""
    while True:
        event = yield
        data = value(event, "no line says that it is done")
        if "error" in data:
            yield
            return
        need(data["message"]["role"] == "assistant", "the role is assistant")
        if data["done"]:
            need(data.get("done_reason"), "there is a reason")
            yield
            return
