"""What tokens cost: the price table of genai-prices, overrides before it. Exact, in integers.

Money is counted in femto-dollars (1e-15): a price per million tokens, with up to nine decimals,
is then a whole number per token, and a sum loses nothing. What comes out is a `Decimal`.

genai-prices brings its data along; nothing is fetched, at no time. It is imported by `load`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import translate
from typing import Any, Final

from .figures import Usage
from .providers import PROVIDERS

FEMTO: Final = 10**15
_UNIT: Final = Decimal(10) ** -15
_CACHED: Final = 4096
"""Prices that are remembered; a caller who makes up names does not fill the memory."""

NAMES: Final = (
    ("input", "input_mtok"),
    ("output", "output_mtok"),
    ("cache_read", "cache_read_mtok"),
    ("cache_write", "cache_write_mtok"),
    ("cache_write_1h", "cache_write_1h_mtok"),
    ("reasoning", "output_reasoning_mtok"),
    ("audio_input", "input_audio_mtok"),
    ("audio_output", "output_audio_mtok"),
)
"""Our names of prices per million tokens, and those of genai-prices."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Femto-dollars per token; -1: no price of its own. `request` and `search` are per one."""

    input: int = -1
    output: int = -1
    cache_read: int = -1
    cache_write: int = -1
    cache_write_1h: int = -1
    reasoning: int = -1
    audio_input: int = -1
    audio_output: int = -1
    request: int = 0
    search: int = 0

    def cost(self, usage: Usage, input: int, output: int) -> int:
        """Femto-dollars. Tokens without a price of their own cost what the others do."""
        total = self.request + self.search * usage.searches
        if self.cache_read >= 0 and usage.cache_read:
            total += self.cache_read * usage.cache_read
            input -= usage.cache_read
        if self.cache_write >= 0 and usage.cache_write:
            long = usage.cache_write_1h if self.cache_write_1h >= 0 else 0
            total += self.cache_write * (usage.cache_write - long) + self.cache_write_1h * long
            input -= usage.cache_write
        if self.audio_input >= 0 and usage.audio_input:
            heard = min(usage.audio_input, max(input, 0))
            total += self.audio_input * heard
            input -= heard
        if self.audio_output >= 0 and usage.audio_output:
            said = min(usage.audio_output, output)
            total += self.audio_output * said
            output -= said
        if self.reasoning >= 0 and usage.reasoning:
            thought = min(usage.reasoning, output)
            total += self.reasoning * thought
            output -= thought
        return total + max(self.input, 0) * max(input, 0) + max(self.output, 0) * max(output, 0)


class Price:
    """What one model costs. `tiers`: (tokens of input above which they hold, rates), highest first.

    A tier holds for all tokens of a call, as providers count it.
    """

    __slots__ = ("_base", "_tiers")

    def __init__(self, base: Rates, tiers: Sequence[tuple[int, Rates]] = ()) -> None:
        self._base = base
        self._tiers = tuple(sorted(tiers, key=lambda tier: -tier[0]))

    def cost(self, usage: Usage) -> int:
        """Femto-dollars of a call."""
        input, output = usage.billed or (usage.input, usage.output)
        for start, rates in self._tiers:
            if input > start:
                return rates.cost(usage, input, output)
        return self._base.cost(usage, input, output)


class Fixed(Price):
    """A price of the configuration: it holds even where the provider says another."""

    __slots__ = ()


def dollars(femto: int) -> Decimal:
    """US dollars of femto-dollars."""
    return femto * _UNIT


def femto_per_token(per_million: Decimal) -> int:
    """Femto-dollars per token of US dollars per million."""
    return int(per_million * 10**9)


