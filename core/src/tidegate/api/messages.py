"""mitmproxy's messages, built without the constructor that type-checks every field.

`http.Response(…)` costs 70 µs in mitmproxy 12, the same object built by hand 1 µs. For plugins
that answer often, such as a cache. A test compares every attribute with the ordinary constructor.
"""

from __future__ import annotations

from typing import Any, cast

from mitmproxy import http

__all__ = ["Fields", "PreparedHead", "PreparedResponse", "make_headers", "make_response"]

type Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields as they are on the wire, in order."""

_new_headers = http.Headers.__new__
_new_response = http.Response.__new__
_new_response_data = http.ResponseData.__new__


def make_headers(fields: Fields) -> http.Headers:
    """`http.Headers` over raw fields."""
    headers = _new_headers(http.Headers)
    headers.fields = fields
    return headers


def make_response(
    status: int,
    reason: bytes,
    fields: Fields,
    content: bytes | None,
    timestamp: float,
    http_version: bytes = b"HTTP/1.1",
) -> http.Response:
    """An `http.Response`; `timestamp` is Unix seconds."""
    data = _new_response_data(http.ResponseData)
    data.http_version = http_version
    data.headers = make_headers(fields)
    data.content = content
    data.trailers = None
    data.timestamp_start = timestamp
    data.timestamp_end = timestamp
    data.status_code = status
    data.reason = reason
    response = _new_response(http.Response)
    response.data = data
    return response


class PreparedHead:
    """The head of an answer that a cache gives again and again: checked and rendered once.

    Args:
        fields: end-to-end fields, without Age and Cache-Status.

    Attributes:
        checked, wire: core's: whether its fields were found fit to be sent; its status line
            and fields as they are sent, once they have been.
    """

    __slots__ = ("checked", "fields", "reason", "status", "wire")

    def __init__(self, status: int, reason: bytes, fields: Fields) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.checked = False
        self.wire = b""


class PreparedResponse(http.Response):
    """A whole, fresh answer from a cache: a `PreparedHead`, and what changes from hit to hit.

    The usual `data` of a response is made when someone asks for it. Where nobody has, the lane
    sends the head as it was rendered before, which saves most of the cost of an answer.

    Args:
        age: seconds, for the Age field (RFC 9111 §5.1).
        ttl: seconds for which it stays fresh, for Cache-Status (RFC 9211 §2.4).
        timestamp: Unix seconds.
    """

    def __init__(
        self, head: PreparedHead, content: bytes, age: int, ttl: int, timestamp: float
    ) -> None:  # not mitmproxy's: what that one sets is made in __getattr__
        self.head = head
        self.body = content
        self.age = age
        self.ttl = ttl
        self.timestamp = timestamp

    @property
    def untouched(self) -> bool:
        """Whether nobody has looked at `data`, so that it can't have been changed."""
        return "data" not in self.__dict__

    def __getattr__(self, name: str) -> Any:
        if name != "data":
            raise AttributeError(name)
        head = self.head
        fields = (
            *head.fields,
            (b"age", b"%d" % self.age),
            (b"cache-status", b"tidegate; hit; ttl=%d" % self.ttl),
        )
        usual = make_response(head.status, head.reason, fields, self.body, self.timestamp)
        self.data = usual.data
        return self.data

    @classmethod
    def from_state(cls, state: Any) -> Any:
        """A copy is a usual response."""
        return cast(Any, http.Response).from_state(state)
