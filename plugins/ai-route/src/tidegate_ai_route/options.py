"""The options: virtual models, each checked by itself, then all together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tidegate.api import AddonConfig, ByteSize, Model

from .failures import FAILURES, Failure

type Strategy = Literal["priority", "weighted", "latency", "cost", "least-busy", "sticky"]


class Price(Model):
    """Dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class TargetOption(Model):
    """A model that a call may go to: `provider/model`, or an alias of `ai-providers`.

    `price` goes over the price that is known of the model.
    """

    model: str = Field(min_length=1)
    weight: int = Field(default=1, ge=1, le=1000)
    price: Price | None = None


class Share(TargetOption):
    """A model that gets a part of the calls: `percent` of 100."""

    percent: float = Field(gt=0, le=100)


def _named(value: object) -> object:
    return {"model": value} if isinstance(value, str) else value


Named = Annotated[TargetOption, BeforeValidator(_named)]


class Fallback(Model):
    """What is tried once all targets failed with one of the failures in `on`."""

    on: tuple[Failure, ...] = FAILURES
    to: tuple[Named, ...] = ()


class VirtualModel(Model):
    """One name for several models. See the README."""

    name: str = Field(min_length=1, max_length=200)
    strategy: Strategy = "priority"
    targets: tuple[Named, ...]
    fallback: Fallback = Fallback()
    canary: Share | None = None
    mirror: Share | None = None

    def models(self) -> Iterator[str]:
        """Every model that it names."""
        shares = [share for share in (self.canary, self.mirror) if share is not None]
        for option in (*self.targets, *self.fallback.to, *shares):
            yield option.model

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.targets:
            raise ValueError(f"model {self.name}: name at least one target")
        chain = [option.model for option in (*self.targets, *self.fallback.to)]
        twice = sorted({model for model in chain if chain.count(model) > 1})
        if twice:
            raise ValueError(f"model {self.name}: {twice[0]!r} is named twice")
        return self


class AiRouteConfig(AddonConfig):
    """Options of `ai-route`. `max_body` bounds a request; `header` tells callers the model."""

    models: tuple[VirtualModel, ...]
    header: bool = True
    max_body: ByteSize = Field(default=32 * 1024 * 1024, gt=0)

    @model_validator(mode="after")
    def _no_conflicts(self) -> Self:
        if not self.models:
            raise ValueError("give at least one model, in [[addon.models]]")
        names = [model.name for model in self.models]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two models are called {twice[0]!r}")
        for model in self.models:
            nested = sorted(set(names) & set(model.models()))
            if nested:
                raise ValueError(
                    f"model {model.name}: {nested[0]!r} is a virtual model: name its targets here"
                )
        return self
