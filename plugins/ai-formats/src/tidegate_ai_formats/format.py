"""`Format`: one API format as four sans-I/O translators, and the parts they are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

import orjson

from tidegate.api import Codec, Denial, SseEvent

from .events import Event
from .losses import Failure, InvalidRequest, Losses, Policy, kind_of
from .model import Json, Request, Response, Usage
from .wire import loads

type Framing = Literal["sse", "ndjson", "json-array", "aws"]


class StreamParser(ABC):
    """Wire events of one stream to neutral events. Made for each stream."""

    @abstractmethod
    def feed(self, event: SseEvent) -> list[Event]:
        """The neutral events of one wire event. ValueError: it is not of this format."""

    @abstractmethod
    def end(self) -> list[Event]:
        """What is due at the end of the bytes: `End` if the stream was whole."""


class StreamWriter(ABC):
    """Neutral events to wire events, in the exact grammar of the format."""

    @abstractmethod
    def write(self, event: Event) -> list[SseEvent]:
        """The wire events of one neutral event."""

    @abstractmethod
    def fail(self, failure: Failure) -> list[SseEvent]:
        """The events that end a stream which broke, well-formed."""


class Format(ABC):
    """A format. `name` is that of its entry point; `family` that of its vendor fields.

    Objects given to a parser are its own: it takes them apart.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    kind: ClassVar[str] = "chat"
    framing: ClassVar[Framing] = "sse"
    stream_type: ClassVar[str] = "text/event-stream"

    @abstractmethod
    def parse_request(self, body: Json, path: str = "") -> Request:
        """A request. `path` may name model and streaming. Raises InvalidRequest."""

    @abstractmethod
    def write_request(self, request: Request, losses: Losses) -> Json:
        """The JSON object that a provider of this format is sent. Raises Untranslatable."""

    @abstractmethod
    def path(self, request: Request) -> str:
        """The path of the request, below the provider's base URL."""

    @abstractmethod
    def parse_response(self, body: Json) -> Response:
        """A whole answer. ValueError where it is none."""

    @abstractmethod
    def write_response(
        self, response: Response, losses: Losses, request: Request | None = None
    ) -> Json:
        """A whole answer; `request` is what was asked, for formats that echo it."""

    @abstractmethod
    def parse_error(self, status: int, body: Any) -> Failure:
        """An error; `body` is its JSON value, or text where it is none."""

    @abstractmethod
    def write_error(self, failure: Failure) -> tuple[int, Json]:
        """Status and body that make the format's SDKs raise the right exception."""

    def error_body(self, denial: Denial, request_id: str) -> bytes:
        """An error of the gateway in this format's shape: its code and the request id besides."""
        return orjson.dumps(self.failure_of(denial, request_id).raw)

    def failure_of(self, denial: Denial, request_id: str) -> Failure:
        """The same in neutral words; `raw` is its body in this format's shape."""
        kind = kind_of(denial.status)
        failure = Failure(denial.status, kind, denial.message, denial.code, request_id=request_id)
        _, body = self.write_error(failure)
        error = body.get("error")
        if isinstance(error, dict):
            self._name_error(error, denial, request_id)
        failure.family, failure.raw = self.family, body
        return failure

    def _name_error(self, error: Json, denial: Denial, request_id: str) -> None:
        """Put the stable code and the request id into an error object."""
        error["code"] = denial.code
        error["request_id"] = request_id

    def error_end(self, denial: Denial, request_id: str) -> bytes:
        """The events that end a stream with that error, from wherever it stands."""
        events = self.stream_writer(Losses(self.name)).fail(self.failure_of(denial, request_id))
        return b"\n\n" + b"".join([event.encode() for event in events])

    @abstractmethod
    def parse_usage(self, usage: Json) -> Usage:
        """The format's usage object."""

    @abstractmethod
    def stream_parser(self) -> StreamParser:
        """A parser for one stream."""

    @abstractmethod
    def stream_writer(self, losses: Losses, request: Request | None = None) -> StreamWriter:
        """A writer for one stream."""

    def in_dialect(self, dialect: str) -> Format:
        """The dialect of this format; LookupError where it has none of that name."""
        raise LookupError(f"the format {self.name!r} has no dialect {dialect!r}")

    def translation(
        self, provider: Format, *, policy: Policy = "drop-and-warn", model: str | None = None
    ) -> Codec:
        """The codec for callers of this format and a provider of another, or of the same."""
        from .translation import Translation

        return Translation(self, provider, policy, model=model)

    def response_framing(self, path: str, query: str) -> Framing:
        """How a caller of `path` wants its stream framed."""
        return self.framing

    def read_answer(self, content: bytes, *, stream: bool) -> Response:
        """See `tidegate.api.formats.AiFormat`."""
        from .replay import read_answer

        return read_answer(self, content, stream=stream)

    def write_answer(
        self, answer: Response, request: Request, *, stream: bool, target: str = ""
    ) -> tuple[str, bytes]:
        """See `tidegate.api.formats.AiFormat`."""
        from .replay import write_answer

        path, _, query = target.partition("?")
        return write_answer(self, answer, request, stream=stream, path=path, query=query)


def load_object(content: bytes, what: str = "the request body") -> Json:
    """The JSON object in `content`. Raises InvalidRequest."""
    try:
        value = loads(content)
    except ValueError:
        raise InvalidRequest("", f"{what} is not valid JSON") from None
    if not isinstance(value, dict):
        raise InvalidRequest("", f"{what} is not a JSON object")
    return value
