"""The route table: a table of cases, and a slow, obvious model beside it."""

from __future__ import annotations

import doctest
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tidegate.api.match
from tidegate.api import Match, NotAllowed, RouteEntry, RouteTable


def table(*rows: str) -> RouteTable[str]:
    """Rows such as `GET,POST api.example.com/v1 exact`; the value is the row itself."""
    entries = []
    for row in rows:
        methods, _, rest = row.rpartition(" ") if row[0].isupper() else ("", "", row)
        exact = rest.endswith("!")
        host, slash, path = rest.removesuffix("!").partition("/")
        taken = frozenset(methods.split(",")) if methods else None
        entries.append(RouteEntry(row, host or "*", slash + path, exact, taken))
    return RouteTable(entries)


@pytest.mark.parametrize(
    ("rows", "request_line", "wanted"),
    [
        (["/"], "GET a.test/", "/"),
        (["/"], "GET a.test/any/thing", "/"),
        (["/v1"], "GET a.test/v1", "/v1"),
        (["/v1"], "GET a.test/v1/", "/v1"),
        (["/v1"], "GET a.test/v1/x", "/v1"),
        (["/v1"], "GET a.test/v1x", None),
        (["/v1"], "GET a.test/", None),
        (["/v1/*"], "GET a.test/v1", "/v1/*"),
        (["/v1/*"], "GET a.test/v1/x", "/v1/*"),
        (["/v1/"], "GET a.test/v1", "/v1/"),
        (["/*"], "GET a.test/v1", "/*"),
        (["/v1!"], "GET a.test/v1", "/v1!"),
        (["/v1!"], "GET a.test/v1/", None),
        (["/v1/!"], "GET a.test/v1/", "/v1/!"),
        (["/v1/!"], "GET a.test/v1", None),
        (["/!"], "GET a.test/", "/!"),
        (["/!"], "GET a.test/x", None),
        (["/", "/v1", "/v1/chat"], "GET a.test/v1/chat/completions", "/v1/chat"),
        (["/v1", "/v1!"], "GET a.test/v1", "/v1!"),
        (["/v1", "/v1!"], "GET a.test/v1/x", "/v1"),
        (["/u/{id}"], "GET a.test/u/7/keys", "/u/{id}"),
        (["/u/{id}"], "GET a.test/u/", None),
        (["/u/{id}"], "GET a.test/u", None),
        (["/u/{id}", "/u/me"], "GET a.test/u/me", "/u/me"),
        (["/u/{id}/keys", "/u/me"], "GET a.test/u/me/keys", "/u/{id}/keys"),
        (["/{a}/x", "/u/{b}"], "GET a.test/u/x", "/u/{b}"),
        (["/u/{id}!", "/u/me"], "GET a.test/u/me", "/u/me"),
        (["/", "a.test/"], "GET a.test/", "a.test/"),
        (["/", "a.test/"], "GET b.test/", "/"),
        (["/deep/er", "a.test/"], "GET a.test/deep/er", "a.test/"),
        (["/deep", "a.test/other"], "GET a.test/deep", "/deep"),
        (["*.a.test/"], "GET a.test/", None),
        (["*.a.test/"], "GET x.y.a.test/", "*.a.test/"),
        (["*.a.test/"], "GET xa.test/", None),
        (["*.test/", "*.a.test/"], "GET x.a.test/", "*.a.test/"),
        (["*.test/", "*.a.test/"], "GET x.b.test/", "*.test/"),
        (["*.test/deep", "*.a.test/other"], "GET x.a.test/deep", "*.test/deep"),
        (["A.Test/"], "GET a.test/", "A.Test/"),
        (["GET /v1", "POST /v1"], "POST a.test/v1", "POST /v1"),
        (["GET /v1", "/v1"], "GET a.test/v1", "GET /v1"),
        (["GET /v1", "/v1"], "PUT a.test/v1", "/v1"),
        (["GET /v1/x", "/v1"], "POST a.test/v1/x", "/v1"),
        (["GET a.test/v1", "/"], "POST a.test/v1", "/"),
        (["GET /v1"], "get a.test/v1", NotAllowed(("GET",))),
        (["GET /v1", "DELETE,PUT /"], "POST a.test/v1", NotAllowed(("DELETE", "GET", "PUT"))),
        (["GET /v1"], "POST a.test/v2", None),
        (["/"], "OPTIONS a.test*", "/"),
    ],
)
def test_the_most_specific_entry_wins(rows, request_line, wanted):
    method, rest = request_line.split(" ")
    host, path = re.fullmatch(r"([^/*]+)(.*)", rest).groups()
    found = table(*rows).match(host, path, method)
    assert (found.value if isinstance(found, Match) else found) == wanted


def test_a_match_says_what_was_captured_and_which_prefix_matched():
    found = table("/teams/{team}/apps/{app}").match("a", "/teams/red%20/apps/7/keys/1", "GET")
    assert isinstance(found, Match)
    assert found.params == {"team": "red%20", "app": "7"}
    assert found.prefix == "/teams/red%20/apps/7"
    plain = table("/v1/*").match("a", "/v1/x", "GET")
    assert isinstance(plain, Match)
    assert (plain.params, plain.prefix) == ({}, "/v1")
    root = table("/").match("a", "/v1/x", "GET")
    assert isinstance(root, Match)
    assert root.prefix == ""


