"""Cache-Control, targeted fields, dates, ages, entity tags: what is read, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate_cache_http.rules.dates import parse_date
from tidegate_cache_http.rules.directives import LONGEST, parse_cache_control, parse_targeted
from tidegate_cache_http.rules.freshness import age_received
from tidegate_cache_http.rules.tags import parse_tags, strongly_equal, weakly_equal

MOMENT = 784111777  # Sun, 06 Nov 1994 08:49:37 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"max-age=3600", 3600),
        (b"MaX-aGe=3600", 3600),
        (b"max-age=003600", 3600),
        (b"foobar, max-age=3600", 3600),
        (b"max-age=1, max-age=3600", 1),
        (b"max-age=3600, max-age=1", 3600),
        (b"max-age=99999999999", LONGEST),
        (b"max-age=" + b"9" * 300, LONGEST),
        (b"max-age=2147483648", LONGEST),
        (b"", None),
        (b"public", None),
        (b'extension="max-age=3600"', None),
        (b'extension="max-age=3600", max-age=1', 1),
        (b'max-age=1, extension="max-age=3600"', 1),
        (b'extension="a\\"b, max-age=9", max-age=1', 1),
        (b"xmax-age=9, max-age=1", 1),
        (b'max-age="3600"', 0),
        (b"max-age='3600'", 0),
        (b"max-age=-3600", 0),
        (b"max-age=3600.0", 0),
        (b"max-age=3600a", 0),
        (b"max-age=a3600", 0),
        (b"max-age =3600", 0),
        (b"max-age= 3600", 0),
        (b"max-age", 0),
        (b"max-age=", 0),
        (b"max-age=\xb2", 0),
    ],
)
def test_delta_seconds_are_digits_and_anything_else_is_no_lifetime(value, seconds):
    assert parse_cache_control(value).seconds("max-age") == seconds


@pytest.mark.parametrize(
    ("value", "restricts"),
    [
        (b"no-store", True),
        (b"No-StOrE", True),
        (b"max-age=1,no-store", True),
        (b"no-store=x", True),
        (b'x="no-store"', False),
        (b'x="a, no-store', True),  # a quote that never ends hides nothing that restricts
        (b"no-storeX", False),
        (b", ,no-store, ", True),
    ],
)
def test_what_restricts_is_found(value, restricts):
    assert ("no-store" in parse_cache_control(value)) is restricts


def test_a_quote_that_never_ends_permits_nothing():
    assert parse_cache_control(b'x="a, max-age=3600').seconds("max-age") is None


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (b'no-cache="a, B"', {b"a", b"b"}),
        (b"no-cache=a", {b"a"}),
        (b'no-cache=""', set()),
        (b"no-cache", set()),
        (b'no-cache="set-cookie"', {b"set-cookie"}),
    ],
)
def test_a_qualified_directive_names_fields(value, fields):
    parsed = parse_cache_control(value)
    assert parsed.fields("no-cache") == fields
    assert parsed.unqualified("no-cache") is not bool(fields)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(value):
    parsed = parse_cache_control(value)
    seconds = parsed.seconds("max-age")
    assert seconds is None or 0 <= seconds <= LONGEST
    parse_targeted(value)
    parse_tags(value)
    assert age_received(((b"Age", value),)) >= 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"max-age=60", 60),
        (b"max-age=60;ext=1, no-transform", 60),
        (b"max-age=-1", 0),
        (b'max-age="60"', None),
        (b"max-age=60.5", None),
        (b"max-age", None),
        (b"max-age=60,", None),
        (b"MAX-AGE=60", None),
        (b"no-store=1", None),
        (b"", None),
    ],
)
def test_a_targeted_field_is_a_strict_dictionary_or_is_not_there(value, seconds):
    parsed = parse_targeted(value)
    assert (None if parsed is None else parsed.seconds("max-age")) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "sun, 06 nov 1994 08:49:37 gmt",
        "SUN, 06 NOV 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ],
)
def test_the_three_formats_of_a_date(value):
    assert parse_date(value, 2026) == MOMENT


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37 PST",
        "Sun, 06 Nov 1994 08:49:37 +0000",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun,06 Nov 1994 08:49:37 GMT",
        "06 Nov 1994 08:49:37 GMT",
        "Sun, 32 Nov 1994 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Wed, 29 Feb 2023 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 1994 08:60:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun Nov 6 08:49:37 1994",
        "1994-11-06T08:49:37Z",
        "0",
        "-1",
        "",
    ],
)
def test_what_is_laxer_is_no_date(value):
    assert parse_date(value, 2026) is None


def test_a_year_of_two_digits_lies_within_fifty_years_of_now():
    assert parse_date("Sunday, 06-Nov-76 08:49:37 GMT", 2026) == parse_date(
        "Fri, 06 Nov 2076 08:49:37 GMT", 2026
    )
    assert parse_date("Sunday, 06-Nov-77 08:49:37 GMT", 2026) == parse_date(
        "Sun, 06 Nov 1977 08:49:37 GMT", 2026
    )


@pytest.mark.parametrize(
    ("values", "age"),
    [
        ([b"7200"], 7200),
        ([b"7200, 0"], 7200),
        ([b"0", b"7200"], 0),
        ([b"7200", b"0"], 7200),
        ([b"99999999999999999999999999"], LONGEST),
        ([b"abc"], 0),
        ([b"-7200"], 0),
        ([b"7200.0"], 0),
        ([b"7200;foo=bar"], 0),
        ([b"abc, 7200"], 0),
        ([b""], 0),
        ([], 0),
    ],
)
def test_age_is_its_first_member_in_digits(values, age):
    assert age_received(tuple((b"aGe", value) for value in values)) == age


@pytest.mark.parametrize(
    ("value", "tags"),
    [
        (b'"a"', [b'"a"']),
        (b'"a", W/"b" ,"c"', [b'"a"', b'W/"b"', b'"c"']),
        (b'"a,b", "c"', [b'"a,b"', b'"c"']),
        (b"a", [b"a"]),
        (b'"a\xfc"', [b'"a\xfc"']),
        (b'"", ""', [b'""', b'""']),
        (b', "a"', [b'"a"']),
        (b'"open', []),
    ],
)
def test_entity_tags_are_read_with_their_commas(value, tags):
    assert parse_tags(value) == tags


@pytest.mark.parametrize(
    ("one", "other", "strongly", "weakly"),
    [
        (b'W/"1"', b'W/"1"', False, True),
        (b'W/"1"', b'W/"2"', False, False),
        (b'W/"1"', b'"1"', False, True),
        (b'"1"', b'"1"', True, True),
    ],
)
def test_tags_compare_as_the_table_of_rfc_9110_8_8_3_2(one, other, strongly, weakly):
    assert strongly_equal(one, other) is strongly
    assert weakly_equal(one, other) is weakly
