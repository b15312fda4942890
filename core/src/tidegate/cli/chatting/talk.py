"""A conversation with a model behind a gateway, over OpenAI's chat API. No terminal here."""

from __future__ import annotations

import http.client
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from tidegate.api.sse import SseParser
from tidegate.api.types import SseEvent

TIMEOUT: Final = 300.0
"""Seconds of silence that a slow model may need."""
CHAT: Final = "/v1/chat/completions"
MODELS: Final = "/v1/models"


class TalkError(Exception):
    """The gateway said no, or nothing. `status` 0: there was no answer."""

    def __init__(self, message: str, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class Answer:
    """What is known of an answer: it fills while its text is read."""

    text: str = ""
    model: str = ""
    finish: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: str = ""
    """US dollars, as the gateway says."""


@dataclass
class Talk:
    """The conversation so far. `url` is the gateway's."""

    url: str
    key: str = ""
    model: str = ""
    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)

    def models(self) -> list[str]:
        """The names of the models that the gateway lists. Raises TalkError."""
        connection, response = self._send("GET", MODELS)
        try:
            rows = orjson.loads(response.read())["data"]
            return [str(row["id"]) for row in rows]
        except (ValueError, KeyError, TypeError):
            raise TalkError(f"{self.url}{MODELS} is no list of models") from None
        finally:
            connection.close()

    def ask(self, question: str, answer: Answer) -> Generator[str]:
        """The pieces of the answer's text, as they come. Raises TalkError.

        What was said is kept for the next question, also where the caller stops early; a question
        without any answer is not.
        """
        self.turns.append({"role": "user", "content": question})
        try:
            yield from self._stream(answer)
        finally:
            if answer.text:
                self.turns.append({"role": "assistant", "content": answer.text})
            else:
                self.turns.pop()

    def _stream(self, answer: Answer) -> Iterator[str]:
        first = [{"role": "system", "content": self.system}] if self.system else []
        body = {
            "model": self.model,
            "messages": [*first, *self.turns],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        connection, response = self._send("POST", CHAT, orjson.dumps(body))
        try:
            answer.cost = response.getheader("x-tidegate-cost") or ""
            kind = response.getheader("content-type") or ""
            if not kind.startswith("text/event-stream"):
                yield from _learn(orjson.loads(response.read()), answer)
                return
            parser = SseParser()
            ended = False
            while data := response.read1(65536):
                for item in parser.feed(data):
                    if isinstance(item, SseEvent) and item.data == "[DONE]":
                        ended = True
                    elif isinstance(item, SseEvent):
                        yield from _learn(orjson.loads(item.data), answer)
            if not ended:
                raise TalkError("the answer broke off")
        except (OSError, http.client.HTTPException) as error:
            raise TalkError(f"the answer broke off: {str(error) or type(error).__name__}") from None
        except ValueError:
            raise TalkError("the answer is not of OpenAI's chat API") from None
        finally:
            connection.close()

    def _send(
        self, method: str, path: str, body: bytes | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """An answer that is not an error. Raises TalkError."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TalkError(f"{self.url!r} is not the URL of a gateway")
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(parts.hostname, parts.port, timeout=TIMEOUT)
        headers = {"content-type": "application/json"} if body is not None else {}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        try:
            connection.request(method, parts.path.rstrip("/") + path, body, headers)
            response = connection.getresponse()
            if response.status == 200:
                return connection, response
            error = _error(response.status, response.read())
        except (OSError, http.client.HTTPException) as failure:
            error = TalkError(f"no gateway answers at {self.url}: {failure}")
        connection.close()
        raise error


def _learn(body: Any, answer: Answer) -> Iterator[str]:
    """The text in a chunk of an answer, or in a whole one; the rest goes into `answer`."""
    if not isinstance(body, dict):
        raise ValueError("no object")
    if "error" in body:
        raise _error(0, orjson.dumps(body))
    answer.model = body.get("model") or answer.model
    usage = body.get("usage")
    if isinstance(usage, dict):
        answer.input_tokens = usage.get("prompt_tokens")
        answer.output_tokens = usage.get("completion_tokens")
    for choice in body.get("choices") or ():
        answer.finish = choice.get("finish_reason") or answer.finish
        said = choice.get("delta") or choice.get("message") or {}
        text = said.get("content") or said.get("refusal")
        if text:
            answer.text += text
            yield text


def _error(status: int, body: bytes) -> TalkError:
    try:
        told = orjson.loads(body)["error"]
        message, code = str(told["message"]), str(told.get("code") or told.get("type") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = f"the gateway answered {status}", ""
    return TalkError(message, status, code)
