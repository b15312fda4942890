"""What may be stored, what of it, and how long it is fresh: RFC 9111 §3 and §4.2 as tables."""

from __future__ import annotations

import pytest
from tidegate_cache_http.rules.messages import Terms
from tidegate_cache_http.rules.storing import Refusal

from .kit import NOW, ask, date, keep

AUTH = {"authorization": "Bearer x"}
GUESSABLE = {"last-modified": date(-1000), "date": date()}


def stored(pairs, request=None, **options) -> bool:
    try:
        keep(pairs, request, **options)
    except Refusal:
        return False
    return True


@pytest.mark.parametrize(
    ("pairs", "yes"),
    [
        ({"cache-control": "max-age=60"}, True),
        ({"cache-control": "s-maxage=60"}, True),
        ({"cache-control": "public, max-age=60"}, True),
        ({"expires": date(60), "date": date()}, True),
        ({"etag": '"a"'}, True),
        (GUESSABLE, True),
        ({"cache-control": "no-cache", "etag": '"a"'}, True),
        ({"cache-control": "max-age=0", "etag": '"a"'}, True),
        ({"cache-control": 'private="x", max-age=60'}, True),
        ({"cache-control": "max-age=60", "set-cookie": "a=b"}, True),
        ({"cache-control": "no-store, must-understand, max-age=60"}, True),
        ({"cache-control": "max-age=0, stale-while-revalidate=60"}, True),
        ({}, False),
        ({"cache-control": "public"}, False),
        ({"cache-control": "max-age=0"}, False),
        ({"cache-control": "no-store"}, False),
        ({"cache-control": "max-age=60, no-store"}, False),
        ({"cache-control": ["max-age=60", "No-StOrE"]}, False),
        ({"cache-control": "private, max-age=60"}, False),
        ({"cache-control": "public, private, max-age=60"}, False),
        ({"cache-control": "max-age=60", "vary": "*"}, False),
        ({"cache-control": "max-age=60", "vary": "a, *"}, False),
        ({"cache-control": "max-age=60", "vary": ["a", "*"]}, False),
        ({"cache-control": "max-age=60", "cdn-cache-control": "no-store"}, False),
        ({"cache-control": "no-store", "cdn-cache-control": "max-age=60"}, True),
        ({"cache-control": "no-store", "cdn-cache-control": "max-age=x"}, False),
        ({"cache-control": "no-store", "cdn-cache-control": ""}, False),
        ({"cdn-cache-control": "max-age=60", "expires": "0"}, True),
    ],
)
def test_which_200s_are_stored(pairs, yes):
    assert stored(pairs) is yes


@pytest.mark.parametrize(
    ("status", "pairs", "yes"),
    [
        *((s, GUESSABLE, True) for s in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)),
        *((s, GUESSABLE, False) for s in (201, 202, 302, 307, 400, 403, 500, 502, 503, 504, 599)),
        *((s, {"cache-control": "max-age=9"}, True) for s in (201, 302, 403, 500, 599)),
        (599, {"cache-control": "public", **GUESSABLE}, True),
        (304, {"cache-control": "max-age=9"}, False),
        (103, {"cache-control": "max-age=9"}, False),
        (599, {"cache-control": "must-understand, max-age=9"}, False),
        (206, {"cache-control": "max-age=9"}, False),
        (206, {"cache-control": "max-age=9", "content-range": "bytes 0-4/10"}, True),
        (206, {"cache-control": "max-age=9", "content-range": "bytes 4-0/10"}, False),
        (206, {"cache-control": "max-age=9", "content-range": "bytes 0-10/10"}, False),
        (206, {"cache-control": "max-age=9", "content-range": "bytes 0-4/*"}, True),
        (
            206,
            {"cache-control": "max-age=9", "content-type": "multipart/byteranges; boundary=x"},
            False,
        ),
    ],
)
def test_which_statuses_are_stored(status, pairs, yes):
    assert stored(pairs, status=status) is yes


@pytest.mark.parametrize(
    ("directives", "yes"),
    [
        ("max-age=60", False),
        ("max-age=60, public", True),
        ("max-age=60, must-revalidate", True),
        ("s-maxage=60", True),
        ("max-age=60, proxy-revalidate", False),
    ],
)
def test_answers_to_authorization_are_stored_only_if_marked_as_shared(directives, yes):
    assert stored({"cache-control": directives}, ask(AUTH)) is yes


