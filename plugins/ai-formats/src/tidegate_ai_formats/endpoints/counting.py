"""Counting the tokens of a chat request: Anthropic, Gemini, OpenAI Responses.

What is asked is a chat request in the chat format of the same family, so that any of the three
can be asked by callers of another; where a provider has no such endpoint, whoever counts
answers by `counted`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar
from urllib.parse import quote

from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import Json, Request
from tidegate_ai_formats.registry import get_format
from tidegate_ai_formats.wire import count, take_dict

from .base import Endpoint, EndpointAnswer, EndpointRequest
from .embed import model_of


class Counting(Endpoint):
    """What the formats have in common: the field of the answer, and what a count can't say."""

    kind = "count-tokens"
    tokens: ClassVar[str]
    without: ClassVar[tuple[str, ...]] = ()

    def parse_request(self, body: Json, path: str = "") -> EndpointRequest:
        asked = get_format(self.errors).parse_request(body, path)
        found = EndpointRequest(self.family, asked.model, asked, max_tokens=asked.max_tokens)
        found.messages, found.tools = asked.messages, asked.tools
        return found

    def write_request(self, request: EndpointRequest, losses: Losses) -> Json:
        chat: Request = replace(request.value, model=request.model, stream=False)
        out = get_format(self.errors).write_request(chat, losses)
        return {key: value for key, value in out.items() if key not in self.without}

    def parse_answer(self, body: Json) -> EndpointAnswer:
        if self.tokens not in body:
            raise ValueError("an answer without a count")
        tokens = count(body, self.tokens)
        return EndpointAnswer(tokens, extras=body)

    def write_answer_of(
        self, answer: EndpointAnswer, asked: EndpointRequest, losses: Losses
    ) -> Json:
        return self.counted(answer.value)

    def counted(self, tokens: int) -> Json:
        """The answer that says `tokens`."""
        return {self.tokens: tokens}


class AnthropicCounting(Counting):
    """`/v1/messages/count_tokens`."""

    name = "anthropic-count-tokens"
    family = "anthropic"
    errors = "anthropic-messages"
    tokens = "input_tokens"
    without = (
        *("max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences"),
        *("metadata", "service_tier"),
    )

    def path(self, request: EndpointRequest) -> str:
        return "/v1/messages/count_tokens"


class ResponsesCounting(Counting):
    """OpenAI's `/v1/responses/input_tokens`."""

    name = "openai-count-tokens"
    family = "responses"
    errors = "openai-responses"
    tokens = "input_tokens"
    without = (
        *("max_output_tokens", "stream", "stream_options", "temperature", "top_p", "store"),
        *("metadata", "service_tier", "user", "top_logprobs", "include"),
    )

    def path(self, request: EndpointRequest) -> str:
        return "/responses/input_tokens"

    def counted(self, tokens: int) -> Json:
        return {"object": "response.input_tokens", "input_tokens": tokens}


class GeminiCounting(Counting):
    """`countTokens`."""

    name = "gemini-count-tokens"
    family = "gemini"
    errors = "gemini"
    tokens = "totalTokens"

    def path(self, request: EndpointRequest) -> str:
        return f"/models/{quote(request.model, safe='')}:countTokens"

    def parse_request(self, body: Json, path: str = "") -> EndpointRequest:
        inner = take_dict(body, "generateContentRequest") or body
        named = str(inner.pop("model", None) or "").removeprefix("models/")
        found = super().parse_request(inner, path)
        found.model = model_of(path)[0] or named
        return found

    def write_request(self, request: EndpointRequest, losses: Losses) -> Json:
        chat = super().write_request(request, losses)
        return {"generateContentRequest": {"model": f"models/{request.model}", **chat}}

    def counted(self, tokens: int) -> Json:
        details = [{"modality": "TEXT", "tokenCount": tokens}]
        return {"totalTokens": tokens, "promptTokensDetails": details}


ANTHROPIC = AnthropicCounting()
GEMINI = GeminiCounting()
RESPONSES = ResponsesCounting()
