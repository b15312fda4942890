"""mitmproxy's messages, built without the constructor that type-checks every field.

`http.Response(…)` costs 70 µs in mitmproxy 12, the same object built by hand 1 µs. For plugins
that answer often, such as a cache. A test compares every attribute with the ordinary constructor.
"""

from __future__ import annotations

from mitmproxy import http

__all__ = ["Fields", "make_headers", "make_response"]

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