@pytest.mark.parametrize(
    "request_fields",
    [
        {"cache-control": "no-store"},
        {"x-http-method-override": "DELETE"},
        {"x-original-url": "/admin"},
        {"X-Rewrite-URL": "/admin"},
        {"x-forwarded-scheme": "http"},
        {"x-host": "evil.test"},
    ],
)
def test_some_requests_keep_their_answers_out(request_fields):
    assert not stored({"cache-control": "max-age=60"}, ask(request_fields))


def test_what_is_kept_of_the_fields():
    kept = keep(
        {
            "connection": "a, B",
            "a": "1",
            "b": "2",
            "c": "3",
            "keep-alive": "x",
            "proxy-authenticate": "x",
            "proxy-authentication-info": "x",
            "proxy-authorization": "x",
            "proxy-connection": "x",
            "te": "x",
            "trailer": "x",
            "transfer-encoding": "chunked",
            "upgrade": "x",
            "age": "7",
            "content-length": "10",
            "set-cookie": "a=b",
            "secret": "1",
            "cache-control": 'max-age=60, no-cache="secret"',
        }
    )
    assert [name for name, _ in kept.fields] == [b"c", b"set-cookie", b"cache-control"]
    assert not kept.always_validate
    assert kept.age == 7


@pytest.mark.parametrize(
    ("pairs", "lifetime"),
    [
        ({"cache-control": "max-age=60, s-maxage=5"}, 5),
        ({"cache-control": "max-age=0, s-maxage=50", "expires": date(-10)}, 50),
        ({"cache-control": "max-age=60", "expires": date(-9)}, 60),
        ({"cache-control": "max-age=60", "expires": "0"}, 60),
        ({"cache-control": 'max-age="60"', "expires": date(900), "etag": '"a"'}, 0),
        ({"expires": date(60), "date": date(20)}, 40),
        ({"expires": date(60), "date": "nonsense"}, 60),
        ({"expires": date(60)}, 60),
        ({"expires": "0", "etag": '"a"'}, 0),
        ({"expires": [date(60), date(60)], "etag": '"a"'}, 0),
        ({"expires": date(60).replace("GMT", "UTC"), "etag": '"a"'}, 0),
        ({"last-modified": date(-1000), "date": date()}, 100),
        ({"last-modified": date(-100 * 86400), "date": date()}, 86400),
        ({"last-modified": date(50), "date": date()}, 0),
        ({"cdn-cache-control": "max-age=7", "cache-control": "max-age=60"}, 7),
        ({"cdn-cache-control": "max-age=7", "expires": date(60)}, 7),
        ({"cdn-cache-control": "max-age='", "cache-control": "max-age=60"}, 60),
    ],
)
def test_the_lifetime_of_a_response(pairs, lifetime):
    assert keep(pairs).lifetime == lifetime


def test_age_is_what_came_and_the_time_since_the_request():
    kept = keep({"cache-control": "max-age=60", "age": "30", "date": date(-900)}, at=NOW)
    assert kept.age_at(NOW) == 30
    assert kept.age_at(NOW + 29.9) == 59
    assert kept.fresh_at(NOW + 29.9)
    assert not kept.fresh_at(NOW + 30)
    assert kept.age_at(NOW - 100) == 30  # the clock went back


def test_the_operator_overrides_the_origin():
    terms = Terms(mode="override", ttl=5)
    kept = keep({"cache-control": "no-cache, private, max-age=60"}, terms=terms)
    assert (kept.lifetime, kept.always_validate, kept.never_stale) == (5, False, False)
    assert not stored({"cache-control": "max-age=60"}, terms=Terms(mode="bypass"))


def test_errors_get_a_lifetime_of_the_operator_where_the_origin_gives_none():
    terms = Terms(negative={404: 10, 503: 2})
    assert keep({}, status=404, terms=terms).lifetime == 10
    assert keep({}, status=503, terms=terms).lifetime == 2
    assert keep({"cache-control": "max-age=60"}, status=404, terms=terms).lifetime == 60
    assert not stored({}, status=500, terms=terms)


def test_tags_come_from_the_usual_fields():
    kept = keep(
        {"cache-control": "max-age=1", "cache-tag": "a, b", "surrogate-key": "c d", "xkey": "a"}
    )
    assert kept.tags == (b"a", b"b", b"c", b"d")


def test_a_coding_that_is_not_known_keeps_an_answer_out_that_varies_on_it():
    pairs = {"cache-control": "max-age=60", "vary": "accept-encoding", "content-encoding": "foo"}
    assert not stored(pairs)
    assert stored({**pairs, "content-encoding": "br"})
