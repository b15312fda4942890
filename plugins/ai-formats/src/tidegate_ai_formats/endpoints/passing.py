"""Formats whose calls only pass: images, speech, transcription, moderations, lists of models."""

from __future__ import annotations

from typing import ClassVar

from tidegate_ai_formats.losses import Losses
from tidegate_ai_formats.model import Json, Usage
from tidegate_ai_formats.wire import count, take_bool, take_str

from .base import Endpoint, EndpointAnswer, EndpointRequest


class PassingEndpoint(Endpoint):
    """An endpoint of OpenAI's. The path is the caller's, below its version."""

    family = "openai"
    at: ClassVar[str]

    def parse_request(self, body: Json, path: str = "") -> EndpointRequest:
        stream = take_bool(body, "stream") or take_str(body, "stream") == "true"
        where = path.partition("/v1")[2] or self.at
        return EndpointRequest(self.family, take_str(body, "model"), where, stream, body)

    def write_request(self, request: EndpointRequest, losses: Losses) -> Json:
        return {**(request.extras or {}), "model": request.model}

    def path(self, request: EndpointRequest) -> str:
        return str(request.value or self.at)

    def parse_answer(self, body: Json) -> EndpointAnswer:
        usage = body.get("usage")
        found = None
        if isinstance(usage, dict):
            into = count(usage, "input_tokens") or count(usage, "prompt_tokens")
            output = count(usage, "output_tokens") or count(usage, "completion_tokens")
            found = Usage(into, output, family=self.family, raw=usage)
        return EndpointAnswer(None, take_str(body, "id"), take_str(body, "model"), found, body)

    def write_answer_of(
        self, answer: EndpointAnswer, asked: EndpointRequest, losses: Losses
    ) -> Json:
        return answer.extras or {}


class Images(PassingEndpoint):
    """`/images/generations`, `/images/edits`, `/images/variations`."""

    name = "openai-images"
    kind = "images"
    at = "/images/generations"


class Speech(PassingEndpoint):
    """`/audio/speech`."""

    name = "openai-speech"
    kind = "speech"
    at = "/audio/speech"


class Transcription(PassingEndpoint):
    """`/audio/transcriptions`, `/audio/translations`: forms."""

    name = "openai-transcription"
    kind = "transcription"
    at = "/audio/transcriptions"


class Moderations(PassingEndpoint):
    """`/moderations`."""

    name = "openai-moderations"
    kind = "moderations"
    at = "/moderations"


class ModelList(PassingEndpoint):
    """`/models`."""

    name = "openai-models"
    kind = "models"
    at = "/models"


class GeminiModelList(ModelList):
    """Google's `/models`."""

    name = "gemini-models"
    errors = "gemini"


GEMINI_MODELS = GeminiModelList()
IMAGES = Images()
SPEECH = Speech()
TRANSCRIPTION = Transcription()
MODERATIONS = Moderations()
MODELS = ModelList()
