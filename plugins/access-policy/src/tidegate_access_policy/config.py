"""The options: rules, whom they are for, and what they ask."""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, field_validator, model_validator

from tidegate.api import AddonConfig, Model

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY: Final = re.compile(rf"({'|'.join(DAYS)})(?:-({'|'.join(DAYS)}))?")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("it is empty")
    return value


Text = Annotated[str, AfterValidator(_not_blank)]


class Selector(Model):
    """Whom a rule is for. All kinds that are given must fit; within a kind one is enough.

    `principals` are `team/name`, or `name` where there is no team. `attributes` names an
    attribute and the values that fit; one that is a list fits by any of its values.
    """

    principals: tuple[Text, ...] = ()
    teams: tuple[Text, ...] = ()
    roles: tuple[Text, ...] = ()
    attributes: dict[str, tuple[str | int | bool, ...]] = Field(default_factory=dict)
    anonymous: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Selector:
        named = self.principals or self.teams or self.roles or self.attributes
        if self.anonymous and named:
            raise ValueError("anonymous callers have no name, team, role or attribute")
        if not self.anonymous and not named:
            raise ValueError("it names nobody; leave `for` out for everyone")
        return self


class Hours(Model):
    """A window of time. `to` before `from` ends on the next day; `days` is the day it begins."""

    days: tuple[str, ...] = DAYS
    start: str = Field(default="00:00", alias="from")
    end: str = Field(default="24:00", alias="to")
    zone: str = "UTC"

    @field_validator("days")
    @classmethod
    def _days(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for day in value:
            if not _DAY.fullmatch(day):
                raise ValueError(f'{day!r} is no day: write "mon", or "mon-fri"')
        return value

    @field_validator("start", "end")
    @classmethod
    def _clock(cls, value: str) -> str:
        if not _CLOCK.fullmatch(value):
            raise ValueError(f'{value!r} is no time of day: write "08:30"')
        return value

    @field_validator("zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (LookupError, OSError, ValueError):
            raise ValueError(f'{value!r} is no time zone: write "Europe/Berlin"') from None
        return value

    @model_validator(mode="after")
    def _some(self) -> Hours:
        if self.start in (self.end, "24:00"):
            raise ValueError("`from` and `to` leave no time between them")
        return self

    def weekdays(self) -> frozenset[int]:
        """Monday is 0."""
        found: set[int] = set()
        for text in self.days:
            first, _, last = text.partition("-")
            at = DAYS.index(first)
            found.add(at)
            while last and DAYS[at] != last:
                at = (at + 1) % 7
                found.add(at)
        return frozenset(found)

    def minutes(self) -> tuple[int, int]:
        """Start and end as minutes of a day."""
        return _minutes(self.start), _minutes(self.end)


def _minutes(text: str) -> int:
    if text == "24:00":
        return 24 * 60
    clock = time.fromisoformat(text)
    return clock.hour * 60 + clock.minute


class RuleConfig(Model):
    """A rule: where `for` and `on` fit, all the rest must hold."""

    name: Text
    whom: Selector | None = Field(default=None, alias="for")
    on: tuple[Text, ...] = ()
    operations: tuple[Text, ...] | None = None
    models: tuple[Text, ...] | None = None
    networks: tuple[Text, ...] | None = None
    hours: tuple[Hours, ...] | None = Field(default=None, min_length=1)
    when: Text | None = None

    @model_validator(mode="after")
    def _asks(self) -> RuleConfig:
        asked = (self.operations, self.models, self.networks, self.hours, self.when)
        if all(condition is None for condition in asked):
            raise ValueError(
                "it asks nothing: give `operations`, `models`, `networks`, `hours` or `when`"
            )
        return self


class AccessPolicyConfig(AddonConfig):
    """The options. `default` is for callers whom no rule is for."""

    rules: tuple[RuleConfig, ...] = ()
    default: Literal["allow", "deny"] = "allow"

    @model_validator(mode="after")
    def _names(self) -> AccessPolicyConfig:
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f'there are two rules "{name}"')
        if not self.rules and self.default == "allow":
            raise ValueError('without rules it asks nothing: give some, or default = "deny"')
        return self
