"""The addon: looks requests up, and takes in what the origin answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from mitmproxy import http

from tidegate.api import BodySink, Denial, Exchange, Plugin, hook
from tidegate.api.messages import make_response

from . import cli, purging
from .flights import Flights
from .intake import Intake
from .options import CacheConfig, Rule, RuleBook
from .rules.conditional import conditions, with_conditions
from .rules.decide import Decision, bypassed, decide, may_stand_in, usual_age
from .rules.fields import Fields
from .rules.messages import NOTABLE, Asked
from .rules.variants import values_of
from .serving import answer, hit_answer
from .telling import forwarded, hit
from .ticket import TICKET, Ticket
from .tiers.memory import Shelf
from .tiers.record import Key, extended
from .tiers.store import Store


class CacheHttp(Plugin[CacheConfig]):
    """See the README."""

    Config = CacheConfig
    codes = (purging.PURGE_NOT_ALLOWED, purging.BAD_PURGE, purging.PURGE_FAILED)

    store: Store

    @hook
    def startup(self, previous: Plugin[Any] | None) -> None:
        """Open the file, or take it over from the instance that this one replaces."""
        self._rules = RuleBook(self.config)
        self._flights = Flights()
        self._count = self.context.counters.add
        self._handed_over = False
        size, memory = self.config.size, self.config.memory
        if isinstance(previous, CacheHttp):
            previous._handed_over = True
            self.store = previous.store
            self.store.resize(size, memory, self.context.counters)
        else:
            self.store = Store(self.context.state, size, memory, self.context.counters)
        self._intake = Intake(self.store, self._flights, self.context.counters)

    @hook
    async def shutdown(self) -> None:
        """Write what waits to be written, and close the file."""
        if not self._handed_over:
            await asyncio.to_thread(self.store.close)

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Why it did not answer."""
        ticket = exchange.stash.get(TICKET)
        return ticket.decision.why if ticket is not None else ""

    @hook
    def cli_commands(self, app: Any) -> None:
        """`tidegate cache stats|explain|purge|warm`."""
        cli.add_to(app, self.context, self.config)

    # -- look-up ------------------------------------------------------------------------------

    @hook
    def cache_lookup(
        self, exchange: Exchange
    ) -> http.Response | Coroutine[Any, Any, http.Response | None] | None:
        """Answer from the cache, or make the request ready for the origin."""
        data = exchange.request.data
        if data.method == b"PURGE" and self.config.purge:
            return purging.answer(self.store, self.config, self._rules, exchange)
        rule = self._rules.of(exchange.host, exchange.path)
        key = rule.key(exchange)
        fields: Fields = data.headers.fields
        ours = not rule.bypasses and data.method in (b"GET", b"HEAD")
        known = self._find(rule, key) if ours else (None, key)
        if known[0] is not None and data.method == b"GET":
            response = self._usual(exchange, fields, known[1], known[0])
            if response is not None:
                return response
        asked = Asked(data.method, fields)
        decision = bypassed(asked, rule.terms)
        if decision is not None:
            self._forward(exchange, Ticket(asked, decision, rule, key, self.store.stamp(key.url)))
            return None
        return self._look(exchange, asked, rule, key, known)

    def _usual(
        self, exchange: Exchange, fields: Fields, key: Key, shelf: Shelf
    ) -> http.Response | None:
        """The hit that a cache lives by: fresh, and nothing to decide. Or None."""
        if len(shelf.variants) != 1:
            return None
        for name, _ in fields:
            if NOTABLE[name]:
                return None
        (only,) = shelf.variants
        now = exchange.now
        age = usual_age(fields, only.head, now)
        if age is None:
            return None
        body = only.body
        if body is None:
            body = self.store.body(key, shelf, only)
            if body is None:
                return None
        elif only.number:
            self.store.shared.visit(only.number)
        self._hit(exchange, body, "hit")
        return hit_answer(only, body, age, now)

    def _look(
        self,
        exchange: Exchange,
        asked: Asked,
        rule: Rule,
        key: Key,
        known: tuple[Shelf | None, Key],
        before: Decision | None = None,
    ) -> http.Response | Coroutine[Any, Any, http.Response | None] | None:
        """Decide over what is `known` under the key.

        `before`: what was decided before the exchange waited for another's fetch.
        """
        now = exchange.now
        shelf, found = known
        variants = shelf.variants if shelf is not None else []
        stamp = self.store.stamp(key.url)
        decision = decide(asked, [v.head for v in variants], now, rule.terms)
        if decision.act == "serve":
            assert shelf is not None
            response = self._serve(exchange, asked, found, shelf, decision, before)
            if response is not None:
                if decision.refresh:
                    self._refresh(exchange, asked, rule, key, found, shelf, decision)
                return response
            decision = Decision("forward", "miss", "its body has just been evicted")
        if decision.act == "unavailable":
            return self._unavailable(exchange, decision)
        ticket = Ticket(asked, decision, rule, key, stamp)
        if shelf is not None:
            ticket.key, ticket.shelf, ticket.variants = found, shelf, variants
        flight_key = self._flight_key(key, shelf, asked)
        if rule.collapse and flight_key is not None:
            flight = self._flights.joinable(flight_key)
            if flight is not None:
                return self._follow(exchange, ticket, key, flight.wait(self.config.collapse_wait))
            ticket.lead(flight_key, self._flights.begin(flight_key, now))
        self._forward(exchange, ticket)
        return None

    def _find(self, rule: Rule, key: Key) -> tuple[Shelf | None, Key]:
        """What is stored under a key, or under that of what is fit for everyone."""
        shelf = self.store.shelf(key)
        if shelf is None and (common := rule.open_key(key)) is not None:
            return self.store.shelf(common), common
        return shelf, key

    def _flight_key(self, key: Key, shelf: Shelf | None, asked: Asked) -> Key | None:
        """One fetch per key and variant, as far as variants are known; None: not for others."""
        if asked.method != b"GET" or b"range" in asked.notable or b"cache-control" in asked.notable:
            return None
        if shelf is None:
            return key
        names = [name for name, _ in shelf.variants[-1].head.vary]
        return extended(key, values_of(names, asked.fields)) if names else key

    async def _follow(
        self, exchange: Exchange, ticket: Ticket, key: Key, landed: asyncio.Future[None]
    ) -> http.Response | None:
        """Wait for another exchange's fetch, then look again."""
        self._count("collapsed_total")
        await asyncio.shield(landed)
        asked, rule = ticket.asked, ticket.rule
        result = self._look(exchange, asked, rule, key, self._find(rule, key), ticket.decision)
        return await result if isinstance(result, Coroutine) else result

    def _serve(
        self,
        exchange: Exchange,
        asked: Asked,
        key: Key,
        shelf: Shelf,
        decision: Decision,
        before: Decision | None,
    ) -> http.Response | None:
        variant = next(v for v in shelf.variants if v.head is decision.stored)
        body = self.store.body(key, shelf, variant)
        if body is None:
            return None
        ttl = variant.head.ttl_at(exchange.now)
        member = hit(ttl) if before is None else forwarded(before, collapsed=True, ttl=ttl)
        self._hit(exchange, body, "hit" if ttl > 0 else "stale")
        return answer(
            asked,
            variant,
            body,
            exchange.now,
            member,
            piece=decision.piece,
            unsatisfied=decision.unsatisfied,
        )

    def _hit(self, exchange: Exchange, body: bytes, how: str) -> None:
        self._count("hits_total")
        self._count("bytes_saved", len(body))
        exchange.notes["cache"] = how

    def _unavailable(self, exchange: Exchange, decision: Decision) -> http.Response:
        """504: the request forbids to ask the origin (RFC 9111 §5.2.1.7)."""
        self._count("only_if_cached_total")
        exchange.notes["cache"] = "unavailable"
        detail = decision.why.replace('"', "'").encode("ascii", "replace")
        member = (b"cache-status", b'tidegate; detail="%b"' % detail)
        return make_response(504, b"", (member,), b"", exchange.now)

    def _forward(self, exchange: Exchange, ticket: Ticket) -> None:
        """Let the exchange go upstream: with our conditions, and what answers if that fails."""
        decision = ticket.decision
        exchange.stash[TICKET] = ticket
        exchange.notes["cache"] = decision.fwd
        self._count(f"forwarded_{decision.fwd.replace('-', '_')}_total")
        if ticket.flight is not None:
            exchange.at_end(self._intake.ended)
        if decision.candidates:
            ours = conditions(decision.candidates)
            exchange.request.data.headers.fields = with_conditions(ticket.fields, ours)
        stored = decision.stored
        if stored is not None and may_stand_in(
            stored, exchange.now, ticket.asked, ticket.terms, status=None
        ):
            exchange.fallback = self._stand_in

    def _stand_in(self, exchange: Exchange, denial: Denial) -> http.Response | None:
        """The stale response that answers where the origin can't be reached (§4.2.4)."""
        ticket = exchange.stash[TICKET]
        return self._intake.stale(exchange, ticket, detail=denial.code)

    def _refresh(
        self,
        exchange: Exchange,
        asked: Asked,
        rule: Rule,
        key: Key,
        found: Key,
        shelf: Shelf,
        decision: Decision,
    ) -> None:
        """Renew what was served stale, once, beside the exchange (RFC 5861 §3)."""
        stored, flight_key = decision.stored, self._flight_key(key, shelf, asked)
        assert stored is not None
        if flight_key is None or self._flights.joinable(flight_key) is not None:
            return
        behind = self.context.fetch(exchange)
        self._count("refreshes_total")
        renewal = Decision("validate", "stale", decision.why, stored)
        renewal.candidates = [stored] if stored.validator else ()
        flight = self._flights.begin(flight_key, exchange.now, renewal=True)
        ticket = Ticket(asked, renewal, rule, key, self.store.stamp(key.url))
        ticket.key, ticket.shelf, ticket.variants = found, shelf, shelf.variants
        ticket.lead(flight_key, flight)
        self._forward(behind, ticket)
        behind.fallback = None

    # -- intake -------------------------------------------------------------------------------

    @hook
    def cache_store(self, exchange: Exchange) -> BodySink | None:
        """Act on what the origin answered: validate, replace, invalidate, store."""
        ticket = exchange.stash.get(TICKET)
        return None if ticket is None else self._intake.take(exchange, ticket)
