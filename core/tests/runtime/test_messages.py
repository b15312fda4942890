"""Messages built by hand are, attribute by attribute, what mitmproxy's constructors make."""

from __future__ import annotations

import pytest
from mitmproxy import http

from tidegate.api import Denial
from tidegate.runtime.faults import InvalidOutput
from tidegate.runtime.messages import (
    check_fields,
    copy_request,
    copy_response,
    error_response,
    make_headers,
    make_request,
    make_response,
)

FIELDS = ((b"Host", b"api.test"), (b"X-A", b"1"), (b"x-a", b"2"))


def both_requests() -> tuple[http.Request, http.Request]:
    made = make_request(
        b"POST", b"http", b"api.test:80", "api.test", 80, b"/a?b=1", FIELDS, b"body", 5.0
    )
    usual = http.Request(
        host="api.test",
        port=80,
        method=b"POST",
        scheme=b"http",
        authority=b"api.test:80",
        path=b"/a?b=1",
        http_version=b"HTTP/1.1",
        headers=http.Headers(FIELDS),
        content=b"body",
        trailers=None,
        timestamp_start=5.0,
        timestamp_end=5.0,
    )
    return made, usual


def both_responses() -> tuple[http.Response, http.Response]:
    made = make_response(201, b"Created", FIELDS, b"body", 5.0)
    usual = http.Response(
        http_version=b"HTTP/1.1",
        status_code=201,
        reason=b"Created",
        headers=http.Headers(FIELDS),
        content=b"body",
        trailers=None,
        timestamp_start=5.0,
        timestamp_end=5.0,
    )
    return made, usual


def attributes(thing: object) -> dict[str, object]:
    """Every public attribute that can be read, properties included."""
    found = {}
    for name in dir(thing):
        if name.startswith("_"):
            continue
        value = getattr(thing, name)
        if not callable(value):
            found[name] = value
    return found


@pytest.mark.parametrize("both", [both_requests, both_responses])
def test_every_attribute_is_the_constructors(both):
    made, usual = both()
    assert type(made) is type(usual)
    assert vars(made).keys() == vars(usual).keys()
    assert vars(made.data) == vars(usual.data)
    assert vars(made.headers) == vars(usual.headers)
    assert str(attributes(made)) == str(attributes(usual))
    assert made.get_state() == usual.get_state()


@pytest.mark.parametrize("both", [both_requests, both_responses])
def test_it_can_be_changed_like_the_constructors(both):
    for message in both():
        message.headers["x-new"] = "1"
        message.text = "näw"
        assert message.headers["content-length"] == str(len(message.raw_content))
        message.trailers = http.Headers([(b"x-t", b"1")])
        again = type(message).from_state(message.get_state())
        assert again.get_state() == message.get_state()
        assert message.copy().get_state() == message.get_state()


@pytest.mark.parametrize(("both", "copy"), [(both_requests, copy_request),
                                            (both_responses, copy_response)])  # fmt: skip
def test_a_copy_shares_nothing_that_can_change(both, copy):
    original, _ = both()
    original.trailers = http.Headers([(b"x-t", b"1")])
    state = original.get_state()
    twin = copy(original)
    assert twin.get_state() == state
    twin.headers["x-new"] = "1"
    twin.trailers["x-t"] = "2"
    twin.content = b"other"
    assert original.get_state() == state


def test_headers_are_mitmproxys():
    assert make_headers(FIELDS) == http.Headers(FIELDS)
    assert make_headers(FIELDS).get_all("x-a") == ["1", "2"]


@pytest.mark.parametrize(
    "field",
    [(b"", b"x"), (b"a b", b"x"), (b"a:", b"x"), ("ä".encode(), b"x"), (b"a\r\n", b"x"),
     (b"a", b"x\r\ny: z"), (b"a", b"x\ny"), (b"a", b"x\ry"), (b"a", b"x\0y")],
)  # fmt: skip
def test_a_field_that_can_not_be_sent_is_refused(field):
    with pytest.raises(InvalidOutput):
        check_fields((field,))


def test_a_field_that_can_be_sent_passes():
    check_fields(((b"x-a", b""), (b"X_A!", b"tab\there"), (b"a", "ümlaut".encode())))


@pytest.mark.parametrize(
    ("denial", "retry_after"),
    [
        (Denial(401, "a", "b"), None),
        (Denial(429, "a", "b"), "1"),
        (Denial(429, "a", "b", retry_after=1.2), "2"),
        (Denial(503, "a", "b", retry_after=0.0), "1"),
    ],
)
def test_a_denial_is_rendered_in_the_house_shape(denial, retry_after):
    response = error_response(denial, "id-1", 5.0)
    assert response.json() == {"error": {"code": "a", "message": "b", "request_id": "id-1"}}
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.raw_content)
    assert response.headers.get("retry-after") == retry_after
