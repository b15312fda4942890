"""Served, validated, forwarded or refused: RFC 9111 §4 and §5.2.1, RFC 5861, as tables."""

from __future__ import annotations

import pytest
from tidegate_cache_http.rules.conditional import (
    chosen,
    conditions,
    not_modified,
    updated,
    with_conditions,
)
from tidegate_cache_http.rules.decide import bypassed, decide, may_stand_in
from tidegate_cache_http.rules.invalidation import invalidates, stored_for_get, targets
from tidegate_cache_http.rules.messages import Terms
from tidegate_cache_http.rules.ranges import combinable, combine

from .kit import NOW, TERMS, ask, date, fields, keep

TAGGED = {"etag": '"a"'}


def act(pairs, request=None, *, after=0.0, **options):
    kept = keep(pairs, **options)
    decision = decide(ask(request), [kept], NOW + after, TERMS)
    return decision.act, decision.fwd


@pytest.mark.parametrize(
    ("pairs", "request_cc", "after", "expected"),
    [
        ("max-age=60", None, 59, ("serve", "")),
        ("max-age=60", None, 60, ("forward", "stale")),
        ("no-cache, max-age=60", None, 0, ("validate", "stale")),
        ('no-cache="x", max-age=60', None, 0, ("serve", "")),
        ("max-age=60", "no-cache", 0, ("forward", "request")),
        ("max-age=60, immutable", "no-cache", 0, ("forward", "request")),
        ("max-age=60", "no-store", 0, ("forward", "request")),
        ("max-age=60", "max-age=0", 0, ("forward", "request")),
        ("max-age=60", "max-age=10", 10, ("serve", "")),
        ("max-age=60", "max-age=10", 11, ("forward", "request")),
        ("max-age=60", "max-age=x", 11, ("forward", "request")),
        ("max-age=60", "min-fresh=10", 50, ("serve", "")),
        ("max-age=60", "min-fresh=10", 51, ("forward", "request")),
        ("max-age=60", "max-stale", 9999, ("serve", "")),
        ("max-age=60", "max-stale=10", 70, ("serve", "")),
        ("max-age=60", "max-stale=10", 71, ("forward", "stale")),
        ("max-age=60", "max-stale=x", 60, ("serve", "")),
        ("max-age=60", "max-stale=x", 61, ("forward", "stale")),
        ("max-age=60, must-revalidate", "max-stale", 61, ("forward", "stale")),
        ("max-age=60, proxy-revalidate", "max-stale", 61, ("forward", "stale")),
        ("s-maxage=60", "max-stale", 61, ("forward", "stale")),
        ("max-age=60, stale-while-revalidate=10", None, 70, ("serve", "")),
        ("max-age=60, stale-while-revalidate=10", None, 71, ("forward", "stale")),
        ("max-age=60, stale-while-revalidate=10, must-revalidate", None, 61, ("forward", "stale")),
        ("max-age=60", "only-if-cached", 0, ("serve", "")),
        ("max-age=60", "only-if-cached", 61, ("unavailable", "")),
        ("max-age=60", "only-if-cached, max-stale", 61, ("serve", "")),
        ("max-age=60, stale-if-error=100", None, 61, ("forward", "stale")),
    ],
)
def test_what_time_and_directives_do(pairs, request_cc, after, expected):
    given = {"cache-control": pairs}
    if "no-cache, " in pairs:
        given |= TAGGED
    asked = None if request_cc is None else {"cache-control": request_cc}
    assert act(given, asked, after=after) == expected


def test_pragma_counts_where_cache_control_is_not():
    fresh = {"cache-control": "max-age=60"}
    assert act(fresh, {"pragma": "no-cache"}) == ("forward", "request")
    assert act(fresh, {"pragma": "no-cache", "cache-control": "max-age=9"}) == ("serve", "")


def test_stale_while_revalidate_asks_for_a_renewal():
    kept = keep({"cache-control": "max-age=1, stale-while-revalidate=9"})
    assert not decide(ask(), [kept], NOW, TERMS).refresh
    assert decide(ask(), [kept], NOW + 5, TERMS).refresh


def test_an_operator_may_not_listen_to_clients():
    terms = Terms(client_directives=False)
    kept = keep({"cache-control": "max-age=60"})
    for wish in ("no-cache", "max-age=0", "no-store"):
        assert decide(ask({"cache-control": wish}), [kept], NOW, terms).act == "serve"


