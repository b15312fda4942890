"""Answers made of what is stored (RFC 9111 §4.2.3, §4.3.2; RFC 9110 §14, §15.4.5)."""

from __future__ import annotations

from typing import Final

from mitmproxy import http

from tidegate.api.messages import PreparedHead, PreparedResponse, make_response

from .rules.conditional import fields_of_304, not_modified
from .rules.fields import Fields, first, without
from .rules.messages import Asked, Stored
from .rules.ranges import Slice
from .telling import NAME, hit, told
from .tiers.memory import Variant

_PARTIAL: Final = frozenset({b"content-range"})


def hit_answer(variant: Variant, body: bytes, age: int, now: float) -> http.Response:
    """The usual answer from the cache: all of it, fresh, to a request that asks for no less."""
    head, prepared = variant.head, variant.prepared
    if prepared is None and first(head.fields, NAME) is None:  # no cache before us has told
        prepared = variant.prepared = PreparedHead(head.status, head.reason, head.fields)
    if prepared is not None:
        return PreparedResponse(prepared, body, age, head.lifetime - age, now)
    fields = told((*head.fields, (b"age", b"%d" % age)), hit(head.lifetime - age))
    return make_response(head.status, head.reason, fields, body, now)


def answer(
    asked: Asked,
    variant: Variant,
    body: bytes,
    now: float,
    status: tuple[bytes, bytes],
    *,
    piece: Slice | None = None,
    unsatisfied: bool = False,
) -> http.Response:
    """The answer to `asked` from a stored response with its body.

    `status` is our member of Cache-Status.
    """
    head = variant.head
    age = (b"age", b"%d" % head.age_at(now))
    if asked.notable and not unsatisfied and not_modified(asked, head, now):
        return _response(304, fields_of_304(told((*head.fields, age), status)), b"", now)
    if unsatisfied:
        total = head.size if head.part is None else head.part[2] or 0
        span = (b"content-range", b"bytes */%d" % total)
        return _response(416, told((span,), status), b"", now)
    if piece is not None:
        return _partial(head, body, piece, (age,), status, now)
    return make_response(head.status, head.reason, told((*head.fields, age), status), body, now)


def _partial(
    head: Stored,
    body: bytes,
    piece: Slice,
    age: Fields,
    status: tuple[bytes, bytes],
    now: float,
) -> http.Response:
    offset = head.part[0] if head.part is not None else 0
    total = b"%d" % piece.total if piece.total else b"*"
    span = (b"content-range", b"bytes %d-%d/%b" % (piece.first, piece.last, total))
    fields = told((*without(head.fields, _PARTIAL), span, *age), status)
    return _response(206, fields, body[piece.first - offset : piece.last + 1 - offset], now)


def _response(status: int, fields: Fields, body: bytes, now: float) -> http.Response:
    return make_response(status, b"", fields, body, now)
