"""The addon on exchanges of one worker: whose limit, how much, what a caller is told."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError
from tidegate_limit_quota import LimitQuota, LimitQuotaConfig

from tidegate.api import Client, Exchange, Plugin, Principal, hook
from tidegate.api.formats import AI_SPENT, AiSpent
from tidegate.api.platform import CONSUMER, SERVICE, Application, Consumer, Service, Team
from tidegate.testing import Harness, Use, make_exchange
from tidegate.testing.contracts import AuthorizeContract, PluginContract, TransformContract


class TestContract(PluginContract, AuthorizeContract, TransformContract):
    name = "limit-quota"

    def options(self):
        # Without `t=…`: the seconds until midnight are not the same twice.
        return {"limits": [limit(amount=2)], "headers": False}

    def denied(self):
        return [make_exchange() for _ in range(3)]


def limit(**options: Any) -> dict[str, Any]:
    return {"name": "calls", "unit": "requests", "amount": 3, "window": "day"} | options


def use(*limits: dict[str, Any], **options: Any) -> Use:
    return Use(LimitQuota, {"limits": limits or [limit()], **options}, name="limit-quota")


ADA, BOB = Principal("ada", "red"), Principal("bob", "red")


async def outcomes(harness: Harness, *callers: Principal | str) -> list[int]:
    found = []
    for caller in callers:
        address = caller if isinstance(caller, str) else "192.0.2.1"
        principal = caller if isinstance(caller, Principal) else None
        exchange = make_exchange(client=Client(address, 1, address), principal=principal)
        await harness.send(exchange)
        assert exchange.response is not None
        found.append(exchange.response.status_code)
    return found


@pytest.mark.parametrize(
    ("per", "callers", "denied"),
    [
        ("principal", [ADA, BOB], False),
        ("principal", ["192.0.2.1", "192.0.2.2"], False),
        ("principal", [Principal("192.0.2.1"), "192.0.2.1"], False),
        ("address", [ADA, BOB], True),
        ("address", ["2001:db8::1", "2001:db8:0:0:ffff::2"], True),
        ("address", ["2001:db8::1", "2001:db8:0:1::1"], False),
        ("team", [ADA, BOB], True),
        ("team", [ADA, Principal("ada", "blue")], False),
        ("team", [ADA, Principal("red")], False),
        ("gateway", [ADA, "192.0.2.9"], True),
        ("service", [ADA, BOB], True),
        ("key", [ADA, BOB], False),
    ],
)
async def test_a_limit_is_that_of_whom_it_says(per, callers, denied):
    async with Harness(use(limit(amount=1, per=per))) as harness:
        assert await outcomes(harness, *callers) == [200, 429 if denied else 200]


async def test_a_limit_for_some_leaves_others_alone():
    async with Harness(use(limit(amount=1, per="team", only=["r*"]))) as harness:
        blue = Principal("eve", "blue")
        assert await outcomes(harness, blue, blue, ADA, BOB) == [200, 200, 200, 429]


async def test_all_limits_hold_and_one_that_does_not_costs_the_others_nothing():
    limits = [limit(name="team", amount=3, per="team"), limit(amount=1)]
    async with Harness(use(*limits)) as harness:
        assert await outcomes(harness, ADA, ADA, ADA, BOB) == [200, 429, 429, 200]
        third = Principal("eve", "red")
        assert await outcomes(harness, third, Principal("sam", "red")) == [200, 429]


LEVELS = ("gateway", "team", "application", "key", "service", "model")
KEYS_OF_CALL = ("", "red", "red/shop", "key tg_abc", "red/chat", "gpt-4o")


@pytest.mark.parametrize("tight", LEVELS)
async def test_limits_of_all_levels_hold_and_what_the_others_reserved_is_free_again(tight):
    red = Team("t1", "red")
    principal = Principal("shop", "red")
    consumer = Consumer(principal, Application("a1", "shop", red), "k1", "tg_abc")
    limits = [limit(name=per, per=per, amount=1 if per == tight else 5) for per in LEVELS]

    def call() -> Exchange:
        exchange = chat()
        exchange.principal = principal
        exchange.stash[CONSUMER] = consumer
        exchange.stash[SERVICE] = Service("s1", "chat", red)
        return exchange

    async with Harness(use(*limits)) as harness:
        assert (await harness.send(call())).response.status_code == 200
        for _ in range(2):
            denied = await harness.send(call())
            assert denied.response.status_code == 429
            assert f"(limit {tight})" in denied.denial.message
        await used(harness)
        ledger = harness.plugin("limit-quota").leases.backend.ledger
        found = {(a.limit.partition("|")[0], a.key): a.used(0) for a in ledger.accounts.values()}
        assert found == dict.fromkeys(zip(LEVELS, KEYS_OF_CALL, strict=True), 1)


async def test_a_denial_says_when_it_begins_anew():
    async with Harness(use(limit(amount=1))) as harness:
        await harness.send(make_exchange())
        denied = await harness.send(make_exchange())
        assert denied.denial is not None
        assert denied.denial.code == "quota_exceeded"
        fields = denied.response.headers
        assert fields["ratelimit-policy"] == '"calls";q=1;w=86400'
        assert 0 < int(fields["retry-after"]) <= 86_401
        assert fields["ratelimit"] == f'"calls";r=0;t={fields["retry-after"]}'


async def test_answers_say_what_is_left():
    async with Harness(use(limit(amount=100))) as harness:
        for left in (99, 98, 97):
            exchange = await harness.send(make_exchange())
            assert exchange.response.headers["ratelimit"].startswith(f'"calls";r={left};t=')


@pytest.mark.parametrize(
    ("options", "policy", "left"),
    [
        ({"amount": 10**17}, {"q": 10**15 - 1, "w": 86_400}, 10**15 - 1),
        ({"unit": "concurrency", "window": None}, {"q": 3, "qu": "concurrent-requests"}, 2),
        ({"unit": "bytes", "amount": "1MB"}, {"q": 10**6, "qu": "content-bytes", "w": 86_400},
         10**6 - 65_536),
    ],
)  # fmt: skip
async def test_fields_are_lists_of_structured_fields(options, policy, left):
    http_sf = pytest.importorskip("http_sf")
    async with Harness(use(limit(**options))) as harness:
        fields = (await harness.send(make_exchange())).response.headers
        ((name, told),) = http_sf.parse(fields["ratelimit-policy"].encode(), tltype="list")
        assert (name, told) == ("calls", policy)
        ((name, told),) = http_sf.parse(fields["ratelimit"].encode(), tltype="list")
        assert (name, told["r"]) == ("calls", left)
        assert ("t" in told) is ("w" in policy)


async def test_without_headers_only_denials_speak():
    async with Harness(use(limit(amount=1), headers=False)) as harness:
        passed = await harness.send(make_exchange())
        denied = await harness.send(make_exchange())
        assert "ratelimit" not in passed.response.headers
        assert "ratelimit" in denied.response.headers


# -- what a call to a model uses -----------------------------------------------------------------


class Spends(Plugin):
    """Says what a call has used, as ai-usage does."""

    usage: Any = SimpleNamespace(input=100, output=50)
    cost: Decimal | None = Decimal("0.25")

    @hook
    def transform_request(self, exchange):
        exchange.at_end(self._end)

    def _end(self, exchange):
        exchange.stash[AI_SPENT] = AiSpent("openai", "gpt", "openai-chat", self.usage, self.cost)


def chat(model: str = "gpt-4o", **options: Any) -> Any:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **options}
    return make_exchange("POST", "http://api.test/v1/chat/completions", body=body)


async def used(harness: Harness) -> int:
    """What the ledger has, once the worker has told it."""
    await asyncio.sleep(0.4)
    ledger = harness.plugin("limit-quota").leases.backend.ledger
    return sum(account.used(0) for account in ledger.accounts.values())


@pytest.mark.parametrize(
    ("unit", "spent"),
    [
        ("tokens", 150),
        ("prompt-tokens", 100),
        ("completion-tokens", 50),
        ("usd", 250_000_000),
        ("requests", 1),
    ],
)
async def test_a_call_is_settled_with_what_it_used(unit, spent):
    async with Harness(use(limit(unit=unit, amount=100_000)), Spends) as harness:
        assert (await harness.send(chat())).outcome == "answered"
        assert await used(harness) == spent


async def test_bytes_are_those_of_both_bodies():
    async with Harness(use(limit(unit="bytes", amount="1MB"))) as harness:
        exchange = make_exchange("POST", body=b"x" * 100)
        exchange.bytes_out = 900
        await harness.send(exchange)
        assert await used(harness) == exchange.bytes_in + exchange.bytes_out > 100


async def test_a_reservation_holds_others_off_until_it_is_settled():
    async with Harness(use(limit(unit="tokens", amount=1000)), Spends) as harness:
        denied = await harness.send(chat(max_tokens=1000))
        assert denied.denial.status == 429
        for _ in range(5):
            assert (await harness.send(chat(max_tokens=200))).outcome == "answered"
        assert await used(harness) == 750


async def test_a_spent_budget_is_402_and_an_overspent_one_stays_so():
    async with Harness(use(limit(unit="usd", amount="0.60", price="1")), Spends) as harness:
        answers = [await harness.send(chat()) for _ in range(5)]
        assert [a.response.status_code for a in answers] == [200, 200, 200, 402, 402]
        assert answers[-1].denial.code == "budget_exceeded"
        assert await used(harness) == 750_000_000


async def test_what_has_no_price_costs_what_was_reserved():
    async with Harness(use(limit(unit="usd", amount=10, estimate="0.5")), Spends) as harness:
        harness.plugin("Spends").cost = None
        await harness.send(chat())
        assert await used(harness) == 500_000_000


async def test_a_call_that_was_never_sent_uses_nothing():
    async with Harness(use(limit(unit="tokens", amount=10_000)), routed=False) as harness:
        assert (await harness.send(chat())).response.status_code == 404
        assert await used(harness) == 0


async def test_requests_that_are_no_calls_to_models_are_not_counted_in_tokens():
    async with Harness(use(limit(unit="tokens", amount=1))) as harness:
        assert await outcomes(harness, ADA, ADA) == [200, 200]


async def test_a_limit_of_some_models_is_for_those():
    models = limit(models=["gpt-*"], amount=1)
    async with Harness(use(models)) as harness:
        sent = [await harness.send(chat(name)) for name in ("gpt-4o", "claude", "gpt-5", "claude")]
        assert [x.response.status_code for x in sent] == [200, 200, 429, 200]


async def test_concurrency_comes_back_when_an_exchange_ends():
    async with Harness(use(limit(unit="concurrency", window=None, amount=2))) as harness:
        assert await outcomes(harness, *[ADA] * 6) == [200] * 6


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": None}, "window"),
        ({"unit": "concurrency"}, "window"),
        ({"reset": "rolling", "window": "second"}, "rolling"),
        ({"zone": "Europe/Nowhere"}, "zone"),
        ({"amount": "1.5"}, "fractions"),
        ({"amount": 0}, "amount"),
        ({"amount": True}, "amount"),
        ({"unit": "usd", "amount": "99999999999"}, "range"),
        ({"alert": [101]}, "alert"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, told):
    with pytest.raises(ValidationError, match=told):
        LimitQuotaConfig(limits=[limit(**options)])


def test_two_limits_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="same name"):
        LimitQuotaConfig(limits=[limit(), limit()])
