"""The format, put together."""

from __future__ import annotations

from typing import Any

from tidegate_ai_formats.chat.response import parse_error, write_error
from tidegate_ai_formats.format import Format, StreamParser, StreamWriter
from tidegate_ai_formats.losses import Failure, Losses
from tidegate_ai_formats.model import Json, Request, Response, Usage

from . import request as requests
from . import response as responses
from .items import FAMILY
from .stream_parser import ResponsesStreamParser
from .stream_writer import ResponsesStreamWriter


class ResponsesFormat(Format):
    """OpenAI Responses, without its memory: requests that refer to it are refused elsewhere."""

    name = "openai-responses"
    family = FAMILY

    def parse_request(self, body: Json, path: str = "") -> Request:
        return requests.parse_request(body)

    def write_request(self, request: Request, losses: Losses) -> Json:
        return requests.write_request(request, losses)

    def path(self, request: Request) -> str:
        return "/responses"

    def parse_response(self, body: Json) -> Response:
        return responses.parse_response(body)

    def write_response(
        self, response: Response, losses: Losses, request: Request | None = None
    ) -> Json:
        return responses.write_response(response, losses, request)

    def parse_error(self, status: int, body: Any) -> Failure:
        return parse_error(status, body)

    def write_error(self, failure: Failure) -> tuple[int, Json]:
        return write_error(failure)

    def parse_usage(self, usage: Json) -> Usage:
        return responses.parse_usage(usage)

    def stream_parser(self) -> StreamParser:
        return ResponsesStreamParser()

    def stream_writer(self, losses: Losses, request: Request | None = None) -> StreamWriter:
        return ResponsesStreamWriter(losses, request)


FORMAT = ResponsesFormat()