@pytest.mark.parametrize(
    ("method", "pairs", "fwd"),
    [
        ("GET", {}, None),
        ("HEAD", {}, None),
        ("GET", {"content-length": "0"}, None),
        ("GET", {"content-length": "3"}, "request"),
        ("GET", {"transfer-encoding": "chunked"}, "request"),
        ("GET", {"if-match": '"a"'}, "request"),
        ("GET", {"if-unmodified-since": date()}, "request"),
        ("GET", {"x-http-method-override": "PUT"}, "request"),
        ("POST", {}, "method"),
        ("OPTIONS", {}, "method"),
        ("M-SEARCH", {}, "method"),
    ],
)
def test_which_requests_are_not_the_caches(method, pairs, fwd):
    decision = bypassed(ask(pairs, method), TERMS)
    assert (decision and decision.fwd) == fwd


# -- variants -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vary", "first", "second", "same"),
    [
        ("foo", {"foo": "1"}, {"foo": "1"}, True),
        ("foo", {"foo": "1"}, {"foo": "2"}, False),
        ("foo", {"foo": "1"}, {}, False),
        ("foo", {}, {"foo": "1"}, False),
        ("foo", {}, {}, True),
        ("foo", {}, {"foo": ""}, False),
        ("foo", {"foo": ["1", "2"]}, {"foo": "1, 2"}, True),
        ("foo", {"foo": "1,2"}, {"foo": "1 ,  2"}, True),
        ("foo", {"foo": '"1,2"'}, {"foo": '"1, 2"'}, False),
        ("foo", {"foo": " 1"}, {"foo": "1 "}, True),
        ("foo", {"foo": "a"}, {"foo": "A"}, False),
        ("Foo, bar", {"foo": "1", "bar": "2"}, {"FOO": "1", "Bar": "2"}, True),
        ("foo, bar", {"foo": "1", "bar": "2"}, {"foo": "1", "bar": "3"}, False),
        (["foo", "bar"], {"bar": "2"}, {"bar": "3"}, False),
        (" ,foo,, ", {"foo": "1"}, {"foo": "1", "bar": "3"}, True),
        ("accept-language", {"accept-language": "en, de"}, {"accept-language": "EN,de"}, True),
        (
            "accept-language",
            {"accept-language": "en;q=0.5, de"},
            {"accept-language": "de;q=1.0,en;q=0.50"},
            True,
        ),
        ("accept-language", {"accept-language": "en"}, {"accept-language": "de"}, False),
        ("accept-encoding", {"accept-encoding": "gzip, x"}, {"accept-encoding": "junk,gzip"}, True),
        ("accept-encoding", {"accept-encoding": "gzip"}, {"accept-encoding": "gzip;q=0"}, False),
        ("accept-encoding", {"accept-encoding": "gzip"}, {"accept-encoding": "br"}, False),
    ],
)
def test_which_requests_a_variant_answers(vary, first, second, same):
    kept = keep({"cache-control": "max-age=60", "vary": vary}, ask(first))
    expected = ("serve", "") if same else ("forward", "vary-miss")
    decision = decide(ask(second), [kept], NOW, TERMS)
    assert (decision.act, decision.fwd) == expected


def test_the_most_recent_of_those_that_match_is_used():
    old = keep({"cache-control": "max-age=60", "date": date(-5)})
    new = keep({"cache-control": "max-age=60", "date": date(-1), "vary": "foo"})
    assert decide(ask(), [new, old], NOW, TERMS).stored is new
    assert decide(ask(), [old, new], NOW, TERMS).stored is new


def test_a_language_that_a_request_likes_best_is_what_the_origin_would_choose():
    pairs = {
        "cache-control": "max-age=60",
        "vary": "accept-language",
        "content-language": "de",
    }
    kept = keep(pairs, ask({"accept-language": "en, de"}))

    def serves(value: str) -> bool:
        return decide(ask({"accept-language": value}), [kept], NOW, TERMS).act == "serve"

    assert serves("fr;q=0.5, de")
    assert not serves("fr, de")  # which of them the origin would choose nobody knows
    assert not serves("fr, de;q=0.5")


def test_a_variant_miss_offers_the_tags_of_all_variants():
    one = keep({"vary": "foo", "etag": '"1"'}, ask({"foo": "1"}))
    two = keep({"vary": "foo", "etag": 'W/"2"'}, ask({"foo": "2"}))
    decision = decide(ask({"foo": "3"}), [one, two], NOW, TERMS)
    assert (decision.act, decision.fwd) == ("validate", "vary-miss")
    assert conditions(decision.candidates) == fields({"if-none-match": '"1", W/"2"'})
    assert chosen(decision.candidates, fields({"etag": '"2"'})) is two
    assert chosen(decision.candidates, fields({"etag": '"3"'})) is None