def test_entries_in_conflict_are_named_both():
    with pytest.raises(ValueError, match=r'"GET,POST a\.test/v1" and "POST a\.test/v1"'):
        table("GET,POST a.test/v1", "POST a.test/v1")
    with pytest.raises(ValueError, match=r'"/u/\{a\}" and "/u/\{b\}/\*"'):
        table("/u/{a}", "/u/{b}/*")


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (RouteEntry("", path="v1"), "starts with"),
        (RouteEntry("", path="/v1?x"), "query"),
        (RouteEntry("", path="/caf\u00e9"), "escapes"),
        (RouteEntry("", path="/a b"), "escapes"),
        (RouteEntry("", path="/v1//x"), "empty"),
        (RouteEntry("", path="/v1/{}"), "neither"),
        (RouteEntry("", path="/v1/{a}b"), "neither"),
        (RouteEntry("", path="/v*/x"), "neither"),
        (RouteEntry("", path="/{a}/{a}"), "twice"),
        (RouteEntry("", host="http://a.test"), "not a host"),
        (RouteEntry("", host="a.*.test"), "not a host"),
        (RouteEntry("", host=""), "not a host"),
        (RouteEntry("", methods=frozenset()), "`methods` is empty"),
        (RouteEntry("", methods={"GE T"}), "not a method"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(entry, complaint):
    with pytest.raises(ValueError, match=complaint):
        RouteTable([entry])


def test_an_empty_table_matches_nothing():
    assert RouteTable[str]([]).match("a", "/", "GET") is None


def test_the_example_of_the_module_is_true():
    result = doctest.testmod(tidegate.api.match)
    assert result.attempted > 0
    assert result.failed == 0


# -- the model ----------------------------------------------------------------------------------


def rank(entry: RouteEntry[int], host: str, path: str) -> tuple[object, ...] | None:
    """How specific `entry` is for a request whose method it takes; None: no match."""
    if entry.host == host:
        host_rank = 1000
    elif entry.host == "*":
        host_rank = 0
    elif entry.host.startswith("*.") and host.endswith(entry.host[1:]):
        host_rank = len(entry.host)
    else:
        return None
    pattern = entry.path if entry.exact else entry.path.removesuffix("/*").rstrip("/")
    expression = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(pattern))
    if not re.fullmatch(expression if entry.exact else expression + "(?:/.*)?", path):
        return None
    segments = pattern.split("/")[1:]
    literal = tuple(not s.startswith("{") for s in segments)
    return (host_rank, len(segments), literal, entry.exact, entry.methods is not None)


def model(
    entries: list[RouteEntry[int]], host: str, path: str, method: str
) -> int | set[str] | None:
    ranked = [(r, e) for e in entries if (r := rank(e, host, path)) is not None]
    taken = [(r, e) for r, e in ranked if e.methods is None or method in e.methods]
    if taken:
        return max(taken, key=lambda pair: pair[0])[1].value
    allowed = {m for _, e in ranked for m in e.methods or ()}
    return allowed or None


HOSTS = st.sampled_from(["*", "*.t", "*.a.t", "*.b.a.t", "t", "a.t", "b.a.t", "c.b.a.t", "u"])
SEGMENTS = st.sampled_from(["a", "b", "aa", "{x}", "{y}", "{z}"])
METHODS = st.none() | st.frozensets(st.sampled_from(["GET", "PUT", "POST"]), min_size=1)
PATHS = st.builds(
    lambda segments, end: "/" + "/".join(dict.fromkeys(segments)) + end if segments else "/",
    st.lists(SEGMENTS, max_size=4),
    st.sampled_from(["", "/*"]),
)


@st.composite
def tables(draw: st.DrawFn) -> list[RouteEntry[int]]:
    entries: list[RouteEntry[int]] = []
    for number in range(draw(st.integers(1, 12))):
        path, exact = draw(PATHS), draw(st.booleans())
        if exact:
            path = path.removesuffix("/*") or "/"
        entry = RouteEntry(number, draw(HOSTS), path, exact, draw(METHODS))
        try:
            RouteTable([*entries, entry])
        except ValueError:
            continue  # in conflict with one before
        entries.append(entry)
    return entries


@given(
    tables(),
    st.sampled_from(["t", "a.t", "b.a.t", "c.b.a.t", "x.a.t", "u", "x.u"]),
    st.lists(st.sampled_from(["a", "b", "aa", "c", ""]), max_size=6).map(
        lambda s: "/" + "/".join(s)
    ),
    st.sampled_from(["GET", "PUT", "DELETE"]),
)
def test_the_table_agrees_with_a_slow_model(entries, host, path, method):
    found = RouteTable(entries).match(host, path, method)
    got = found.value if isinstance(found, Match) else found and set(found.methods)
    assert got == model(entries, host, path, method)


def test_what_is_remembered_is_what_was_found_and_stays_within_bounds():
    routes = table("/", "POST /v1", "other.test/v1", "/long!")
    heads = [(f"{n}.test", f"/v1/{n}", method) for n in range(700) for method in ("GET", "POST")]
    heads += [("other.test", "/v1/1", "GET"), ("a.test", "/long", "GET"), ("a.test", "/" * 300, "")]
    first = [routes.match(*head) for head in heads]
    assert [routes.match(*head) for head in heads] == first
    assert {match.value for match in first if isinstance(match, Match)} == {
        "/", "POST /v1", "other.test/v1", "/long!",
    }  # fmt: skip
    assert 0 < len(routes._seen) <= tidegate.api.match.REMEMBERED
    assert all(len(path) <= tidegate.api.match.SHORT for _, path, _ in routes._seen)
