"""What plugins keep that say who is calling, and what a caller may do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from tidegate.api import Exchange, Plugin, hook
from tidegate.testing.exchanges import make_exchange
from tidegate.testing.harness import Harness, Use

from .base import Contract, on_the_wire


class Witness(Plugin):
    """Keeps what later addons and the log see of a request."""

    def __init__(self, config: Any, context: Any) -> None:
        super().__init__(config, context)
        self.seen: list[bytes] = []

    @hook
    def authorize(self, exchange: Exchange) -> None:
        self.seen.append(on_the_wire(exchange.request))

    @hook
    def log(self, exchange: Exchange) -> None:
        self.seen.append(on_the_wire(exchange.request))


class AuthContract(Contract):
    """A credential is checked, taken from the request, and told to no one."""

    def secrets(self) -> Sequence[str]:
        """The credentials that the exchanges of this suite carry, to search for."""
        raise NotImplementedError

    def missing_exchange(self) -> Exchange:
        """An exchange without a credential."""
        return make_exchange()

    def bad_exchanges(self) -> Sequence[Exchange]:
        """Exchanges whose credential is wrong, each in its own way."""
        raise NotImplementedError

    def broken_options(self) -> Mapping[str, Any] | None:
        """Further options under which the backend is down; None: there is no backend."""
        return None

    async def test_a_right_credential_names_a_principal(self) -> None:
        async with self.harness() as harness:
            exchange = await harness.send(self.good_exchange())
        assert exchange.outcome == "answered", exchange.denial
        assert exchange.principal is not None
        assert exchange.principal.id

    async def test_a_wrong_credential_is_denied_alike_each_time(self) -> None:
        answers = set()
        async with self.harness() as harness:
            for exchange in (*self.bad_exchanges(), *self.bad_exchanges()):
                await harness.send(exchange)
                assert exchange.response is not None
                assert exchange.response.status_code == 401
                assert exchange.denial is not None
                assert exchange.denial.code in self.codes()
                error = orjson.loads(exchange.response.content or b"")["error"]
                answers.add((error["code"], error["message"], exchange.denial.headers))
            assert harness.sent == []
        assert len(answers) == 1, "answers differ: they tell what is wrong with a credential"

    async def test_without_a_credential_it_says_nothing_and_core_denies(self) -> None:
        async with self.harness() as harness:
            exchange = await harness.send(self.missing_exchange())
            assert exchange.denial is not None
            assert (exchange.denial.status, exchange.denial.code) == (401, "unauthenticated")
        async with self.harness(gateway={"anonymous": True}) as harness:
            exchange = await harness.send(self.missing_exchange())
            assert exchange.outcome == "answered"
            assert exchange.principal is None

    async def test_a_credential_goes_no_further(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        for mode in ("enforce", "shadow"):
            witness = Use(Witness)
            gateway = {"anonymous": mode == "shadow"}
            async with Harness(*self.others(), self.use(mode), witness, gateway=gateway) as harness:
                for exchange in (self.good_exchange(), *self.bad_exchanges()):
                    await harness.send(exchange)
                    texts = [repr(exchange), repr(exchange.principal), repr(exchange.denial)]
                    texts += [repr(exchange.notes), repr(exchange.shadows)]
                    assert exchange.response is not None
                    texts.append(on_the_wire(exchange.response).decode("latin-1"))
                    texts += [on_the_wire(r).decode("latin-1") for r in harness.sent]
                    texts += [seen.decode("latin-1") for seen in harness.plugin("Witness").seen]
                    for secret in self.secrets():
                        assert not [t for t in texts if secret in t], mode
        for secret in self.secrets():
            assert secret not in caplog.text

    async def test_in_shadow_it_decides_nothing(self) -> None:
        async with self.harness("shadow", gateway={"anonymous": True}) as harness:
            good = await harness.send(self.good_exchange())
            assert good.principal is None
            assert [s.decision for s in good.shadows] == ["authenticate"]
            for exchange in self.bad_exchanges():
                await harness.send(exchange)
                assert exchange.outcome == "answered"
                assert [s.decision for s in exchange.shadows] == ["deny"]

    async def test_in_shadow_alone_it_admits_no_one(self) -> None:
        async with self.harness("shadow") as harness:
            exchange = await harness.send(self.good_exchange())
            assert exchange.response is not None
            assert exchange.response.status_code == 401

    async def test_with_its_backend_down_it_admits_no_one(self) -> None:
        broken = self.broken_options()
        if broken is None:
            pytest.skip("this plugin has no backend")
        async with Harness(*self.others(), self.use(**broken)) as harness:
            exchange = await harness.send(self.good_exchange())
            assert exchange.response is not None
            assert exchange.response.status_code in (401, 503)
            assert harness.sent == []


class AuthorizeContract(Contract):
    """An exchange is let by or denied with a documented code, before anything is sent."""

    def denied(self) -> Sequence[Exchange]:
        """Exchanges to send in order after which the last one is denied (a limit: many)."""
        raise NotImplementedError

    def broken_options(self) -> Mapping[str, Any] | None:
        """Further options under which the backend is down; None: there is no backend."""
        return None

    async def test_what_it_allows_passes(self) -> None:
        async with self.harness() as harness:
            exchange = await harness.send(self.good_exchange())
            assert exchange.outcome == "answered", exchange.denial
            assert len(harness.sent) == 1

    async def test_what_it_denies_is_not_sent_and_says_why(self) -> None:
        async with self.harness() as harness:
            *before, last = self.denied()
            for exchange in before:
                await harness.send(exchange)
            sent = len(harness.sent)
            await harness.send(last)
            assert len(harness.sent) == sent
            assert last.outcome == "denied"
            assert last.denial is not None
            assert last.denial.code in self.codes()
            assert last.denial.message
            if last.denial.status == 429:
                assert last.denial.retry_after, "a 429 says when to come again"

    async def test_in_shadow_it_denies_nothing_and_says_so(self) -> None:
        async with self.harness("shadow") as harness:
            exchanges = self.denied()
            for exchange in exchanges:
                await harness.send(exchange)
                assert exchange.outcome == "answered"
            assert "deny" in [s.decision for s in exchanges[-1].shadows]

    async def test_with_its_backend_down_it_fails_as_it_says(self) -> None:
        broken = self.broken_options()
        if broken is None:
            pytest.skip("this plugin has no backend")
        async with Harness(*self.others(), self.use(**broken)) as harness:
            exchange = await harness.send(self.good_exchange())
            assert exchange.denial is None or exchange.denial.status == 503
