"""`Endpoint`: one format of a call that is no chat, and its request in neutral words.

A kind of call (embeddings, rerank, …) has one neutral model, and each format of that kind reads
it and writes it. Formats of different kinds can't be translated into each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

from tidegate.api import Codec, Denial
from tidegate_ai_formats.format import Format
from tidegate_ai_formats.losses import Failure, Losses, Policy
from tidegate_ai_formats.model import Json, Usage
from tidegate_ai_formats.registry import get_format


@dataclass(slots=True)
class EndpointRequest:
    """A request of any kind. `value` is the neutral form of what its kind can say.

    The other fields are those that every `AiRequest` has.
    """

    family: str
    model: str
    value: Any = None
    stream: bool = False
    extras: Json | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    messages: list[Any] = field(default_factory=list)
    tools: list[Any] = field(default_factory=list)
    output: Any = None


@dataclass(slots=True)
class EndpointAnswer:
    """An answer of any kind. `extras` is what only its own family can say."""

    value: Any
    id: str = ""
    model: str = ""
    usage: Usage | None = None
    extras: Json | None = None


class Endpoint(ABC):
    """One format of one kind of call. Errors are those of the chat format `errors`."""

    name: ClassVar[str]
    family: ClassVar[str]
    kind: ClassVar[str]
    errors: ClassVar[str] = "openai-chat"

    @abstractmethod
    def parse_request(self, body: Json, path: str = "") -> EndpointRequest:
        """A request, of which the object is taken apart. Raises InvalidRequest."""

    @abstractmethod
    def write_request(self, request: EndpointRequest, losses: Losses) -> Json:
        """The JSON object for a provider. Raises Untranslatable."""

    @abstractmethod
    def path(self, request: EndpointRequest) -> str:
        """The path below a provider's base URL."""

    @abstractmethod
    def parse_answer(self, body: Json) -> EndpointAnswer:
        """A whole answer. ValueError where it is none."""

    @abstractmethod
    def write_answer_of(
        self, answer: EndpointAnswer, asked: EndpointRequest, losses: Losses
    ) -> Json:
        """A whole answer to what was asked."""

    def in_dialect(self, dialect: str) -> Endpoint:
        """The dialect of this format; LookupError where it has none of that name."""
        raise LookupError(f"the format {self.name!r} has no dialect {dialect!r}")

    def translation(
        self, provider: Endpoint, *, policy: Policy = "drop-and-warn", model: str | None = None
    ) -> Codec:
        """The codec for callers of this format and a provider of another one of its kind."""
        from .codec import EndpointTranslation

        if provider.kind != self.kind:
            raise LookupError(f"{self.name} can't be translated to {provider.name}")
        return EndpointTranslation(self, provider, policy, model=model)

    # -- errors ---------------------------------------------------------------------------------

    @property
    def chat(self) -> Format:
        """The format whose errors these are."""
        return get_format(self.errors)

    def parse_error(self, status: int, body: Any) -> Failure:
        """An error of a provider."""
        return self.chat.parse_error(status, body)

    def write_error(self, failure: Failure) -> tuple[int, Json]:
        """Status and body that make the SDKs raise the right exception."""
        return self.chat.write_error(failure)

    def error_body(self, denial: Denial, request_id: str) -> bytes:
        """See `tidegate.api.formats.ErrorShape`."""
        return self.chat.error_body(denial, request_id)

    def error_end(self, denial: Denial, request_id: str) -> bytes:
        """See `tidegate.api.formats.ErrorShape`."""
        return self.chat.error_end(denial, request_id)

    # -- what only chat has ---------------------------------------------------------------------

    def read_answer(self, content: bytes, *, stream: bool) -> NoReturn:
        """Answers of these kinds are not kept in neutral words."""
        raise ValueError(f"an answer of {self.name} is not read")

    def write_answer(
        self, answer: Any, request: Any, *, stream: bool, target: str = ""
    ) -> NoReturn:
        """See `read_answer`."""
        raise ValueError(f"an answer of {self.name} is not written")
