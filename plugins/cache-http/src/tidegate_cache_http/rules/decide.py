"""The decision: a request, what is stored for its key, the time in; what is done with it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from .directives import LONGEST
from .fields import Fields
from .messages import Asked, Stored, Terms
from .ranges import Slice, covers, invalid, resolve, wanted
from .variants import matches, select

type Act = Literal["serve", "validate", "forward", "bypass", "unavailable"]

SAFE: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
"""Methods that invalidate nothing (RFC 9110 §9.2.1). PRI and QUERY are unknown to us."""


@dataclass(slots=True)
class Decision:
    """What is done with a request.

    Attributes:
        act: `serve` from `stored`; `validate`: ask the origin about `candidates`; `forward`
            a miss; `bypass`: the cache has no part in it; `unavailable`: 504.
        fwd: why it is forwarded, in the words of RFC 9211 §2.2; "" for a hit.
        why: the same for people.
        stored: what matches the request, fresh or stale; kept in `validate` and `forward` too.
        candidates: the stored responses whose validators are sent.
        refresh: serve, and renew it in the background (stale-while-revalidate).
        piece: the slice of the body that is served (206); `unsatisfied`: 416 instead.
    """

    act: Act
    fwd: str = ""
    why: str = ""
    stored: Stored | None = None
    candidates: Sequence[Stored] = ()
    refresh: bool = False
    piece: Slice | None = None
    unsatisfied: bool = False


def bypassed(asked: Asked, terms: Terms) -> Decision | None:
    """The decision for requests that are not the cache's, or None (before any look-up)."""
    if terms.mode == "bypass":
        return Decision("bypass", "bypass", "the operator's rules bypass the cache here")
    if asked.method not in (b"GET", b"HEAD"):
        method = asked.method.decode("latin-1")
        return Decision("bypass", "method", f"a {method} is not answered from the cache")
    notable = asked.notable
    if not notable:
        return None
    if asked.has_body:
        return Decision("bypass", "request", "the request has content, which is in no key")
    if b"if-match" in notable or b"if-unmodified-since" in notable:
        return Decision("bypass", "request", "its precondition is for the origin to judge")
    if asked.overrides:
        return Decision("bypass", "request", "it has a field that makes it another request")
    return None


def usual_age(fields: Fields, stored: Stored, now: float) -> int | None:
    """The age of the only thing stored where it is served as it is; else None.

    The shortcut of the usual hit, a GET whose `fields` have none of NOTABLE: what it says yes
    to, `decide` would serve whole.
    """
    age = stored.age + max(0, int(now - stored.asked_at))
    if (
        stored.lifetime > age
        and stored.part is None
        and not stored.always_validate
        and not stored.purged
        and (not stored.vary or matches(stored, fields))
    ):
        return age
    return None


def decide(asked: Asked, entries: Sequence[Stored], now: float, terms: Terms) -> Decision:
    """The decision over `entries`, all that is stored for the key (RFC 9111 §4).

    The caller has asked `bypassed` before.
    """
    stored = select(entries, asked.fields)
    wishes = asked.cache_control if terms.client_directives else None
    only_here = wishes is not None and "only-if-cached" in wishes
    if stored is None:
        if only_here:
            return Decision("unavailable", "", "nothing is stored, and only-if-cached asks for it")
        if entries:
            tagged = [one for one in entries if one.etag and one.part is None]
            why = "what is stored was negotiated for other request fields (Vary)"
            act: Act = "validate" if tagged else "forward"
            return Decision(act, "vary-miss", why, None, tagged)
        return Decision("forward", "uri-miss", "nothing is stored for this URL")
    decision = fit(asked, stored)
    if decision.act != "serve":
        if only_here:
            return Decision("unavailable", "", "only another part is stored")
        return decision
    fwd, why = _must_ask(asked, stored, now, terms)
    if not fwd:
        return decision
    if fwd == "refresh":
        decision.refresh, decision.why = True, why
        return decision
    if only_here:
        return Decision("unavailable", "", f"{why}, and only-if-cached forbids to ask")
    decision.fwd, decision.why = fwd, why
    decision.act = "validate" if stored.validator else "forward"
    decision.candidates = [stored] if stored.validator else ()
    return decision


