"""The rules against the slow model, over requests and responses made at random."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tidegate_cache_http.rules.conditional import not_modified
from tidegate_cache_http.rules.decide import decide, usual_age
from tidegate_cache_http.rules.storing import Refusal

from . import model
from .kit import NOW, TERMS, ask, date, keep

SECONDS = st.sampled_from(["0", "1", "5", "60", "007", "-1", "1.5", '"60"', "x", "", "9" * 12])


def control(*names: str, with_seconds: tuple[str, ...]) -> st.SearchStrategy[str]:
    bare = st.sampled_from([*names, *with_seconds, "ext", 'ext="max-age=9, no-store"', "ext=1"])
    timed = st.builds("{}={}".format, st.sampled_from(with_seconds), SECONDS)
    case = st.sampled_from([str, str.upper, str.title])
    members = st.lists(st.builds(lambda f, t: f(t), case, bare | timed), max_size=4)
    return st.builds(lambda parts, comma: comma.join(parts), members, st.sampled_from([",", ", "]))


RESPONSE_CC = control(
    "no-cache", "no-store", "private", "public", "must-revalidate", "proxy-revalidate",
    "immutable",
    with_seconds=("max-age", "s-maxage", "stale-while-revalidate", "stale-if-error"),
)  # fmt: skip
REQUEST_CC = control(
    "no-cache", "no-store", "no-transform", with_seconds=("max-age", "max-stale", "min-fresh")
)
DATES = st.sampled_from([-5000, -60, -5, 0, 5, 60, 5000]).map(date)
TAGS = st.sampled_from(['"a"', 'W/"a"', '"b"', 'W/"b"'])


def message(**parts: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    named = {name.replace("_", "-"): part for name, part in parts.items()}
    return st.fixed_dictionaries({}, optional=named)


REQUESTS = message(
    cache_control=REQUEST_CC,
    if_none_match=st.lists(TAGS, min_size=1, max_size=3).map(", ".join) | st.just("*"),
    if_modified_since=DATES | st.just("nonsense"),
    authorization=st.just("Bearer x"),
    foo=st.sampled_from(["1", "2"]),
)
RESPONSES = message(
    cache_control=RESPONSE_CC,
    expires=DATES | st.sampled_from(["0", "nonsense"]),
    date=DATES,
    last_modified=DATES,
    etag=TAGS,
    age=st.sampled_from(["0", "3", "59", "60", "x", "-1", "9" * 15, "5, 99"]),
    vary=st.sampled_from(["foo", "foo, bar", "*"]),
)


@settings(max_examples=1500, deadline=None)
@given(REQUESTS, REQUESTS, RESPONSES, st.sampled_from([0, 1, 4, 5, 6, 59, 60, 61, 3000]))
@example({}, {}, {"cache-control": "max-age=60"}, 59)
@example({}, {"cache-control": "max-stale"}, {"cache-control": "max-age=1"}, 60)
def test_the_rules_reuse_what_the_model_allows_and_nothing_else(first, second, response, after):
    asked = int(NOW)
    try:
        stored = keep(response, ask(first))
    except Refusal:
        # it may refuse for want of any use, never against the model's will to keep it fresh
        if model.may_be_stored(first, response, asked):
            assert model.lifetime(response, asked) == 0 or response.get("vary") == "*"
        return
    assert model.may_be_stored(first, response, asked)
    decision = decide(ask(second), [stored], NOW + after, TERMS)
    allowed = model.may_be_reused(second, first, response, asked, asked + after)
    assert (decision.act == "serve") is allowed
    assert stored.age_at(NOW + after) == model.age(response, asked, asked + after)
    usual = None if ask(second).notable else usual_age(ask(second).fields, stored, NOW + after)
    if usual is not None:
        assert usual == stored.age_at(NOW + after)
        assert (decision.act, decision.refresh, decision.piece) == ("serve", False, None)
    if decision.act == "serve":
        expected = model.conditions_hold(second, response, asked)
        assert not_modified(ask(second), stored, NOW + after) is expected
    else:
        assert decision.fwd
        assert decision.why
