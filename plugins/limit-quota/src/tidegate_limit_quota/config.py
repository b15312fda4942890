"""The options of `limit-quota`."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, model_validator

from tidegate.api import AddonConfig, Duration, Secret
from tidegate.api.config import Model, parse_size
from tidegate.api.lending import LimitStore, open_limit_store
from tidegate.api.whose import Per

from .ledger import Terms

type Unit = Literal[
    "requests", "prompt-tokens", "completion-tokens", "tokens", "usd", "concurrency", "bytes"
]
type Length = Literal["second", "minute", "hour", "day", "week", "month"]

NANO: Final = 10**9
"""Nano-dollars of a dollar: money is whole numbers of them."""
MOST: Final = 9 * 10**18
TOKENS: Final = frozenset({"prompt-tokens", "completion-tokens", "tokens"})
ESTIMATES: Final = {"requests": 1, "concurrency": 1, "bytes": 65_536}


def exact(value: object) -> object:
    """A number as it is written: `"25.00"`, `25`, `"10GB"`."""
    if isinstance(value, bool):
        raise ValueError("an amount is a number")
    if isinstance(value, str) and value[-1:].lower() == "b":
        return Decimal(str(parse_size(value)))
    return Decimal(str(value)) if isinstance(value, int | float) else value


Amount = Annotated[Decimal, BeforeValidator(exact), Field(gt=0)]


class LimitConfig(Model):
    """One limit. `amount`, `estimate` in its unit; money in US dollars.

    `estimate` is what a call reserves before it is known what it uses (of tokens: what an answer
    has at most where the caller does not say); `price` is US dollars per million tokens, for what
    a call reserves of money. `only`, `models`: patterns of the keys and models that it is for.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    unit: Unit
    amount: Amount
    window: Length | None = None
    reset: Literal["calendar", "rolling"] = "calendar"
    zone: str = "UTC"
    per: Per = "principal"
    only: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    alert: tuple[Annotated[int, Field(ge=1, le=100)], ...] = ()
    estimate: Amount | None = None
    price: Amount = Decimal(10)
    on_outage: Literal["deny", "allow"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.window is None) != (self.unit == "concurrency"):
            raise ValueError("`window`: every limit has one but those of concurrency")
        if self.reset == "rolling" and self.window in (None, "second"):
            raise ValueError('`reset`: "rolling" needs a window of a minute or more')
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"`zone`: {self.zone!r} is not a time zone") from None
        if self.unit != "usd" and self.amount != int(self.amount):
            raise ValueError("`amount`: only money has fractions")
        if self.scaled(self.amount) > MOST or self.scaled(self.amount) < 1:
            raise ValueError("`amount` is out of range")
        return self

    def scaled(self, amount: Decimal) -> int:
        """An amount as the whole number that is counted: of money, nano-dollars."""
        return int(amount * NANO) if self.unit == "usd" else int(amount)

    @property
    def id(self) -> str:
        """What its accounts are kept under: another unit or window is another limit."""
        window = "/".join((self.window, self.reset, self.zone)) if self.window else "-"
        return f"{self.name}|{self.unit}|{self.per}|{window}"

    @property
    def allows_outage(self) -> bool:
        """Whether exchanges pass while the broker is down; where nothing is said, not for money."""
        return (self.on_outage or ("deny" if self.unit == "usd" else "allow")) == "allow"

    @property
    def of_models(self) -> bool:
        """Whether it is about calls to models only."""
        return self.unit in TOKENS or self.unit == "usd" or bool(self.models) or self.per == "model"

    def wire(self) -> dict[str, Any]:
        """What the broker is told."""
        return {
            "id": self.id,
            "name": self.name,
            "unit": self.unit,
            "amount": self.scaled(self.amount),
            "per": self.per,
            "window": self.window or "",
            "rolling": self.reset == "rolling",
            "zone": self.zone,
            "alert": self.alert,
        }


class WebhookConfig(Model):
    """Where alerts are posted, and the secret that signs them."""

    url: str = Field(pattern=r"^https?://")
    secret: Secret


class StoreConfig(Model):
    """Where several nodes keep their limits together, and what names begin with there."""

    url: Secret
    prefix: str = Field(default="tidegate", pattern=r"^[A-Za-z0-9._:-]{1,64}$")


def with_url(value: object) -> object:
    """A store that is written as its URL alone."""
    return {"url": value} if isinstance(value, str) else value


class LimitQuotaConfig(AddonConfig):
    """Options of `limit-quota`. `backend`: None is the broker of the node; `wait`: what an
    exchange waits for it at most."""

    limits: tuple[LimitConfig, ...] = Field(min_length=1)
    backend: Annotated[StoreConfig | None, BeforeValidator(with_url)] = None
    headers: bool = True
    webhook: WebhookConfig | None = None
    wait: Duration = Field(default=0.1, gt=0, le=0.1)

    @model_validator(mode="after")
    def _named(self) -> Self:
        names = [limit.name for limit in self.limits]
        if len(set(names)) < len(names):
            raise ValueError("`limits`: two have the same name")
        return self

    @model_validator(mode="after")
    def _kept(self) -> Self:
        try:
            self.store("")
        except ValueError as error:
            raise ValueError(f"`backend`: {error}") from None
        return self

    def store(self, addon: str) -> LimitStore | None:
        """Who keeps the limits of an addon of this name; None: the node itself. ValueError."""
        if self.backend is None:
            return None
        terms = [Terms.of(limit.wire()) for limit in self.limits]
        url, prefix = self.backend.url.get_secret_value(), self.backend.prefix
        return open_limit_store(url, f"{prefix}:{addon}", terms)
