"""The format, put together."""

from __future__ import annotations

from typing import Any

from tidegate.api import Denial
from tidegate_ai_formats.format import Format, Framing, StreamParser, StreamWriter
from tidegate_ai_formats.losses import Failure, Losses
from tidegate_ai_formats.model import Json, Request, Response, Usage

from . import request as requests
from . import response as responses
from .parts import FAMILY
from .stream_parser import GeminiStreamParser
from .stream_writer import GeminiStreamWriter


class GeminiFormat(Format):
    """Gemini generateContent. Without `alt=sse` a stream is one JSON array."""

    name = "gemini"
    family = FAMILY

    def parse_request(self, body: Json, path: str = "") -> Request:
        return requests.parse_request(body, path)

    def write_request(self, request: Request, losses: Losses) -> Json:
        return requests.write_request(request, losses)

    def path(self, request: Request) -> str:
        return requests.path_of(request.model, stream=request.stream)

    def parse_response(self, body: Json) -> Response:
        return responses.parse_response(body)

    def write_response(
        self, response: Response, losses: Losses, request: Request | None = None
    ) -> Json:
        return responses.write_response(response, losses)

    def parse_error(self, status: int, body: Any) -> Failure:
        return responses.parse_error(status, body)

    def write_error(self, failure: Failure) -> tuple[int, Json]:
        return responses.write_error(failure)

    def _name_error(self, error: Json, denial: Denial, request_id: str) -> None:
        """Google says such things in details; `code` is the status."""
        error["code"] = denial.status
        kind = "type.googleapis.com/google.rpc."
        error["details"] = [
            {"@type": kind + "ErrorInfo", "reason": denial.code, "domain": "tidegate"},
            {"@type": kind + "RequestInfo", "requestId": request_id},
        ]

    def parse_usage(self, usage: Json) -> Usage:
        return responses.parse_usage(usage)

    def stream_parser(self) -> StreamParser:
        return GeminiStreamParser()

    def stream_writer(self, losses: Losses, request: Request | None = None) -> StreamWriter:
        return GeminiStreamWriter(losses)

    def response_framing(self, path: str, query: str) -> Framing:
        return "sse" if "alt=sse" in query.split("&") else "json-array"


FORMAT = GeminiFormat()
