"""The addon: the changes of each direction, compiled into one function over the fields."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from tidegate.api import AddonConfig, AddonContext, Exchange, Model, Plugin, hook
from tidegate.api.fields import CARRIER_FIELDS, field_name

from .values import compile_value

type Fields = tuple[tuple[bytes, bytes], ...]
type Change = Callable[[Exchange, Fields], Fields]

GATEWAYS_OWN: Final = frozenset(
    {
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-forwarded-server",
        "x-original-url",
        "x-real-ip",
        "x-request-id",
        "x-rewrite-url",
    }
)
"""Request fields that say who called, which the gateway writes or drops after all addons."""


def _request_name(name: str) -> str:
    if field_name(name).lower() in GATEWAYS_OWN:
        raise ValueError(f"`{name}` is the gateway's own; a route's `headers` can set it")
    return name


def _response_name(name: str) -> str:
    if field_name(name).lower() == "x-request-id":
        raise ValueError(f"`{name}` is the gateway's own")
    return name


def _template(value: str) -> str:
    compile_value(value)
    return value


Values = Annotated[str, AfterValidator(_template)]
Removed = Annotated[str, AfterValidator(field_name)]
"""`*` is a character of field names: a pattern is checked as one."""


class RequestChanges(Model):
    """What is done to request fields: first `remove`, then `set`, then `add`."""

    remove: tuple[Removed, ...] = ()
    set: dict[Annotated[str, AfterValidator(_request_name)], Values] = Field(default_factory=dict)
    add: dict[Annotated[str, AfterValidator(_request_name)], Values] = Field(default_factory=dict)


class ResponseChanges(Model):
    """What is done to response fields: first `remove`, then `set`, then `add`."""

    remove: tuple[Removed, ...] = ()
    set: dict[Annotated[str, AfterValidator(_response_name)], Values] = Field(default_factory=dict)
    add: dict[Annotated[str, AfterValidator(_response_name)], Values] = Field(default_factory=dict)


class TransformHeadersConfig(AddonConfig):
    """Options of `transform-headers`."""

    request: RequestChanges = RequestChanges()
    response: ResponseChanges = ResponseChanges()


class TransformHeaders(Plugin[TransformHeadersConfig]):
    """Sets, adds and removes header fields."""

    Config = TransformHeadersConfig

    def __init__(self, config: TransformHeadersConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._request = compile_changes(config.request)
        self._response = compile_changes(config.response)

    @hook
    def transform_request(self, exchange: Exchange) -> None:
        """Change the request's fields."""
        if self._request is not None:
            headers = exchange.request.headers
            headers.fields = self._request(exchange, headers.fields)

    @hook
    def transform_response(self, exchange: Exchange) -> None:
        """Change the response's fields."""
        if self._response is not None:
            assert exchange.response is not None
            headers = exchange.response.headers
            headers.fields = self._response(exchange, headers.fields)


def compile_changes(changes: RequestChanges | ResponseChanges) -> Change | None:
    """The changes as one function; None where there are none."""
    if not (changes.remove or changes.set or changes.add):
        return None
    written = [
        (name.encode(), compile_value(value))
        for name, value in (*changes.set.items(), *changes.add.items())
    ]
    names = [*changes.set, *(name for name in changes.remove if "*" not in name)]
    exact = frozenset(name.lower().encode() for name in names)
    taken = matcher([name.lower().encode() for name in changes.remove if "*" in name])

    def change(exchange: Exchange, fields: Fields) -> Fields:
        kept = [
            field
            for field in fields
            if (name := field[0].lower()) not in exact and (taken is None or not taken(name))
        ]
        kept += [(name, value(exchange)) for name, value in written]
        return tuple(kept)

    return change


def matcher(patterns: list[bytes]) -> Callable[[bytes], bool] | None:
    """Whether one of the patterns takes a field away; none takes a field of the connection."""
    if not patterns:
        return None
    # Most patterns are prefixes, which are four times cheaper than an expression.
    prefixes = tuple(p[:-1] for p in patterns if p.index(b"*") == len(p) - 1)
    others = [p.split(b"*") for p in patterns if p[:-1] not in prefixes]
    expression = re.compile(b"|".join(b".*".join(map(re.escape, parts)) for parts in others))

    def taken(name: bytes) -> bool:
        found = name.startswith(prefixes) or (others and expression.fullmatch(name))
        return bool(found) and name.decode("latin-1") not in CARRIER_FIELDS

    return taken
