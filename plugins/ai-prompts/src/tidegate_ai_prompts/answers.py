"""What callers of a prompt get: output, streams of it, and errors in one shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import orjson
from mitmproxy import http

from tidegate.api import Denial, ErrorCode, Exchange, SseEvent, StashKey

from .operation import InvalidOutput, Operation
from .options import Json

type Wanted = Literal["json", "text", "stream"]

NOT_JSON: Final = ErrorCode("prompt_body_invalid", 400, "The body is not a JSON object.")
INVALID: Final = ErrorCode("prompt_variables_invalid", 422, "The variables are not acceptable.")
TEMPLATE: Final = ErrorCode(
    "prompt_template_failed", 422, "The prompt can't be made of these variables."
)
OUTPUT: Final = ErrorCode(
    "prompt_output_invalid", 502, "The model's answer is not what the prompt promises."
)
REFUSED: Final = ErrorCode("prompt_refused", 502, "The model declined to answer.")
MODEL_FAILED: Final = "model_error"
"""The code of an error that the model's provider gave; its status stays."""


class Job:
    """One call of a prompt, on its exchange. `text` is what a stream has said so far."""

    __slots__ = ("finish", "model", "operation", "path", "text", "usage", "wanted")

    def __init__(self, operation: Operation, wanted: Wanted, path: str) -> None:
        self.operation = operation
        self.wanted = wanted
        self.path = path
        """The path that was called."""
        self.text: list[str] = []
        self.usage: Json | None = None
        self.model = ""
        self.finish = ""

    def facts(self) -> Json:
        """What is told beside the output."""
        facts: Json = {
            "model": self.model,
            "prompt": self.operation.prompt.name,
            "version": self.operation.version.version,
        }
        return facts if self.usage is None else {"usage": self.usage, **facts}

    def learn(self, body: Json) -> None:
        """Take the model's name and the usage out of an answer, or a chunk of one."""
        self.model = body.get("model") or self.model
        usage = body.get("usage")
        if isinstance(usage, dict):
            self.usage = {
                "input_tokens": usage.get("prompt_tokens", 0),
                "output_tokens": usage.get("completion_tokens", 0),
            }


JOB: Final = StashKey[Job]("ai-prompts.job")


def wanted_of(exchange: Exchange, body: Json) -> Wanted:
    """How the caller wants the answer: `"stream": true` in the body, else by Accept."""
    accept = (exchange.header("accept") or "").lower()
    if body.get("stream") is True or "text/event-stream" in accept:
        return "stream"
    json, text = accept.find("application/json"), accept.find("text/plain")
    return "text" if text >= 0 and not 0 <= json < text else "json"


def problem(
    exchange: Exchange,
    code: ErrorCode,
    message: str = "",
    faults: Sequence[tuple[str, str]] = (),
) -> http.Response:
    """An error, with the fields that are wrong."""
    error: Json = {
        "code": code.code,
        "message": message or code.message,
        "request_id": exchange.id,
    }
    if faults:
        error["fields"] = [{"name": name, "message": text} for name, text in faults]
    headers = {"content-type": "application/json"}
    return http.Response.make(code.status, orjson.dumps({"error": error}), headers)


def put(response: http.Response, content: bytes, kind: bytes) -> None:
    """Another body in place of the one that came."""
    data = response.data
    data.content = content
    old = (b"content-type", b"content-encoding", b"content-length", b"etag")
    kept = [field for field in data.headers.fields if field[0].lower() not in old]
    data.headers.fields = (*kept, (b"content-type", kind))


def give(job: Job, exchange: Exchange, response: http.Response) -> Denial | None:
    """Make the prompt's answer of the chat's."""
    try:
        body = orjson.loads(response.content or b"")
    except ValueError:
        body = None
    if response.status_code >= 400:
        put(response, orjson.dumps({"error": _error(body, exchange)}), b"application/json")
        return None
    if not isinstance(body, dict) or not body.get("choices"):
        return OUTPUT.denial("The model's answer could not be read.")
    job.learn(body)
    choice = body["choices"][0]
    message = choice.get("message") or {}
    if message.get("refusal"):
        return REFUSED.denial()
    job.finish = choice.get("finish_reason") or ""
    text = message.get("content") or ""
    try:
        output = job.operation.output(text)
    except InvalidOutput as error:
        return OUTPUT.denial(_reason(job, error))
    if job.wanted == "text":
        said = output if isinstance(output, str) else orjson.dumps(output).decode()
        put(response, said.encode(), b"text/plain; charset=utf-8")
    else:
        put(response, orjson.dumps({"output": output, **job.facts()}), b"application/json")
    return None


def event(job: Job, exchange: Exchange, sent: SseEvent) -> list[SseEvent] | Denial:
    """What a caller's stream says for one chunk of the chat's."""
    if sent.data == "[DONE]":
        return _done(job)
    try:
        body = orjson.loads(sent.data)
    except ValueError:
        return []
    if not isinstance(body, dict):
        return []
    if "error" in body:
        error = {"error": _error(body, exchange)}
        return [SseEvent(orjson.dumps(error).decode(), "error")]
    job.learn(body)
    out: list[SseEvent] = []
    for choice in body.get("choices") or ():
        job.finish = choice.get("finish_reason") or job.finish
        text = (choice.get("delta") or {}).get("content")
        if text:
            job.text.append(text)
            out.append(SseEvent(orjson.dumps({"delta": text}).decode()))
    return out


def _done(job: Job) -> list[SseEvent] | Denial:
    try:
        job.operation.output("".join(job.text))
    except InvalidOutput as error:
        return OUTPUT.denial(_reason(job, error))
    facts = {"finish": job.finish, **job.facts()}
    return [SseEvent(orjson.dumps(facts).decode(), "done")]


def _reason(job: Job, error: InvalidOutput) -> str:
    cut = " It was cut at its length limit." if job.finish == "length" else ""
    return f"The model's answer is not of the prompt's schema: {error}.{cut}"


def _error(body: Any, exchange: Exchange) -> Json:
    """The provider's error, in the shape of the gateway's own."""
    told = body.get("error") if isinstance(body, dict) else None
    message = told.get("message") if isinstance(told, dict) else None
    return {
        "code": MODEL_FAILED,
        "message": message or "The model could not answer.",
        "request_id": exchange.id,
    }
