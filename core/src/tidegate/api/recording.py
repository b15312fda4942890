"""A recorded exchange: what was asked, what was answered, when. Values only.

Made by recorders (cassettes, HAR, flow files), read by what plays or judges them again. The text
form is in `tidegate.api.cassette`; secrets are taken out by `tidegate.api.scrub`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from .types import Principal

__all__ = ["Answer", "Chunk", "Fields", "Recording", "media_type", "value_of"]

type Fields = tuple[tuple[str, str], ...]
"""Header fields in order; bytes that are not ASCII stand as Latin-1 characters."""

UNRECORDED: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
    }
)
"""Fields of one connection, or written anew by whoever sends a message. Lower case."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a body that streamed. `delay`: seconds since the piece before, or the head."""

    delay: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A recorded response. `chunks` is set where the body came as a stream of events."""

    status: int
    reason: str = ""
    headers: Fields = ()
    content: bytes = b""
    chunks: tuple[Chunk, ...] | None = None

    @property
    def body(self) -> bytes:
        """The whole body, however it came."""
        if self.chunks is None:
            return self.content
        return b"".join([chunk.data for chunk in self.chunks])


@dataclass(frozen=True, slots=True)
class Recording:
    """One exchange.

    Attributes:
        method, url, headers, body: the request; `url` is `scheme://host/path?query`.
        answer: the response; None where none is known.
        id: the request id.
        now: Unix seconds of its arrival; `seed`: of its chance (`Exchange.seed`).
        client: the caller's IP address, or "".
        listener: the listener that accepted it.
        principal: who the caller was, where that is known: credentials are not recorded.
        name: where it stands, such as a file name; for messages.
    """

    method: str
    url: str
    headers: Fields = ()
    body: bytes = b""
    answer: Answer | None = None
    id: str = ""
    now: float = 0.0
    seed: int = 0
    client: str = ""
    listener: str = "gateway"
    principal: Principal | None = None
    name: str = ""

    @property
    def host(self) -> str:
        """The host, lower case, without port."""
        return (urlsplit(self.url).hostname or "").lower()

    @property
    def path(self) -> str:
        """The path without query."""
        return urlsplit(self.url).path or "/"

    @property
    def query(self) -> str:
        """The query without its `?`."""
        return urlsplit(self.url).query

    @property
    def media_type(self) -> str:
        """The request's media type, lower case, without parameters."""
        return media_type(self.headers)


def value_of(fields: Fields, name: str) -> str:
    """The first value of a field, or "". `name` is lower case."""
    return next((value for key, value in fields if key.lower() == name), "")


def media_type(fields: Fields) -> str:
    """`Content-Type`, lower case, without parameters."""
    return value_of(fields, "content-type").partition(";")[0].strip().lower()


def recorded_fields(fields: Iterable[tuple[bytes, bytes]]) -> Fields:
    """A message's raw fields as they are recorded: without those of the connection."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
    return tuple((name, value) for name, value in pairs if name.lower() not in UNRECORDED)
