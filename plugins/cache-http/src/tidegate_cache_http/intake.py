"""What the origin answered, taken in: validations, stand-ins, invalidations, new entries."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING

from mitmproxy import http

from tidegate.api import Counters, Exchange
from tidegate.api.caching import CACHE_HINTS
from tidegate.api.messages import make_response

from .flights import Flights
from .rules import invalidation
from .rules.conditional import chosen, same_representation, updated
from .rules.decide import fit, may_stand_in
from .rules.fields import Fields, first
from .rules.freshness import directives_for_us
from .rules.messages import Asked, Stored
from .rules.ranges import combinable, combine, is_complete
from .rules.storing import Refusal, shareable, storable
from .rules.variants import values_of
from .serving import answer
from .sink import StoringSink
from .telling import forwarded, told
from .ticket import TICKET, Ticket
from .tiers.memory import Variant
from .tiers.record import Key
from .tiers.store import Store

if TYPE_CHECKING:
    from tidegate.api import BodySink


class Intake:
    """Acts on answers. One per addon instance."""

    def __init__(self, store: Store, flights: Flights, counters: Counters) -> None:
        self._store = store
        self._flights = flights
        self._count = counters.add

    def take(self, exchange: Exchange, ticket: Ticket) -> BodySink | None:
        """The head of an answer has come; the sink for its body, where it is to be stored."""
        response = exchange.response
        assert response is not None
        exchange.request.data.headers.fields = ticket.fields
        status = response.data.status_code
        if status == 304 and ticket.decision.candidates:
            self._validated(exchange, ticket, response)
            return None
        if status >= 500 and self._stand_in(exchange, ticket, status):
            return None
        method = ticket.asked.method
        if invalidation.invalidates(method, status):
            self._invalidate(ticket, response.data.headers.fields)
        elif method == b"HEAD" and status < 400:
            self._freshen(exchange, ticket, response)
        return self._store_new(exchange, ticket, response)

    # -- validation ---------------------------------------------------------------------------

    def _validated(self, exchange: Exchange, ticket: Ticket, response: http.Response) -> None:
        """304 to our conditions: what is stored is good again, and is the answer (§4.3.3)."""
        decision, fields = ticket.decision, response.data.headers.fields
        head = chosen(decision.candidates, fields)
        variant = next((v for v in ticket.variants if v.head is head), None)
        body = self._body(ticket, variant)
        if variant is None or head is None or body is None:
            self._count("validations_lost_total")
            self.release(ticket, exchange)
            exchange.response = _bad_gateway(exchange, decision.fwd)
            return
        self._count("validated_total")
        now = response.data.timestamp_start
        new = updated(head, fields, now, exchange.now, ticket.terms)
        new.stamp = ticket.stamp
        assert ticket.shelf is not None
        vary = values_of([name for name, _ in head.vary], ticket.fields)
        if vary == head.vary:
            self._store.update(ticket.key, ticket.shelf, variant, new)
        else:  # another request's variant turned out to be this one's as well
            new.vary = vary
            self._store.put(ticket.key, new, body)
        self.release(ticket, exchange, shareable=new.fresh_at(now) and not new.always_validate)
        member = forwarded(decision, status=304, stored=True, ttl=new.ttl_at(now))
        exchange.response = _from_stored(ticket.asked, new, body, now, member)
        exchange.notes["cache"] = "validated"

    def _body(self, ticket: Ticket, variant: Variant | None) -> bytes | None:
        if variant is None or ticket.shelf is None:
            return None
        return self._store.body(ticket.key, ticket.shelf, variant)

    def _freshen(self, exchange: Exchange, ticket: Ticket, response: http.Response) -> None:
        """The 200 to a HEAD: the stored GET is updated, or no longer fresh (§4.3.5)."""
        variant, fields = ticket.variant, response.data.headers.fields
        if variant is None or ticket.shelf is None or response.data.status_code != 200:
            return
        now = response.data.timestamp_start
        if variant.head.status == 200 and same_representation(variant.head, fields):
            new = updated(variant.head, fields, now, exchange.now, ticket.terms)
            new.stamp = ticket.stamp
            self._store.update(ticket.key, ticket.shelf, variant, new)
        else:
            self._store.invalidate(ticket.key.url)

    # -- failure ------------------------------------------------------------------------------

    def _stand_in(self, exchange: Exchange, ticket: Ticket, status: int) -> bool:
        """Whether a stale response has taken the place of a 5xx (RFC 5861 §4)."""
        stored = ticket.decision.stored
        if stored is None or not may_stand_in(
            stored, exchange.now, ticket.asked, ticket.terms, status=status
        ):
            return False
        response = self.stale(exchange, ticket, status=status)
        if response is None:
            return False
        exchange.response = response
        return True

    def stale(
        self,
        exchange: Exchange,
        ticket: Ticket,
        *,
        status: int | None = None,
        detail: str = "",
    ) -> http.Response | None:
        """The answer from a stale response, or None where its body is gone."""
        variant = ticket.variant
        body = self._body(ticket, variant)
        if variant is None or body is None:
            return None
        self._count("stale_on_error_total")
        self.release(ticket, exchange)
        exchange.notes["cache"] = "stale"
        member = forwarded(
            ticket.decision, status=status, ttl=variant.head.ttl_at(exchange.now), detail=detail
        )
        return _from_stored(ticket.asked, variant.head, body, exchange.now, member)

    # -- invalidation -------------------------------------------------------------------------

    def _invalidate(self, ticket: Ticket, fields: Fields) -> None:
        """Drop what an unsafe request has changed, before its answer is released (§4.4)."""
        url = ticket.key.url.decode("latin-1")
        for target in invalidation.targets(url, fields):
            self._count("invalidations_total")
            self._store.invalidate(target.encode("latin-1", "replace"))
        ticket.stamp = self._store.stamp(ticket.key.url)

    # -- storing ------------------------------------------------------------------------------

    def _store_new(
        self, exchange: Exchange, ticket: Ticket, response: http.Response
    ) -> BodySink | None:
        data = response.data
        fields: Fields = data.headers.fields
        if first(fields, b"date") is None:  # RFC 9110 §6.6.1
            received = formatdate(data.timestamp_start, usegmt=True).encode()
            fields = data.headers.fields = (*fields, (b"date", received))
        status = data.status_code
        sink: StoringSink | None = None
        why = ""
        try:
            head, key = self._acceptable(exchange, ticket, response)
            expected = _length(fields)
            if expected is not None and expected > ticket.terms.max_object:
                raise Refusal("it is larger than what is stored")
            sink = self._sink(exchange, ticket, head, key, expected)
        except Refusal as refusal:
            why = str(refusal)
            self.release(ticket, exchange)
        ttl = head.ttl_at(data.timestamp_start) if sink is not None else None
        member = forwarded(
            ticket.decision,
            status=status,
            stored=sink is not None,
            collapsed=False,
            ttl=ttl,
            detail=why,
        )
        data.headers.fields = told(fields, member)
        return sink

    def _acceptable(
        self, exchange: Exchange, ticket: Ticket, response: http.Response
    ) -> tuple[Stored, Key]:
        """The stored form of an answer, and its key. Raises Refusal."""
        asked, data = ticket.asked, response.data
        fields: Fields = data.headers.fields
        status = data.status_code
        if ticket.decision.act == "bypass" and asked.method != b"POST":
            raise Refusal(ticket.decision.why)
        if asked.method == b"POST":
            url = ticket.key.url.decode("latin-1")
            if not invalidation.stored_for_get(url, status, fields):
                raise Refusal("the answer to a POST is stored for its own Content-Location only")
        elif asked.method != b"GET":
            raise Refusal(f"the answer to a {asked.method.decode('latin-1')} is not stored")
        now = data.timestamp_start
        head = storable(asked, status, fields, now, ticket.terms, asked_at=exchange.now)
        if asked.method == b"POST" and (head.heuristic or not head.lifetime):
            raise Refusal("the answer to a POST is stored with a lifetime only")
        head.reason = data.reason or b""
        head.stamp = ticket.stamp
        hints = exchange.stashed(CACHE_HINTS)
        if hints is not None and hints.tags:
            head.tags += tuple(tag.encode() for tag in hints.tags)
        common = ticket.rule.open_key(ticket.own_key)
        if common is not None and shareable(directives_for_us(fields, ticket.terms)[0]):
            return head, common
        return head, ticket.own_key

    def _sink(
        self, exchange: Exchange, ticket: Ticket, head: Stored, key: Key, expected: int | None
    ) -> StoringSink:
        if not head.fresh_at(exchange.now) or head.always_validate:
            self.release(ticket, exchange)  # the others have to ask for themselves

        def keep(body: bytes) -> None:
            if head.part is not None:
                body = self._joined(ticket, head, body)
            head.size = len(body)
            self._count("stored_total")
            self._store.put(key, head, body)
            self.release(ticket, exchange, shareable=True)

        def lost() -> None:
            self._count("not_stored_total")
            self.release(ticket, exchange)

        return StoringSink(keep, lost, limit=ticket.terms.max_object, expected=expected)

    def _joined(self, ticket: Ticket, head: Stored, body: bytes) -> bytes:
        """A part together with the part that is stored (RFC 9111 §3.3, §3.4)."""
        assert head.part is not None
        begin, end, total = head.part
        if len(body) < end - begin + 1:  # it is incomplete: these bytes are what is known
            head.part = (begin, begin + len(body) - 1, total)
        old = ticket.variant
        if old is not None and combinable(old.head, head):
            before = self._body(ticket, old)
            if before is not None:
                head.part, body = combine(old.head, before, head, body)
                head.asked_range = b""
        if is_complete(head.part):
            head.status, head.part, head.reason = 200, None, b""
            head.fields = tuple(f for f in head.fields if f[0].lower() != b"content-range")
        return body

    # -- flights ------------------------------------------------------------------------------

    def release(self, ticket: Ticket, exchange: Exchange, *, shareable: bool = False) -> None:
        """The fetch has brought what it brings: let those go on who wait for it."""
        flight, key = ticket.flight, ticket.flight_key
        ticket.flight = None
        if flight is None or key is None:
            return
        if shareable:
            self._flights.shareable(key)
            self._flights.end(key, flight)
        else:
            self._flights.unshareable(key, flight, exchange.now)

    def ended(self, exchange: Exchange) -> None:
        """At the end of a leader's exchange: whoever still waits goes on without it."""
        ticket = exchange.stash[TICKET]
        flight, key = ticket.flight, ticket.flight_key
        ticket.flight = None
        if flight is not None and key is not None:
            self._flights.end(key, flight)


def _from_stored(
    asked: Asked, head: Stored, body: bytes, now: float, member: tuple[bytes, bytes]
) -> http.Response:
    """The answer from a stored response that need not be fresh: conditions and Range count."""
    decision = fit(asked, head)
    return answer(
        asked,
        Variant(head, body, 0),
        body,
        now,
        member,
        piece=decision.piece,
        unsatisfied=decision.unsatisfied,
    )


def _length(fields: Fields) -> int | None:
    value = first(fields, b"content-length")
    return int(value) if value is not None and value.isdigit() else None


def _bad_gateway(exchange: Exchange, fwd: str) -> http.Response:
    """The origin validated something that we have not, or have lost since."""
    member = (b"cache-status", b'tidegate; fwd=%b; detail="nothing to validate"' % fwd.encode())
    return make_response(502, b"", (member,), b"", exchange.now)
