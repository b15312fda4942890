"""The addon: whose limit it is, what a caller is told, and this worker's share."""

from __future__ import annotations

import re
import time
from typing import Final, Self

from pydantic import Field, model_validator

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Body,
    Denial,
    ErrorCode,
    Exchange,
    Plugin,
    Rate,
    StashKey,
    hook,
)
from tidegate.api.whose import KEYS, Per, calls_a_model

from .gcra import SECOND, Gcra

RATE_LIMITED: Final = ErrorCode(
    "rate_limited", 429, "Too many requests. Try again when `Retry-After` says."
)


class LimitRateConfig(AddonConfig):
    """Options of `limit-rate`."""

    rate: Rate
    burst: int | None = Field(default=None, ge=1)
    per: Per = "principal"
    headers: bool = True
    capacity: int = Field(default=100_000, ge=16)

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.rate[1] * SECOND < self.rate[0]:
            raise ValueError("`rate`: more than one request per nanosecond is no limit")
        return self


def _needs(config: LimitRateConfig) -> Body | None:
    """The request's body, where it says whose limit it is."""
    return Body(request=True, when=calls_a_model) if config.per == "model" else None


class LimitRate(Plugin[LimitRateConfig]):
    """Requests per principal, exact and smooth (GCRA)."""

    Config = LimitRateConfig
    codes = (RATE_LIMITED,)

    def __init__(self, config: LimitRateConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        count, period = config.rate
        whole = config.burst or count
        interval, burst = share(count, period, whole, context.workers)
        self.gcra = Gcra(interval, burst, config.capacity)
        self._key = KEYS[config.per]
        self._headers = config.headers
        self._spent = StashKey[int](f"limit-rate.{context.name}")
        window = max(1, -(-whole * int(period * SECOND) // count // SECOND))
        self._name = structured_string(context.name)
        self._wire_name = self._name.encode()
        self._policy = f"{self._name};q={whole};w={window}"
        self._policy_field = (b"ratelimit-policy", self._policy.encode())
        if whole < context.workers:
            context.log.warning(
                "a burst of %d is less than one for each of %d workers: up to %d may pass at once",
                whole, context.workers, context.workers,
            )  # fmt: skip

    def explain(self, hook: str, exchange: Exchange) -> str:
        """The limit, and what is left of it."""
        count, period = self.config.rate
        limit = f"{count} in {period:g} s for each {self.config.per}"
        tat = exchange.stash.get(self._spent)
        if tat is None:
            return f"the limit is {limit}"
        left = self.gcra.remaining(tat, int(exchange.started * SECOND))
        return f"within {limit}: {left} left in this worker"

    @hook
    def startup(self, previous: LimitRate | None) -> None:
        """Go on where the instance before this one stopped: a reload gives no one a new burst."""
        if previous is not None and previous.config.per == self.config.per:
            self.gcra.adopt(previous.gcra, int(time.monotonic() * SECOND))

    @hook(needs=_needs)
    def authorize(self, exchange: Exchange) -> Denial | None:
        """Spend one of the caller's requests, or say when there will be one."""
        key = self._key(exchange)
        if key is None:
            return None
        now = int(exchange.started * SECOND)
        tat = self.gcra.take(key, now)
        if tat < 0:
            return self._deny(-tat)
        if self._headers:
            exchange.stash[self._spent] = tat
        return None

    @hook
    def transform_response(self, exchange: Exchange) -> None:
        """Tell the caller what is left (draft-ietf-httpapi-ratelimit-headers)."""
        tat = exchange.stash.get(self._spent)
        if tat is None:
            return
        assert exchange.response is not None
        now = int(exchange.started * SECOND)
        left, whole_in = self.gcra.remaining(tat, now), -(-(tat - now) // SECOND)
        headers = exchange.response.data.headers
        headers.fields += (
            self._policy_field,
            (b"ratelimit", b"%b;r=%d;t=%d" % (self._wire_name, left, whole_in)),
        )

    def _deny(self, wait: int) -> Denial:
        seconds = -(-wait // SECOND)
        return RATE_LIMITED.denial(
            headers=(
                ("ratelimit-policy", self._policy),
                ("ratelimit", f"{self._name};r=0;t={seconds}"),
            ),
            retry_after=wait / SECOND,
        )


def structured_string(text: str) -> str:
    """`text` as a String of structured fields (RFC 9651 §3.3.3), which is ASCII."""
    return '"{}"'.format(re.sub(r"[^ !#-\[\]-~]", "?", text))


def share(count: int, period: float, burst: int, workers: int) -> tuple[int, int]:
    """(interval in nanoseconds, burst) of one of `workers` that hold a limit together.

    Rounded so that all of them admit at most the limit; but each holds a burst of at least one.
    """
    interval = -(-int(period * SECOND) * workers // count)
    return interval, max(1, burst // workers)
