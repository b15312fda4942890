"""What models cost: the figures of `genai-prices`, which are inside that package."""

from __future__ import annotations

from typing import Final

from tidegate.api.models import Model

from .demand import Demand
from .options import Price
from .targets import Candidate

_MILLION: Final = 1_000_000
_NEVER: Final = float("inf")


def load_prices() -> None:
    """Read the price list, which takes a while."""
    list_price(Model("openai", "gpt-4o", "openai-chat"))


def list_price(model: Model) -> Price | None:
    """Dollars per million tokens of input and of output; None: the model is not known there."""
    from genai_prices import Usage, calc_price

    # a thousand, because some models cost more per token in long calls
    ask_input = Usage(input_tokens=1000, output_tokens=0)
    ask_output = Usage(input_tokens=0, output_tokens=1000)
    for provider in (model.provider, None):
        try:
            read = calc_price(ask_input, model_ref=model.name, provider_id=provider)
            written = calc_price(ask_output, model_ref=model.name, provider_id=provider)
        except LookupError:
            continue
        return Price(input=float(read.total_price) * 1000, output=float(written.total_price) * 1000)
    return None


def cost(candidate: Candidate, demand: Demand) -> float:
    """Dollars that the call will cost there, about; a price that is not known comes last."""
    target = candidate.target
    if not target.priced:
        target.price, target.priced = list_price(candidate.model), True
    price = target.price
    if price is None:
        return _NEVER
    return (price.input * demand.input + price.output * demand.output) / _MILLION