def fit(asked: Asked, stored: Stored) -> Decision:
    """Which bytes of `stored` would be served; a miss where it has them not."""
    why = "stored and fresh"
    part = stored.part
    span = wanted(asked, stored)
    if part is None:
        if span is None or invalid(span):
            return Decision("serve", "", why, stored)
        piece = resolve(span, stored.size)
        return Decision("serve", "", why, stored, piece=piece, unsatisfied=piece is None)
    if span is not None:
        if span == stored.asked_range:
            return Decision("serve", "", why, stored, piece=_all_of(stored))
        if part[2] is not None and not invalid(span):
            piece = resolve(span, part[2])
            if piece is None:
                return Decision("serve", "", why, stored, unsatisfied=True)
            if covers(part, piece):
                return Decision("serve", "", why, stored, piece=piece)
    return Decision("forward", "partial", "only another part of it is stored", stored)


def _all_of(stored: Stored) -> Slice:
    assert stored.part is not None
    return Slice(stored.part[0], stored.part[1], stored.part[2] or 0)


def _must_ask(asked: Asked, stored: Stored, now: float, terms: Terms) -> tuple[str, str]:
    """("", "") where it may be served as it is; ("refresh", why) while revalidating; or why not.

    §4.2.4 and §5.2.1; immutable (RFC 8246) needs nothing here: what is fresh is not validated
    unless a client's no-cache asks for it.
    """
    ttl = stored.ttl_at(now)
    fresh = stored.fresh_at(now)
    wishes = asked.cache_control if terms.client_directives else None
    if stored.always_validate:
        return "stale", "the response says no-cache: it is always validated"
    if wishes:
        if "no-cache" in wishes:
            return "request", "the request says no-cache"
        if "no-store" in wishes:
            return "request", "the request says no-store"
        most = wishes.seconds("max-age")
        if most is not None and (stored.age_at(now) > most or most == 0):
            return "request", f"it is older than the request's max-age={most} allows"
        least = wishes.seconds("min-fresh")
        if least is not None and fresh and ttl < least:
            return "request", f"it stays fresh for {ttl} s, less than the request's min-fresh"
    if fresh:
        return "", ""
    if not stored.never_stale:
        accepts = wishes and "max-stale" in wishes and not stored.purged
        if accepts and -ttl <= _max_stale(asked):
            return "", ""
        if -ttl <= stored.swr and stored.swr:
            return "refresh", f"stale for {-ttl} s, within stale-while-revalidate"
    if stored.purged:
        return "stale", "it was purged softly"
    return "stale", f"it has been stale for {-ttl} s"


def _max_stale(asked: Asked) -> int:
    """Seconds of staleness that a client accepts; without an argument any (§5.2.1.2)."""
    directives = asked.cache_control
    if directives.bare("max-stale"):
        return LONGEST
    return directives.seconds("max-stale") or 0


def may_stand_in(
    stored: Stored, now: float, asked: Asked, terms: Terms, *, status: int | None
) -> bool:
    """Whether a stale response may answer where the origin failed (§4.2.4, RFC 5861 §4).

    `status` is that of a 5xx answer, None where the origin could not be reached.
    """
    if stored.never_stale:
        return False
    stale_for = -stored.ttl_at(now)
    own = stored.sie
    if terms.client_directives:
        asks = asked.cache_control.seconds("stale-if-error")
        own = asks if own is None else own
    window = terms.stale_if_error if own is None else own
    if status is None:
        window = max(window, terms.stale_if_unreachable)
    elif status not in (500, 502, 503, 504):
        return False
    return window > 0 and stale_for <= window
