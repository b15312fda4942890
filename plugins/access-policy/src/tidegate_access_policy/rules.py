"""Rules, compiled: whom they are for, and what they ask of an exchange. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from tidegate.api import ErrorCode, Exchange, Principal
from tidegate.api.conditions import Condition, Models, Networks, Operations, When, roles_of

from .config import Hours, RuleConfig, Selector

HOURS: Final = ErrorCode("outside_hours", 403, "You may not use this API at this time.")


class Windows:
    """Windows of time; one that is open is enough."""

    option, code = "hours", HOURS

    def __init__(self, windows: Sequence[Hours]) -> None:
        self._windows = [
            (ZoneInfo(window.zone), window.weekdays(), *window.minutes()) for window in windows
        ]
        self._minute = -1
        self._open = False

    def holds(self, exchange: Exchange) -> bool:
        minute = int(exchange.now // 60)
        if minute != self._minute:  # zones change on whole minutes: within one nothing does
            self._open = any(self._is_open(window, minute * 60) for window in self._windows)
            self._minute = minute
        return self._open

    @staticmethod
    def _is_open(window: tuple[ZoneInfo, frozenset[int], int, int], seconds: int) -> bool:
        zone, days, start, end = window
        local = datetime.fromtimestamp(seconds, zone)
        now, day = local.hour * 60 + local.minute, local.weekday()
        if start < end:
            return day in days and start <= now < end
        return (day in days and now >= start) or ((day - 1) % 7 in days and now < end)


class Rule:
    """A compiled rule."""

    __slots__ = ("_on", "conditions", "name", "whom")

    def __init__(self, config: RuleConfig, failed: Callable[[str, Exception], None]) -> None:
        """Raises ValueError that names the option."""
        self.name = config.name
        self.whom = config.whom
        self._on = _made("on", Operations, config.on or None)
        when = _made("when", lambda s: When(s, lambda e: failed(config.name, e)), config.when)
        made: list[Condition | None] = [
            _made("operations", Operations, config.operations),
            _made("networks", Networks, config.networks),
            _made("hours", Windows, config.hours),
            _made("models", Models, config.models),
            when,
        ]
        self.conditions = tuple(c for c in made if c is not None)

    def failing(self, exchange: Exchange) -> Condition | None:
        """The first condition that does not hold; None: all do, or the rule is not for this."""
        if self._on is not None and not self._on.holds(exchange):
            return None
        for condition in self.conditions:
            if not condition.holds(exchange):
                return condition
        return None


def _made[T, R](option: str, make: Callable[[T], R], value: T | None) -> R | None:
    if value is None:
        return None
    try:
        return make(value)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def fits(selector: Selector | None, principal: Principal | None) -> bool:
    """Whether a rule is for this caller."""
    if selector is None:
        return True
    if principal is None or selector.anonymous:
        return principal is None and selector.anonymous
    if selector.principals and principal.id not in selector.principals:
        return False
    if selector.teams and principal.team not in selector.teams:
        return False
    if selector.roles and not set(selector.roles) & set(roles_of(principal)):
        return False
    return all(
        _has(principal.attributes.get(name), values) for name, values in selector.attributes.items()
    )


def _has(value: Any, wanted: Sequence[str | int | bool]) -> bool:
    """Whether an attribute is one of the values. `1` is not `true`, as in TOML."""
    held = value if isinstance(value, list | tuple | set | frozenset) else (value,)
    return any(type(h) is type(w) and h == w for h in held for w in wanted)
