"""The format, put together."""

from __future__ import annotations

from typing import Any

from tidegate_ai_formats.format import Format, StreamParser, StreamWriter
from tidegate_ai_formats.losses import Failure, Losses
from tidegate_ai_formats.model import Json, Request, Response, Usage

from . import request as requests
from . import response as responses
from .dialects import DIALECTS, FAMILY, Dialect
from .stream_parser import ChatStreamParser
from .stream_writer import ChatStreamWriter


class ChatFormat(Format):
    """OpenAI Chat Completions in one of its dialects."""

    name = "openai-chat"
    family = FAMILY

    def __init__(self, dialect: Dialect | None = None) -> None:
        self.dialect = dialect or DIALECTS["openai"]

    def in_dialect(self, dialect: str) -> ChatFormat:
        if dialect not in DIALECTS:
            raise LookupError(f"the format {self.name!r} has no dialect {dialect!r}")
        return ChatFormat(DIALECTS[dialect])

    def parse_request(self, body: Json, path: str = "") -> Request:
        return requests.parse_request(body)

    def write_request(self, request: Request, losses: Losses) -> Json:
        return requests.write_request(request, losses, self.dialect)

    def path(self, request: Request) -> str:
        return "/chat/completions"

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

    def parse_usage(self, usage: Json) -> Usage:
        return responses.parse_usage(usage)

    def stream_parser(self) -> StreamParser:
        return ChatStreamParser()

    def stream_writer(self, losses: Losses, request: Request | None = None) -> StreamWriter:
        return ChatStreamWriter(losses, usage=request is None or request.stream_usage)


FORMAT = ChatFormat()
