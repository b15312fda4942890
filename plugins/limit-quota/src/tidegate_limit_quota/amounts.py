"""How much: what an exchange reserves before, and what it has used in the end."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final

from tidegate.api import Exchange
from tidegate.api.formats import (
    AI_CALL,
    AI_SPENT,
    AiCall,
    AiUsage,
    ai_call,
    endpoint_call,
    find_format,
    format_names,
    inbound_format,
)
from tidegate.api.whose import calls_a_model, model_id

from .config import ESTIMATES, NANO, LimitConfig

ANSWER: Final = 1024
"""Tokens that an answer is taken for where neither the caller nor the operator says."""
BYTES_PER_TOKEN: Final = 4


@dataclass(slots=True)
class Asked:
    """A call to a model, before it is sent."""

    model: str
    """As the caller names it."""
    id: str
    """`provider/model` where a plugin knows it, else as `model`."""
    prompt: int
    """Tokens, estimated from the length of the body."""
    most: int | None
    """Tokens that the caller lets the answer have; None: the caller does not say."""


def asked(exchange: Exchange) -> Asked | None:
    """The call to a model that a request is; None: it is none."""
    if not calls_a_model(exchange):
        return None
    chat = inbound_format(exchange.path) is not None
    call: AiCall | None = None
    try:
        call = ai_call(exchange) if chat else endpoint_call(exchange)
    except (ValueError, LookupError):
        pass  # not for this plugin to say; it is limited as a call that says nothing
    prompt = len(exchange.request.data.content or b"") // BYTES_PER_TOKEN + 1
    if call is None:
        return Asked("", "", prompt, None)
    model = call.request.model
    most = call.request.max_tokens if chat else 0
    return Asked(model, model_id(exchange, model), prompt, most)


def load_formats() -> None:
    """Load the parsers of calls: a tenth of a second, which no exchange is to pay."""
    for name in format_names():
        find_format(name)


@lru_cache(maxsize=16_384)
def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name is one of those; no patterns: all are."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def estimate(limit: LimitConfig, exchange: Exchange, call: Asked | None) -> int:
    """What an exchange reserves; at least 1."""
    unit = limit.unit
    own = None if limit.estimate is None else limit.scaled(limit.estimate)
    if call is None or unit in ESTIMATES:
        return own or ESTIMATES.get(unit, 1)
    if unit == "usd" and own is not None:
        return own
    if unit == "prompt-tokens":
        return own or call.prompt
    answer = call.most if call.most is not None else (own or ANSWER)
    if unit == "usd":
        cost = (call.prompt + answer) * limit.price * NANO / 1_000_000
        return max(1, int(cost.to_integral_value(ROUND_CEILING)))
    return max(1, answer + (call.prompt if unit == "tokens" else 0))


def truth(limit: LimitConfig, exchange: Exchange, reserved: int) -> int:
    """What an exchange that has ended has used. Where nobody knows, what it reserved."""
    unit = limit.unit
    if unit == "requests":
        return reserved
    if unit == "concurrency":
        return 0
    if unit == "bytes":
        return exchange.bytes_in + exchange.bytes_out
    return _of_call(unit, exchange, reserved)


def _of_call(unit: str, exchange: Exchange, reserved: int) -> int:
    if exchange.from_cache or exchange.upstream is None:
        return 0
    spent = exchange.stashed(AI_SPENT)
    if spent is not None:
        if unit == "usd":
            return reserved if spent.cost is None else nano(spent.cost)
        return tokens(unit, spent.usage)
    status = exchange.attempts[-1].status if exchange.attempts else None
    if status is not None and status >= 400:
        return 0
    call = exchange.stashed(AI_CALL)
    if call is None or call.usage is None or unit == "usd":
        return reserved
    return tokens(unit, call.usage)


def tokens(unit: str, usage: AiUsage) -> int:
    """The tokens of a kind."""
    if unit == "prompt-tokens":
        return usage.input
    return usage.output if unit == "completion-tokens" else usage.input + usage.output


def nano(cost: Decimal) -> int:
    """Dollars as whole nano-dollars, rounded up."""
    return int((cost * NANO).to_integral_value(ROUND_CEILING))
