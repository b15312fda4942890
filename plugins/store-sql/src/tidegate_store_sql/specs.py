"""What people say of the things in the store: typed, checked, without ids.

The same models are the parameters of commands and the tables of `platform.toml`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from tidegate.api.conditions import Operations
from tidegate.api.expression import MAX_LENGTH, Expression, ExpressionError
from tidegate.api.match import RouteEntry, parse
from tidegate.api.platform import Approval, Visibility

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_PARAM: Final = re.compile(r"\{[^/]*\}")


def storable(text: str) -> str:
    """The text, if a database can hold it. Raises ValueError."""
    if _UNSTORABLE.search(text):
        raise ValueError("a text holds neither NUL nor half characters")
    return text


def _storable_secret(secret: SecretStr) -> SecretStr:
    storable(secret.get_secret_value())
    return secret


def _instant(value: object) -> object:
    """Unix seconds, to the millisecond, from a date and time with its zone, or from a number."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs its zone: 2027-01-31T12:00:00Z")
        value = value.timestamp()
    return round(value, 3) if isinstance(value, float) else value


def moment(instant: float) -> datetime:
    """An `Instant` as a date and time in UTC, to the millisecond."""
    whole = round(instant * 1000)
    return datetime.fromtimestamp(whole // 1000, UTC).replace(microsecond=whole % 1000 * 1000)


def _network(text: str) -> str:
    return str(ip_network(text))


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise ValueError("an upstream is http:// or https://, with a host and without a user")
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise ValueError("an upstream's URL has neither query nor fragment")
    _ = parts.port
    return text


def _expression(text: str) -> str:
    Expression(storable(text))
    return text


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: where a secret that goes with the URL is sent to."""
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default


Words = Annotated[str, StringConstraints(max_length=100_000), AfterValidator(storable)]
Line = Annotated[str, StringConstraints(max_length=512), AfterValidator(storable)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")]
User = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._+@-]{1,254}$")]
Ref = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._-]{1,64}/[a-z0-9._-]{1,64}$")]
Url = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_url)]
Lines = Annotated[
    tuple[Annotated[Line, StringConstraints(min_length=1)], ...], Field(max_length=1000)
]
Pattern = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._*-]{1,64}$")]
_DATE: Final[dict[str, Any]] = {"type": "string", "format": "date-time"}
_SECONDS: Final = {"type": "number", "minimum": 0, "maximum": 253402300799}
Instant = Annotated[
    float,
    BeforeValidator(_instant),
    Field(ge=0, le=253402300799, allow_inf_nan=False),
    PlainSerializer(moment, datetime, when_used="json"),
    WithJsonSchema({"anyOf": [_DATE, _SECONDS]}, mode="validation"),
    WithJsonSchema(_DATE, mode="serialization"),
]
"""Unix seconds; written as a date and time with its zone."""
Password = Annotated[
    SecretStr, Field(min_length=1, max_length=16_384), AfterValidator(_storable_secret)
]
Role = Literal["owner", "admin", "developer", "viewer"]
Status = Literal["requested", "approved", "rejected", "revoked"]


class Spec(BaseModel):
    """Base: frozen, no unknown keys; errors don't show values."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class AdminSpec(Spec):
    """A platform administrator."""

    user: User


class TeamSpec(Spec):
    """A tenant."""

    name: Name
    title: Line = ""


class MemberSpec(Spec):
    """A person in a team."""

    user: User
    role: Role = "developer"


class ServiceOutline(Spec):
    """A published API; the fields are those of `tidegate.api.platform.Service`."""

    name: Name
    title: Line = ""
    kind: Literal["rest", "ai"] = "rest"
    hosts: Lines = ()
    path: Line = "/"
    methods: Lines | None = None
    upstream: Url | Literal[""] = ""
    strip: bool = False
    visibility: Visibility = "private"
    approval: Approval = "manual"
    anonymous: bool = False
    models: Lines | None = None
    operations: Lines | None = None
    policy: Words = ""

    @model_validator(mode="after")
    def _routable(self) -> Self:
        entries = self.entries()
        for entry in entries:
            parse(entry)
        if len({entry.host for entry in entries}) != len(entries):
            raise ValueError("a host stands there twice")
        for operation in self.operations or ():
            method, _, path = operation.partition(" ")
            parse(RouteEntry(None, path=path, exact=True, methods={method}))
        Operations(self.operations or (), self.path)
        if self.strip and "{" in self.path:
            raise ValueError("`strip` needs a path without {…}")
        if self.policy.strip():
            try:
                Expression(self.policy)
            except ExpressionError as error:
                raise ValueError(f"policy: {error}") from None
        return self

    def entries(self) -> list[RouteEntry[None]]:
        """What it takes of the route table."""
        methods = None if self.methods is None else frozenset(self.methods)
        return [
            RouteEntry(None, host.lower(), self.path, methods=methods)
            for host in self.hosts or ("*",)
        ]

    @property
    def route(self) -> str:
        """The path as it is matched: two services with the same one may be in each other's way."""
        return _PARAM.sub("{}", self.path.removesuffix("/*").removesuffix("/"))


class ServiceSpec(ServiceOutline):
    """A published API with its documentation: OpenAPI, JSON or YAML."""

    docs: Annotated[str, StringConstraints(max_length=4_000_000), AfterValidator(storable)] = ""


class ApplicationSpec(Spec):
    """A consumer of services."""

    name: Name
    title: Line = ""


class KeyRequest(Spec):
    """A credential that is to be made."""

    name: Name
    expires: Instant | None = None
    services: tuple[Ref, ...] | None = None
    models: Lines | None = None
    networks: tuple[Annotated[str, AfterValidator(_network)], ...] | None = None


class KeySpec(KeyRequest):
    """A credential of an application: what is known of it without the key itself."""

    prefix: Line = ""
    hash: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    revoked: Instant | None = None


class SubscriptionSpec(Spec):
    """An application's right to a service, or its wish for it."""

    service: Ref
    status: Status = "approved"
    reason: Words = ""
    decision: Words = ""
    decided_by: Line = ""
    decided: Instant | None = None


class ProviderSpec(Spec):
    """Where models come from."""

    name: Name
    kind: Name
    url: Url
    models: Lines | None = None


class ProviderKeySpec(Spec):
    """A secret of a provider. Without one, what is stored stays."""

    name: Name
    secret: Password | None = None


class PolicySpec(Spec):
    """A named policy of a team: an expression that must hold on every exchange of its services.

    `services` are their names, `*` in them stands for anything; None: all.
    """

    name: Name
    title: Line = ""
    text: Annotated[
        str, StringConstraints(min_length=1, max_length=MAX_LENGTH), AfterValidator(_expression)
    ]
    services: Annotated[tuple[Pattern, ...], Field(max_length=100)] | None = None


def plain(spec: Spec, only: Collection[str] | None = None) -> dict[str, Any]:
    """Column values; lists as lists, so that they equal what the database gives back."""
    names = None if only is None else set(only)
    return {
        k: list(v) if isinstance(v, tuple) else v for k, v in spec.model_dump(include=names).items()
    }
