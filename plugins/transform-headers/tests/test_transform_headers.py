"""The addon on exchanges, and what its options refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tidegate_transform_headers import TransformHeaders, TransformHeadersConfig
from tidegate_transform_headers.values import compile_value

from tidegate.api import AddonContext, Client, Principal
from tidegate.api.fields import CARRIER_FIELDS
from tidegate.runtime.messages import check_fields
from tidegate.testing import Harness, Use, make_answer, make_exchange
from tidegate.testing.contracts import PluginContract, TransformContract


class TestContract(PluginContract, TransformContract):
    name = "transform-headers"

    def options(self):
        return {
            "request": {"remove": ["x-*"], "set": {"x-user": "{principal}"}},
            "response": {"remove": ["server"], "add": {"vary": "Origin"}},
        }


def addon(**options: Any) -> TransformHeaders:
    config = TransformHeadersConfig.model_validate(options)
    return TransformHeaders(config, AddonContext("transform-headers", Path()))


def request_fields(options: dict[str, Any], *fields: tuple[str, str], **about: Any):
    exchange = make_exchange(headers=fields, **about)
    addon(request=options).transform_request(exchange)
    return [(n.decode(), v.decode()) for n, v in exchange.request.headers.fields if n != b"host"]


@pytest.mark.parametrize(
    ("options", "fields", "wanted"),
    [
        ({"set": {"X-A": "1"}}, [("x-a", "0"), ("x-b", "2"), ("X-a", "3")],
         [("x-b", "2"), ("X-A", "1")]),
        ({"add": {"x-a": "1"}}, [("x-a", "0")], [("x-a", "0"), ("x-a", "1")]),
        ({"remove": ["X-A"]}, [("x-a", "0"), ("x-ab", "1"), ("X-A", "2")], [("x-ab", "1")]),
        ({"remove": ["x-internal-*"]}, [("X-Internal-Id", "0"), ("x-internal", "1")],
         [("x-internal", "1")]),
        ({"remove": ["*-secret", "x-*-y"]}, [("a-secret", "0"), ("x-1-y", "1"), ("x-y", "2")],
         [("x-y", "2")]),
        ({"remove": ["x-*", "*-z", "*"]}, [("x-a", "0"), ("y-z", "1"), ("y", "2")], []),
        ({"remove": ["x-*", "x-**-b"]}, [("x-a", "0"), ("y-b", "1")], [("y-b", "1")]),
        ({"remove": ["x-a"], "add": {"x-a": "1"}}, [("x-a", "0")], [("x-a", "1")]),
        ({"remove": ["x.*"]}, [("x-a", "0"), ("x.a", "1")], [("x-a", "0")]),
        ({"set": {"x-*": "1"}}, [("x-*", "0"), ("x-a", "2")], [("x-a", "2"), ("x-*", "1")]),
        ({"set": {"x-a": " a {{b}} "}}, [], [("x-a", "a {b}")]),
    ],
)  # fmt: skip
def test_fields_are_removed_then_set_then_added(options, fields, wanted):
    assert request_fields(options, *fields) == wanted


def test_placeholders_are_the_exchanges():
    options = {"set": {"x-who": "{principal} of {team} at {client} in {request_id}"}}
    exchange = make_exchange(
        principal=Principal("ada", "red"), client=Client("2001:db8::1", 1, "192.0.2.7")
    )
    addon(request=options).transform_request(exchange)
    assert exchange.request.headers["x-who"] == f"red/ada of red at 2001:db8::1 in {exchange.id}"


def test_an_anonymous_caller_can_not_send_a_set_field_of_its_own():
    fields = request_fields({"set": {"x-user": "{principal}"}}, ("X-User", "root"))
    assert fields == [("x-user", "")]


async def test_responses_are_changed_on_their_way_out():
    options = {
        "response": {
            "remove": ["server", "x-*"],
            "set": {"cache-control": "no-store"},
            "add": {"vary": "{team}"},
        }
    }
    answer = make_answer(200, b"ok", {"server": "s", "x-a": "1", "cache-control": "public"})
    async with Harness(Use(TransformHeaders, options), answer=answer) as harness:
        exchange = await harness.send(make_exchange(principal=Principal("ada", "red")))
        assert exchange.response is not None
        assert exchange.response.headers["cache-control"] == "no-store"
        assert exchange.response.headers["vary"] == "red"
        assert not {"server", "x-a"} & set(exchange.response.headers)
        assert exchange.response.headers["content-length"] == "2"


def test_a_star_takes_no_field_of_the_connection():
    fields = [(name, "1") for name in sorted(CARRIER_FIELDS - {"host"})]
    exchange = make_exchange(headers=[*fields, ("content-type", "x")])
    addon(request={"remove": ["*t*", "*e*", "*o*"]}).transform_request(exchange)
    left = {name.decode() for name, _ in exchange.request.headers.fields}
    assert left == CARRIER_FIELDS


@given(st.text(), st.text())
def test_no_principal_can_end_a_field_or_begin_another(name, team):
    exchange = make_exchange(principal=Principal(name, team))
    value = compile_value("{principal}|{team}")(exchange)
    check_fields(((b"x", value),))
    assert not set(value) & {*range(32), 127}


def test_a_line_break_in_a_name_becomes_nothing():
    exchange = make_exchange(principal=Principal("a\r\nx-admin: 1\x00"))
    assert compile_value("{principal}")(exchange) == b"ax-admin: 1"


@pytest.mark.parametrize("direction", ["request", "response"])
@pytest.mark.parametrize("name", sorted(CARRIER_FIELDS))
@pytest.mark.parametrize("what", ["set", "add", "remove"])
def test_fields_of_the_connection_are_refused(direction, name, what):
    value = [name.title()] if what == "remove" else {name.title(): "1"}
    with pytest.raises(ValidationError, match=r"belongs to the connection|preserve_host"):
        TransformHeadersConfig.model_validate({direction: {what: value}})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"request": {"set": {"x": "{user}"}}}, r"\{user\} is not a placeholder: there are"),
        ({"request": {"set": {"x": "{team!r}"}}}, "not a placeholder"),
        ({"request": {"set": {"x": "{team:>9}"}}}, "not a placeholder"),
        ({"request": {"set": {"x": "{"}}}, "[Ss]ingle"),
        ({"request": {"set": {"x": "a\r\nb: c"}}}, "control characters"),
        ({"request": {"set": {"a b": "1"}}}, "not a field name"),
        ({"request": {"set": {"": "1"}}}, "not a field name"),
        ({"request": {"remove": ["a b*"]}}, "not a field name"),
        ({"request": {"remove": [""]}}, "not a field name"),
        ({"request": {"set": {"X-Request-Id": "1"}}}, "gateway's own"),
        ({"request": {"add": {"X-Forwarded-For": "1"}}}, "gateway's own"),
        ({"response": {"set": {"x-request-id": "1"}}}, "gateway's own"),
        ({"request": {"delete": ["x"]}}, "Extra inputs"),
        ({"requests": {}}, "Extra inputs"),
    ],
)
def test_what_can_not_be_sent_is_refused(options, complaint):
    with pytest.raises(ValidationError, match=complaint):
        TransformHeadersConfig.model_validate(options)