def compiled(prices: dict[str, Any]) -> Price | None:
    """The `Price` of a model's prices in genai-prices; None: it has none for tokens."""
    if prices.get("input_mtok") is None and prices.get("output_mtok") is None:
        return None
    starts = {
        tier.start
        for _, key in NAMES
        for tier in getattr(prices.get(key), "tiers", ())
    }  # fmt: skip

    def rates(tokens: int) -> Rates:
        found = {}
        for name, key in NAMES:
            value = prices.get(key)
            if value is None:
                continue
            price = getattr(value, "base", value)
            for tier in getattr(value, "tiers", ()):
                if tier.start <= tokens:
                    price = tier.price
            found[name] = femto_per_token(price)
        request, search = prices.get("requests_kcount"), prices.get("web_searches_kcount")
        found["request"] = int(request * (FEMTO // 1000)) if request is not None else 0
        found["search"] = int(search * (FEMTO // 1000)) if search is not None else 0
        return Rates(**found)

    return Price(rates(-1), [(start, rates(start)) for start in starts])


@dataclass(frozen=True, slots=True)
class Override:
    """A price of the configuration, for the models that its patterns match."""

    matches: re.Pattern[str]
    price: Price

    @classmethod
    def of(cls, team: str, provider: str, model: str, price: Price) -> Override:
        """For glob patterns of team, provider and model."""
        parts = (translate(part.lower()) for part in (team, provider, model))
        return cls(re.compile("\n".join(part.removesuffix(r"\Z") for part in parts)), price)


class Prices:
    """The prices of all models. The first asking for a model looks it up; then it is remembered."""

    def __init__(self, overrides: Sequence[Override] = ()) -> None:
        self._overrides = tuple(overrides)
        self._known: dict[tuple[str, ...], Price | Callable[[float], Price | None] | None] = {}
        self._snapshot: Any = None

    def load(self) -> None:
        """Import the table (half a second)."""
        from genai_prices import data_snapshot

        self._snapshot = data_snapshot.get_snapshot()

    def cost(
        self,
        provider: str,
        model: str,
        usage: Usage,
        now: float,
        *,
        team: str = "",
        seller: str = "",
    ) -> int | None:
        """Femto-dollars of a call at `now` (Unix seconds); None: no price is known.

        `seller` is the provider in the price table where `provider` is a name of one's own.
        """
        key = (team if self._overrides else "", provider, model, usage.tier, seller)
        try:
            price = self._known[key]
        except KeyError:
            if len(self._known) >= _CACHED:
                self._known.clear()
            price = self._known[key] = self._find(*key)
        if usage.cost is not None and type(price) is not Fixed:
            return int(usage.cost * FEMTO)
        if price is None:
            return None
        if not isinstance(price, Price):
            found = price(now)
            return None if found is None else found.cost(usage)
        return price.cost(usage)

    def _find(
        self, team: str, provider: str, model: str, tier: str, seller: str
    ) -> Price | Callable[[float], Price | None] | None:
        named = f"{team}\n{provider}\n{model}".lower()
        for override in self._overrides:
            if override.matches.fullmatch(named):
                return override.price
        info = self._model(provider, model, seller)
        if info is None:
            return None
        context = {"service_tier": tier} if tier else None
        if tier == "batch":
            context = {"processing": "batch"}
        if not isinstance(info.prices, list):
            return compiled(vars(info.get_prices(datetime.now(UTC), context)))
        seen: dict[int, Price | None] = {}

        def at(now: float) -> Price | None:  # the price depends on the day, or on the hour
            prices = info.get_prices(datetime.fromtimestamp(now, UTC), context)
            if context is not None:
                return compiled(vars(prices))
            if id(prices) not in seen:
                seen[id(prices)] = compiled(vars(prices))
            return seen[id(prices)]

        return at

    def _model(self, provider: str, model: str, seller: str) -> Any:
        """The model in the table: of the provider, else of whoever makes models of that name."""
        if self._snapshot is None:
            self.load()
        known = PROVIDERS.get(provider)
        if known is not None:
            sellers = [known.prices] if known.prices else []
        else:
            sellers = [seller] if seller else [provider, ""]
        find = self._snapshot.find_provider_model
        for ref in _spellings(model):
            maker, slash, rest = ref.partition("/")
            asked = [(ref, id) for id in sellers]
            if slash and "" in sellers:
                asked.append((rest, maker))
            for name, id in asked:
                try:
                    return find(name, None, id or None, None)[1]
                except LookupError:
                    continue
        return None


def _spellings(model: str) -> list[str]:
    """A model's name as it is, and without what regions and versions put around it."""
    bare = model.removeprefix("models/")
    names = [bare]
    if ":" in bare:
        names.append(bare.partition(":")[0])  # OpenRouter's `:free`, Bedrock's `:0`
    return names
