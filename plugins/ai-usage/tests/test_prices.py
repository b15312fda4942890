"""What calls cost: the table, overrides before it, and exact sums."""

from __future__ import annotations

from decimal import Decimal

import pytest
from genai_prices.data_snapshot import find_provider_by_id, get_snapshot
from pydantic import ValidationError
from tidegate_ai_usage.config import AiUsageConfig, PriceConfig
from tidegate_ai_usage.figures import Usage
from tidegate_ai_usage.prices import FEMTO, Price, Prices, Rates, dollars
from tidegate_ai_usage.providers import PROVIDERS

NOW = 1_795_000_000.0
PRICES = Prices()


def cost(provider: str, model: str, usage: Usage, *overrides: PriceConfig, team: str = ""):
    prices = Prices([one.override for one in overrides]) if overrides else PRICES
    found = prices.cost(provider, model, usage, NOW, team=team)
    return None if found is None else dollars(found)


@pytest.mark.parametrize(
    ("provider", "model", "usage", "wanted"),
    [
        ("openai", "gpt-4o", Usage(1_000_000, 1_000_000), "12.5"),
        ("openai", "gpt-4o", Usage(1_000_000, 0, cache_read=1_000_000), "1.25"),
        ("openai", "gpt-4o-2024-08-06", Usage(3, 1), "0.0000175"),
        ("azure", "gpt-4o", Usage(1_000_000, 0), "2.5"),
        ("", "gpt-4o", Usage(1_000_000, 0), "2.5"),
        ("", "openai/gpt-4o", Usage(1_000_000, 0), "2.5"),
        ("anthropic", "claude-3-5-haiku-20241022", Usage(1_000_000, 0), "0.8"),
        ("anthropic", "claude-3-5-haiku-latest", Usage(1_000_000, cache_read=1_000_000), "0.08"),
        ("anthropic", "claude-3-5-haiku-latest", Usage(1_000_000, cache_write=1_000_000), "1"),
        ("bedrock", "us.anthropic.claude-3-5-haiku-20241022-v1:0", Usage(1_000_000, 0), "0.8"),
        ("gemini", "gemini-2.5-pro", Usage(100_000, 0), "0.125"),
        ("gemini", "gemini-2.5-pro", Usage(300_000, 0), "0.75"),
        ("gemini", "gemini-2.5-flash", Usage(1_000_000, audio_input=1_000_000), "1"),
        ("vertex", "gemini-2.5-pro", Usage(200_000, 1_000_000), "10.25"),
        ("openrouter", "openai/gpt-4o", Usage(1_000_000, 0), "2.5"),
        ("openrouter", "anything/at-all", Usage(5, 5, cost=Decimal("0.0007")), "0.0007"),
        ("cohere", "command-r-08-2024", Usage(500, 7, billed=(1_000_000, 0)), "0.15"),
    ],
)
def test_the_table_has_the_price(provider, model, usage, wanted):
    assert cost(provider, model, usage) == Decimal(wanted)


def test_a_provider_of_ones_own_name_has_the_prices_of_its_host():
    used = Usage(1_000_000)
    found = PRICES.cost("prod-eu", "deepseek-chat", used, NOW, seller="deepseek")
    assert found == PRICES.cost("deepseek", "deepseek-chat", used, NOW) is not None


@pytest.mark.parametrize("provider", [p for p in PROVIDERS.values() if p.prices])
def test_the_table_knows_the_providers(provider):
    assert find_provider_by_id(get_snapshot().providers, provider.prices) is not None


def test_a_known_provider_does_not_have_the_prices_of_others():
    assert cost("ollama", "mistral-large-latest", Usage(1_000_000)) is None
    assert cost("mistral", "mistral-large-latest", Usage(1_000_000)) is not None


def test_no_price_is_none_and_not_zero():
    assert cost("ollama", "my-own-model", Usage(10, 10)) is None


def test_the_first_override_that_matches_holds_even_against_the_providers_own_cost():
    overrides = (
        PriceConfig(team="cheap", model="gpt-4o*", input=1),
        PriceConfig(provider="open*", model="gpt-4o", input=2, output=4, request="0.01"),
        PriceConfig(provider="local", input=0),
    )
    used = Usage(1_000_000, 1_000_000, cost=Decimal(9))
    assert cost("openai", "gpt-4o", used, *overrides) == Decimal("6.01")
    assert cost("openai", "GPT-4o", used, *overrides, team="cheap") == Decimal(1)
    assert cost("local", "anything", Usage(5, 5), *overrides) == 0
    assert cost("openai", "gpt-4.1", Usage(1_000_000), *overrides) == Decimal(2)


def test_tokens_with_a_price_of_their_own_are_not_paid_twice():
    rates = Rates(10, 100, cache_read=1, cache_write=20, cache_write_1h=40, reasoning=50,
                  audio_input=30, audio_output=300)  # fmt: skip
    used = Usage(100, 50, 10, 20, 5, reasoning=7, audio_input=8, audio_output=9)
    wanted = 10 * 1 + 15 * 20 + 5 * 40 + 8 * 30 + (100 - 10 - 20 - 8) * 10
    wanted += 7 * 50 + 9 * 300 + (50 - 7 - 9) * 100
    assert Price(rates).cost(used) == wanted


def test_figures_that_contradict_each_other_cost_no_less_than_nothing():
    rates = Rates(10, 100, cache_read=1, reasoning=50, audio_input=30, audio_output=300)
    used = Usage(5, 5, cache_read=10, reasoning=50, audio_input=50, audio_output=50)
    assert Price(rates).cost(used) == 10 + 5 * 300


def test_a_tier_holds_for_all_tokens_of_a_call():
    price = Price(Rates(1, 0), [(200, Rates(3, 0)), (100, Rates(2, 0))])
    assert [price.cost(Usage(n)) for n in (100, 101, 200, 201)] == [100, 202, 400, 603]


def test_sums_lose_nothing():
    total = sum(PRICES.cost("openai", "gpt-4o", Usage(1), NOW) for _ in range(1_000_000))
    assert total == FEMTO * 25 // 10


def test_service_tiers_have_prices_of_their_own():
    assert cost("openai", "o3", Usage(1_000_000, 1_000_000, tier="flex")) == Decimal(5)
    assert cost("openai", "o3", Usage(1_000_000, 1_000_000)) == Decimal(10)


def test_names_that_callers_make_up_do_not_fill_the_memory():
    prices = Prices()
    for number in range(5000):
        prices.cost("ollama", f"made-up-{number}", Usage(1), NOW)
    assert len(prices._known) <= 4096


@pytest.mark.parametrize(
    "options",
    [
        {"prices": [{"input": -1}]},
        {"prices": [{"model": "x"}]},
        {"hosts": {"llm.internal": "opnai"}},
        {"keys": [{"provider": "opnai", "key": "x"}]},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValidationError):
        AiUsageConfig.model_validate(options)