# -- conditions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "yes"),
    [
        ({"if-none-match": '"a"'}, True),
        ({"if-none-match": 'W/"a"'}, True),
        ({"if-none-match": '"x", "a"'}, True),
        ({"if-none-match": ['"x"', '"a"']}, True),
        ({"if-none-match": "*"}, True),
        ({"if-none-match": '"x"'}, False),
        ({"if-none-match": '"x"', "if-modified-since": date(100)}, False),
        ({"if-none-match": '"a"', "if-modified-since": date(-9999)}, True),
        ({"if-modified-since": date(-10)}, True),
        ({"if-modified-since": date(10)}, True),
        ({"if-modified-since": date(-11)}, False),
        ({"if-modified-since": "nonsense"}, False),
        ({}, False),
    ],
)
def test_clients_conditions_are_answered_from_what_is_stored(pairs, yes):
    kept = keep({"cache-control": "max-age=9", "etag": '"a"', "last-modified": date(-10)})
    assert not_modified(ask(pairs), kept, NOW) is yes


def test_without_last_modified_the_date_is_compared():
    kept = keep({"cache-control": "max-age=9", "date": date(-10)})
    assert not_modified(ask({"if-modified-since": date(-10)}), kept, NOW)
    assert not not_modified(ask({"if-modified-since": date(-11)}), kept, NOW)


def test_our_conditions_take_the_place_of_the_clients():
    kept = keep({"etag": '"a"', "last-modified": date(-10)})
    ours = with_conditions(
        fields({"If-None-Match": '"x"', "b": "1", "if-modified-since": date()}), conditions([kept])
    )
    assert ours == fields({"b": "1", "if-none-match": '"a"', "if-modified-since": date(-10)})


def test_a_304_updates_every_field_but_those_of_the_body_and_the_hop():
    kept = keep(
        {"cache-control": "max-age=1", "etag": '"a"', "a": ["1", "2"], "b": "1", "age": "5"}
    )
    answer = fields(
        {
            "cache-control": "max-age=100",
            "a": "3",
            "content-length": "0",
            "connection": "c",
            "c": "1",
            "date": date(50),
        }
    )
    new = updated(kept, answer, NOW + 50, NOW + 49, TERMS)
    assert dict(new.fields) == dict(
        fields(
            {
                "etag": '"a"',
                "b": "1",
                "cache-control": "max-age=100",
                "a": "3",
                "date": date(50),
            }
        )
    )
    assert (new.size, new.lifetime, new.age_at(NOW + 50)) == (kept.size, 100, 1)


# -- staleness on failure -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("directives", "request_cc", "status", "after", "yes"),
    [
        ("max-age=1", None, None, 100, True),
        ("max-age=1", None, None, 4000, False),
        ("max-age=1, must-revalidate", None, None, 2, False),
        ("max-age=1, proxy-revalidate", None, None, 2, False),
        ("s-maxage=1", None, None, 2, False),
        ("no-cache", None, None, 2, False),
        ("max-age=1", None, 503, 2, False),
        ("max-age=1, stale-if-error=60", None, 503, 61, True),
        ("max-age=1, stale-if-error=60", None, 503, 62, False),
        ("max-age=1, stale-if-error=60", None, 500, 5, True),
        ("max-age=1, stale-if-error=60", None, 501, 5, False),
        ("max-age=1, stale-if-error=60, must-revalidate", None, 503, 5, False),
        ("max-age=1", "stale-if-error=60", 503, 5, True),
        ("max-age=1, stale-if-error=0", "stale-if-error=60", 503, 5, False),
    ],
)
def test_when_a_stale_response_stands_in(directives, request_cc, status, after, yes):
    kept = keep({"cache-control": directives, "etag": '"a"'})
    asked = ask({"cache-control": request_cc} if request_cc else {})
    assert may_stand_in(kept, NOW + after, asked, TERMS, status=status) is yes


