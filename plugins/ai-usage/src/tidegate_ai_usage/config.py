"""The options of `ai-usage`."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Self

from pydantic import Field, model_validator

from tidegate.api import AddonConfig, Model, Secret

from .prices import FEMTO, NAMES, Fixed, Override, Rates, femto_per_token
from .providers import PROVIDERS

type Dollars = Annotated[Decimal, Field(ge=0)]


class PriceConfig(Model):
    """US dollars per million tokens, for models that match. What is not said costs as `input`
    or `output` do. `request` is per call."""

    provider: str = "*"
    model: str = "*"
    team: str = "*"
    input: Dollars
    output: Dollars = Decimal(0)
    cache_read: Dollars | None = None
    cache_write: Dollars | None = None
    cache_write_1h: Dollars | None = None
    reasoning: Dollars | None = None
    audio_input: Dollars | None = None
    audio_output: Dollars | None = None
    request: Dollars = Decimal(0)

    @property
    def override(self) -> Override:
        """As the price table takes it."""
        said = {name: getattr(self, name) for name, _ in NAMES}
        rates = {name: femto_per_token(value) for name, value in said.items() if value is not None}
        price = Fixed(Rates(**rates, request=int(self.request * FEMTO)))
        return Override.of(self.team, self.provider, self.model, price)


class KeyConfig(Model):
    """A key of ours that takes the place of the one that an intercepted program sends."""

    provider: str
    key: Secret


class AiUsageConfig(AddonConfig):
    """What is counted, what callers are told, and what is paid."""

    headers: bool = False
    count_prompts: bool = False
    prices: tuple[PriceConfig, ...] = ()
    hosts: dict[str, str] = Field(default_factory=dict)
    keys: tuple[KeyConfig, ...] = ()
    models: int = Field(default=200, ge=1)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name in (*self.hosts.values(), *(entry.provider for entry in self.keys)):
            if name not in PROVIDERS:
                known = ", ".join(PROVIDERS)
                raise ValueError(f'there is no provider "{name}": choose from {known}')
        return self
