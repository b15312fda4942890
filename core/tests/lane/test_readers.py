"""The readers by themselves: what they make of bytes does not depend on how the bytes come."""

from __future__ import annotations

import pytest

from tidegate.lane.requests import Incoming, RequestReader
from tidegate.lane.responses import ResponseReader
from tidegate.runtime.settings import Limits

REQUEST = (
    b"POST / HTTP/1.1\r\nHost: a \r\nX-Tab: b\t\r\nX-Empty:\r\nX-Plain: c d\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7  \r\n\r\n"
)
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a> \r\n\r\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nX-Space: a \r\nX-Tab: b\t\r\nX-Plain: c d\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7  \r\n\r\n"
)


def read_request(*pieces: bytes) -> Incoming:
    reader = RequestReader(Limits())
    request: Incoming | None = None
    for piece in pieces:
        assert reader.feed(piece) == b""
        request = reader.take() or request
    assert request is not None
    assert request.complete
    return request


@pytest.mark.parametrize("cut", range(1, len(REQUEST)))
def test_a_requests_values_have_no_space_after_them_wherever_the_bytes_are_cut(cut: int) -> None:
    request = read_request(REQUEST[:cut], REQUEST[cut:])
    assert request.fields == (
        (b"Host", b"a"),
        (b"X-Tab", b"b"),
        (b"X-Empty", b""),
        (b"X-Plain", b"c d"),
        (b"Transfer-Encoding", b"chunked"),
    )
    assert request.trailers == ((b"X-Sum", b"7"),)
    assert request.take() == b"abc"


@pytest.mark.parametrize("cut", range(1, len(INTERIM + ANSWER)))
def test_an_answers_values_have_no_space_after_them_wherever_the_bytes_are_cut(cut: int) -> None:
    whole = INTERIM + ANSWER
    reader = ResponseReader()
    for piece in (whole[:cut], whole[cut:]):
        reader.feed(piece)
    assert reader.complete
    assert not reader.failed
    assert reader.interim == [(103, ((b"Link", b"</a>"),))]
    assert reader.fields[:3] == ((b"X-Space", b"a"), (b"X-Tab", b"b"), (b"X-Plain", b"c d"))
    assert reader.trailers == ((b"X-Sum", b"7"),)
    assert reader.take() == b"abc"


def test_a_value_without_space_after_it_keeps_what_is_within() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nX-A: b  c\r\nContent-Length: 5\r\n\r\nab \r\n")
    assert reader.fields[0] == (b"X-A", b"b  c")
    assert reader.take() == b"ab \r\n"