# -- ranges -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "piece"),
    [
        ({"range": "bytes=0-1"}, (0, 1, 10)),
        ({"range": "BYTES=5-"}, (5, 9, 10)),
        ({"range": "bytes=-3"}, (7, 9, 10)),
        ({"range": "bytes=-99"}, (0, 9, 10)),
        ({"range": "bytes=8-99"}, (8, 9, 10)),
        ({"range": "bytes=10-"}, "416"),
        ({"range": "bytes=-0"}, "416"),
        ({"range": "bytes=5-2"}, None),
        ({"range": "bytes=0-1,4-5"}, None),
        ({"range": "lines=0-1"}, None),
        ({"range": "bytes=a-b"}, None),
        ({"range": "bytes=0-1", "if-range": '"a"'}, (0, 1, 10)),
        ({"range": "bytes=0-1", "if-range": '"b"'}, None),
        ({"range": "bytes=0-1", "if-range": 'W/"a"'}, None),
        ({"range": "bytes=0-1", "if-range": date(-10)}, (0, 1, 10)),
        ({"range": "bytes=0-1", "if-range": date(-9)}, None),
    ],
)
def test_ranges_of_a_complete_response(pairs, piece):
    kept = keep({"cache-control": "max-age=9", "etag": '"a"', "last-modified": date(-10)}, size=10)
    decision = decide(ask(pairs), [kept], NOW, TERMS)
    assert decision.act == "serve"
    assert ("416" if decision.unsatisfied else decision.piece) == piece


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ("bytes=4-8", "serve"),
        ("bytes=5-6", "serve"),
        ("bytes=-6", "serve"),
        ("bytes=4-9", "serve"),
        ("bytes=3-5", "forward"),
        ("bytes=0-", "forward"),
        (None, "forward"),
    ],
)
def test_ranges_of_a_part(span, expected):
    kept = keep({"cache-control": "max-age=9", "content-range": "bytes 4-9/10"}, status=206, size=6)
    request = {} if span is None else {"range": span}
    assert decide(ask(request), [kept], NOW, TERMS).act == expected


def test_a_head_is_answered_with_the_whole_whatever_range_it_has():
    kept = keep({"cache-control": "max-age=9"})
    assert decide(ask({"range": "bytes=0-1"}, "HEAD"), [kept], NOW, TERMS).piece is None


@pytest.mark.parametrize(
    ("old", "new", "combined"),
    [
        ((0, 4), (5, 9), ((0, 9, 10), b"ABCDEfghij")),
        ((5, 9), (0, 4), ((0, 9, 10), b"abcdeFGHIJ")),
        ((2, 7), (4, 5), ((2, 7, 10), b"CDefGH")),
        ((2, 4), (4, 8), ((2, 8, 10), b"CDefghi")),
        ((0, 3), (5, 9), None),
    ],
)
def test_parts_with_one_strong_tag_are_combined(old, new, combined):
    def part(span, tag='"a"'):
        pairs = {"etag": tag, "content-range": f"bytes {span[0]}-{span[1]}/10"}
        return keep(pairs, status=206, size=span[1] - span[0] + 1)

    text = b"abcdefghij"
    before, after = part(old), part(new)
    assert combinable(before, after) is (combined is not None)
    assert not combinable(part(old, 'W/"a"'), part(new, 'W/"a"'))
    assert not combinable(part(old, '"b"'), after)
    if combined is not None:
        found = combine(before, text.upper()[old[0] : old[1] + 1], after, text[new[0] : new[1] + 1])
        assert found == combined


# -- invalidation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "status", "yes"),
    [
        ("POST", 200, True),
        ("PUT", 204, True),
        ("DELETE", 302, True),
        ("M-SEARCH", 200, True),
        ("POST", 400, False),
        ("POST", 500, False),
        ("GET", 200, False),
        ("OPTIONS", 200, False),
    ],
)
def test_which_answers_invalidate(method, status, yes):
    assert invalidates(method.encode(), status) is yes


def test_locations_of_the_same_origin_are_invalidated_too():
    url = "http://a.test/x/y?q"
    answer = fields({"location": "z#f", "content-location": "http://A.test/w"})
    assert targets(url, answer) == [url, "http://a.test/x/z", "http://a.test/w"]
    other = fields({"location": "http://b.test/x", "content-location": "https://a.test/x"})
    assert targets(url, other) == [url]
    assert targets(url, fields({"location": "http://[broken"})) == [url]


def test_the_answer_to_a_post_may_be_one_for_a_get():
    url = "http://a.test/x"
    assert stored_for_get(url, 200, fields({"content-location": "/x"}))
    assert not stored_for_get(url, 200, fields({"content-location": "/y"}))
    assert not stored_for_get(url, 201, fields({"content-location": "/x"}))
    assert not stored_for_get(url, 200, ())
