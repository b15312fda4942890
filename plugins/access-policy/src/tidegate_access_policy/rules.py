"""Rules, compiled: whom they are for, and what they ask of an exchange. No I/O."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from zoneinfo import ZoneInfo

from tidegate.api import ErrorCode, Exchange, Match, Principal, RouteEntry, RouteTable
from tidegate.api.formats import ai_call, endpoint_call

from .config import Hours, RuleConfig, Selector
from .expression import Expression, bounded

OPERATION: Final = ErrorCode(
    "operation_not_allowed", 403, "You may not use this operation of the API."
)
MODEL: Final = ErrorCode("model_not_allowed", 403, "You may not use this model.")
ADDRESS: Final = ErrorCode(
    "address_not_allowed", 403, "You may not use this API from your network address."
)
HOURS: Final = ErrorCode("outside_hours", 403, "You may not use this API at this time.")
POLICY: Final = ErrorCode("policy_denied", 403, "A policy of this API denies the request.")

REMEMBERED: Final = 1024


class Condition(Protocol):
    """What a rule asks. `option` is its name in the configuration."""

    option: str
    code: ErrorCode

    def holds(self, exchange: Exchange) -> bool:
        """Whether the exchange has it."""


class Operations:
    """Methods and paths."""

    option, code = "operations", OPERATION

    def __init__(self, operations: Sequence[str]) -> None:
        """Raises ValueError for one that makes no sense."""
        self._table = RouteTable([_operation(text) for text in operations])

    def holds(self, exchange: Exchange) -> bool:
        found = self._table.match("", exchange.path, exchange.request.data.method.decode())
        return type(found) is Match


def _operation(text: str) -> RouteEntry[bool]:
    """`GET,POST /users/{id}`, or `/users/*`: all methods, all below. HEAD comes with GET."""
    methods, _, path = text.rpartition(" ")
    names = frozenset(methods.split(",")) if methods else None
    if names is not None and "GET" in names:
        names |= {"HEAD"}
    return RouteEntry(True, path=path, exact=not path.endswith("/*"), methods=names)


class Models:
    """Names of models, as the caller gives them. A request that is no call to a model has none."""

    option, code = "models", MODEL

    def __init__(self, patterns: Sequence[str]) -> None:
        parts = [".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns]
        self._allowed = re.compile("|".join(parts) if parts else r"(?!)", re.DOTALL)

    def holds(self, exchange: Exchange) -> bool:
        try:
            model = model_of(exchange)
        except (ValueError, TypeError, KeyError):
            return False  # whichever it is, it can't be told to be an allowed one
        return model is None or self._allowed.fullmatch(model) is not None


def model_of(exchange: Exchange) -> str | None:
    """The model that a request names; None: it is no call to one. ValueError: it can't be told."""
    call = ai_call(exchange) or endpoint_call(exchange)
    return None if call is None else str(call.request.model or "")


class Networks:
    """Addresses and networks of the client."""

    option, code = "networks", ADDRESS

    def __init__(self, networks: Sequence[str]) -> None:
        """Raises ValueError for one that is none."""
        self._networks = tuple(ipaddress.ip_network(text) for text in networks)
        self._seen: dict[str, bool] = {}

    def holds(self, exchange: Exchange) -> bool:
        text = exchange.client.address
        known = self._seen.get(text)
        if known is None:
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            known = self._seen[text] = self._within(text)
        return known

    def _within(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


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


class When:
    """An expression. What raises does not hold."""

    option, code = "when", POLICY

    def __init__(self, source: str, failed: Callable[[Exception], None]) -> None:
        """Raises ExpressionError."""
        import cel

        self._expression = Expression(source)
        self._context = cel.Context()
        self._reads = [
            (n, _READERS[n]) for n in sorted(self._expression.variables & _READERS.keys())
        ]
        self._principal = self._expression.variables & _OF_PRINCIPAL
        self._set: Principal | object | None = self
        self._failed = failed

    @property
    def reads_model(self) -> bool:
        return "model" in self._expression.variables

    def holds(self, exchange: Exchange) -> bool:
        context = self._context
        try:
            for name, read in self._reads:
                context.add_variable(name, read(exchange))
            if self._principal and exchange.principal is not self._set:
                self._set = self
                self._put_principal(exchange.principal)
                self._set = exchange.principal
            return self._expression.holds(context)
        except Exception as error:  # a value that is not there, of another type, …
            self._failed(error)
            return False

    def _put_principal(self, principal: Principal | None) -> None:
        """To turn attributes into values of CEL costs most: done when another principal comes."""
        attributes = {} if principal is None else dict(principal.attributes)
        bounded(attributes)
        values = {
            "name": "" if principal is None else principal.name,
            "team": "" if principal is None else principal.team,
            "roles": list(roles_of(principal)),
            "attributes": attributes,
        }
        for name in self._principal:
            self._context.add_variable(name, values[name])


def _query(exchange: Exchange) -> dict[str, list[str]]:
    """All values of each parameter: which of several an upstream takes is not known here."""
    found: dict[str, list[str]] = {}
    for name, value in exchange.request.query.items(multi=True):
        found.setdefault(name, []).append(value)
    bounded(found)
    return found


_OF_PRINCIPAL: Final = frozenset({"attributes", "name", "roles", "team"})
_READERS: Final[Mapping[str, Callable[[Exchange], Any]]] = {
    "address": lambda exchange: exchange.client.address,
    "anonymous": lambda exchange: exchange.principal is None,
    "host": lambda exchange: exchange.host,
    "method": lambda exchange: exchange.request.data.method.decode(),
    "model": lambda exchange: model_of(exchange) or "",
    "now": lambda exchange: datetime.fromtimestamp(exchange.now, UTC),
    "path": lambda exchange: exchange.path,
    "query": _query,
}


def roles_of(principal: Principal | None) -> tuple[str, ...]:
    """The `roles` among a principal's attributes: a list, or one."""
    roles = () if principal is None else principal.attributes.get("roles", ())
    return (roles,) if isinstance(roles, str) else tuple(map(str, roles))


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
