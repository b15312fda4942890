"""What policies ask of an exchange: operations, models, networks, an expression. No I/O.

A plugin compiles its own from its configuration or from the platform's store; all say no with
the same codes. `When` needs the extra `tidegate-core[expressions]`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, Final, Protocol

from .errors import ErrorCode
from .exchange import Exchange
from .expression import Expression, bounded
from .formats import AiCall, ai_call, endpoint_call, find_format
from .match import Match, NotAllowed, RouteEntry, RouteTable
from .models import MODELS
from .platform import Network
from .types import Principal

OPERATION: Final = ErrorCode(
    "operation_not_allowed", 403, "You may not use this operation of the API."
)
MODEL: Final = ErrorCode("model_not_allowed", 403, "You may not use this model.")
ADDRESS: Final = ErrorCode(
    "address_not_allowed", 403, "You may not use this API from your network address."
)
POLICY: Final = ErrorCode("policy_denied", 403, "A policy of this API denies the request.")


class Condition(Protocol):
    """What is asked. `option` is its name in a configuration."""

    option: str
    code: ErrorCode

    def holds(self, exchange: Exchange) -> bool:
        """Whether the exchange has it."""


class Operations:
    """Methods and paths: `GET,POST /users/{id}`, or `/users/*`: all methods, all below.

    HEAD comes with GET. `below`: the path, as a service's, that the paths begin at.
    """

    option, code = "operations", OPERATION

    def __init__(self, operations: Sequence[str], below: str = "/") -> None:
        """Raises ValueError for one that makes no sense."""
        base = _PARAM.sub("{below_\\1}", below.removesuffix("/*").removesuffix("/"))
        methods: dict[str, set[str] | None] = {}
        for text in operations:
            names, _, path = text.rpartition(" ")
            for full in (base + path, base) if base and path == "/" else (base + path,):
                _add(methods, full, names)
        self._table = RouteTable(
            RouteEntry(True, path=path, exact=not path.endswith("/*"), methods=names)
            for path, names in methods.items()
        )

    def holds(self, exchange: Exchange) -> bool:
        return type(self._match(exchange)) is Match

    def others(self, exchange: Exchange) -> tuple[str, ...]:
        """The methods that the path has, where it does not have this one."""
        found = self._match(exchange)
        return found.methods if isinstance(found, NotAllowed) else ()

    def _match(self, exchange: Exchange) -> Match[bool] | NotAllowed | None:
        return self._table.match("", exchange.path, exchange.request.data.method.decode("latin-1"))


_PARAM: Final = re.compile(r"\{([^/}]*)\}")


def _add(methods: dict[str, set[str] | None], path: str, names: str) -> None:
    known = methods.setdefault(path, set() if names else None)
    if known is not None:
        known.update(names.split(",") if names else ())
        if "GET" in known:
            known.add("HEAD")
    if not names:
        methods[path] = None


class Models:
    """Models by `provider/model` or by the name that is called; `*` stands for anything.

    One of the two is enough, and the first is known only where a plugin put `MODELS` on the
    exchange. A request that is no call to a model passes.
    """

    option, code = "models", MODEL

    def __init__(self, patterns: Sequence[str]) -> None:
        parts = [".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns]
        self._allowed = re.compile("|".join(parts) if parts else r"(?!)", re.DOTALL)

    def holds(self, exchange: Exchange) -> bool:
        try:
            names = _names(exchange)
        except (ValueError, TypeError, LookupError):
            return False  # whichever it is, it can't be told to be an allowed one
        return not names or any(self._allowed.fullmatch(name) for name in names)


def model_of(exchange: Exchange) -> str | None:
    """The model that a request names; None: it is no call to one. ValueError: it can't be told."""
    call = _call(exchange)
    return None if call is None else str(call.request.model or "")


def _call(exchange: Exchange) -> AiCall | None:
    return ai_call(exchange) or endpoint_call(exchange)


def _names(exchange: Exchange) -> tuple[str, ...]:
    """The name that a call has for its model, and what a provider's plugin knows it as."""
    call = _call(exchange)
    if call is None:
        return ()
    if _told_twice(exchange.request.content or b""):
        raise ValueError("`model` stands there twice")
    name, known = str(call.request.model or ""), exchange.stashed(MODELS)
    if known is None:
        return (name,)
    kind = find_format(call.format).kind
    model = known.find(name, "chat" if kind == "count-tokens" else kind)
    return (name,) if model is None else (name, model.id)


def _told_twice(content: bytes) -> bool:
    """Whether an object has `model` twice: we read the last one, an upstream may read the first.

    Hardly a body has the name twice, or a letter of it escaped: only those are looked at closely.
    """
    if content.count(b'"model"') < 2 and b"\\u006" not in content:
        return False
    pairs = json.loads(content, object_pairs_hook=list)
    return isinstance(pairs, list) and sum(pair[0] == "model" for pair in pairs) > 1


class Networks:
    """Addresses and networks of the client."""

    option, code = "networks", ADDRESS

    def __init__(self, networks: Sequence[str]) -> None:
        """Raises ValueError for one that is none."""
        self._networks = tuple(ip_network(text) for text in networks)

    def holds(self, exchange: Exchange) -> bool:
        return within(exchange.client.address, self._networks)


def within(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address is in one of the networks; what is no address is in none."""
    parsed = _address(address)
    return parsed is not None and any(parsed in network for network in networks)


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


@lru_cache(maxsize=1024)
def _expression(source: str) -> Expression:
    """Compiled once, in up to 3 ms, though it is asked of many services. Raises ExpressionError."""
    return Expression(source)


class When:
    """An expression. What raises does not hold."""

    option, code = "when", POLICY

    def __init__(self, source: str, failed: Callable[[Exception], None]) -> None:
        """Raises ExpressionError. `failed` is told what an evaluation raised."""
        import cel

        self._expression = _expression(source)
        self._context = cel.Context()
        self._reads = [
            (n, _READERS[n]) for n in sorted(self._expression.variables & _READERS.keys())
        ]
        self._principal = self._expression.variables & _OF_PRINCIPAL
        self._set: Principal | object | None = self
        self._failed = failed

    @property
    def reads_model(self) -> bool:
        """Whether it asks for the model: then it must see the request's body."""
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
