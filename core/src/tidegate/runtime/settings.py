"""`addons.toml` read: base and overlay merged, variables put in, every value checked.

The result says nothing yet about the options of an addon: only its plugin knows them
(`registry.py`).
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from tidegate.api.config import ByteSize, Duration, Model

from .document import expand, overlay
from .entry import AddonEntry, Texts, fields_of, with_code
from .intercepts import Intercept, named
from .problems import ConfigError, KeyPath, Problem, SourceMap, nearest

Carrier = Literal["lane", "engine"]


def split_address(address: str) -> tuple[str, int]:
    """("127.0.0.1", 8080) from `127.0.0.1:8080`, `[::1]:8080` or `:8080` (loopback)."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'{address!r} is not an address: write "127.0.0.1:8080" or "[::1]:8080"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r}: an IPv6 address stands in brackets")
    return host or "127.0.0.1", int(port)


class Certificate(Model):
    """A further certificate of a listener, chosen by SNI from the names it holds."""

    cert: str
    key: str


class Listener(Model):
    """One address that the gateway listens on. `cert` and `key` are PEM files."""

    name: str = ""
    address: str
    cert: str | None = None
    key: str | None = None
    client_ca: str | None = None
    alpn: tuple[Literal["http/1.1", "h2"], ...] = ("http/1.1",)
    carrier: Carrier | None = None
    certificates: tuple[Certificate, ...] = ()

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        split_address(value)
        return value

    @model_validator(mode="after")
    def _pair(self) -> Listener:
        if (self.cert is None) != (self.key is None):
            raise ValueError("`cert` and `key` come together")
        return self

    @property
    def host(self) -> str:
        """The address part, such as 127.0.0.1 or ::1."""
        return split_address(self.address)[0]

    @property
    def port(self) -> int:
        """The port; 0 asks for a free one."""
        return split_address(self.address)[1]


class Deadlines(Model):
    """How long things may take.

    `head`: until a request head is complete. `body`: until the next bytes of a request body.
    `hooks`: all that the hooks of an exchange may wait, before its answer begins.
    `keepalive`: an idle client connection. `write`: a client that takes no bytes.
    `drain`: what SIGTERM waits for exchanges in progress.
    """

    head: Duration = 10.0
    body: Duration = 30.0
    hooks: Duration = 30.0
    keepalive: Duration = 75.0
    write: Duration = 60.0
    drain: Duration = 30.0


class Limits(Model):
    """How much there may be. `gather`: a body that a hook must see whole, decoded, where the
    hook names no limit. `body`: any request body. `connections`: per worker. `requests`: on one
    HTTP/2 connection, whose client is then asked to open another. `memory` (of a worker, 0: its
    part of 85 % of the machine's) and `lag` (of its event loop): beyond them it takes no new work.
    """

    head: ByteSize = 32 * 1024
    fields: int = 100
    target: ByteSize = 8 * 1024
    body: ByteSize = 64 * 1024 * 1024
    gather: ByteSize = 4 * 1024 * 1024
    connections: int = 10_000
    requests: int = Field(default=1000, ge=1)
    log_queue: int = 10_000
    memory: ByteSize = 0
    lag: Duration = 0.25


class Explain(Model):
    """Who may have the trace of an exchange, and which are traced anyway.

    `principals` (ids) get it when they send `x-tidegate-explain: 1`; in a development environment
    callers on loopback do as well; `header = false` gives it to no one. `sample` is the share of
    all exchanges that is traced. `keep`: traces that each worker holds.
    """

    header: bool = True
    principals: tuple[str, ...] = ()
    sample: float = Field(default=0.0, ge=0.0, le=1.0)
    keep: int = Field(default=200, ge=1, le=10_000)


class Gateway(Model):
    """`[gateway]`.

    `trusted_proxies` are CIDRs whose forwarding fields are believed. `forwarding` says how the
    client is told to upstreams. `paths`: "strict" refuses escaped slashes and empty segments.
    """

    listen: tuple[Listener, ...] = Field(
        default=(Listener(name="gateway", address="127.0.0.1:8080"),)
    )
    environment: str = "development"
    carrier: Carrier = "lane"
    workers: int | None = Field(default=None, ge=1, le=256)
    anonymous: bool = False
    status: str = "127.0.0.1:0"
    trusted_proxies: tuple[str, ...] = ()
    forwarding: Literal["x-forwarded", "forwarded", "none"] = "x-forwarded"
    paths: Literal["strict", "lenient"] = "strict"
    deadlines: Deadlines = Deadlines()
    limits: Limits = Limits()
    explain: Explain = Explain()

    @field_validator("listen", mode="before")
    @classmethod
    def _listeners(cls, value: object) -> object:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list | tuple):
            return value
        out: list[object] = []
        for index, item in enumerate(value):
            entry: object = {"address": item} if isinstance(item, str) else item
            if isinstance(entry, dict) and not entry.get("name"):
                entry = {**entry, "name": "gateway" if index == 0 else f"gateway-{index + 1}"}
            out.append(entry)
        return out

    @field_validator("listen")
    @classmethod
    def _unique(cls, value: tuple[Listener, ...]) -> tuple[Listener, ...]:
        if not value:
            raise ValueError("at least one address is needed")
        names = [listener.name for listener in value]
        if len(set(names)) != len(names):
            raise ValueError("the names of listeners are unique")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network, strict=False)
        return value

    @field_validator("status")
    @classmethod
    def _status(cls, value: str) -> str:
        split_address(value)
        return value


@dataclass(frozen=True, slots=True)
class Settings:
    """A whole configuration, merged and checked."""

    gateway: Gateway
    addons: tuple[AddonEntry, ...]
    intercepts: tuple[Intercept, ...] = ()
    deployment: str = ""
    base: Path = field(default_factory=Path)
    """The folder of the file: relative paths start there."""
    file: str = ""
    source: SourceMap = field(default_factory=lambda: SourceMap(""))
    paths: tuple[KeyPath, ...] = ()
    """Where each addon stands in the document."""

    @property
    def anonymous(self) -> bool:
        return self.gateway.anonymous

    @property
    def limits(self) -> Limits:
        return self.gateway.limits

    @property
    def production(self) -> bool:
        return self.gateway.environment == "production"

    @property
    def carriers(self) -> frozenset[str]:
        """What carries exchanges: "lane", "engine", "intercept" (which is the engine's too)."""
        found = {x.carrier or self.gateway.carrier for x in self.gateway.listen}
        return frozenset((*found, *(("engine", "intercept") if self.intercepts else ())))


# -- reading ----------------------------------------------------------------------------------


def load(file: Path, deployment: str = "", env: Mapping[str, str] | None = None) -> Settings:
    """Read a file. Raises ConfigError with everything that is wrong with it."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(Problem("config_unreadable", reason, str(file))) from None
    return parse(text, file=str(file), base=file.parent, deployment=deployment, env=env)


def parse(
    text: str,
    *,
    file: str = "",
    base: Path | None = None,
    deployment: str = "",
    env: Mapping[str, str] | None = None,
    texts: Texts = MappingProxyType({}),
) -> Settings:
    """Read a document, and the policy files not among `texts`.

    Raises ConfigError with everything that is wrong with it.
    """
    source = SourceMap(text, file)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1  # "at end of document"
        raise ConfigError(Problem("config_syntax", str(error), file, line)) from None
    problems: list[Problem] = []
    document, paths = overlay(document, deployment, source, problems)
    variables = os.environ if env is None else env
    expanded = expand(document, variables, (), source, problems)
    base = (base or Path()).resolve()
    settings = build(expanded, paths, source, problems, base=base, texts=texts)
    if problems:
        raise ConfigError(problems)
    gateway, intercepts, addons = settings
    return Settings(
        gateway,
        addons,
        intercepts,
        deployment,
        base,
        file,
        source,
        tuple(paths),
    )


def build(
    document: dict[str, Any],
    paths: list[KeyPath],
    source: SourceMap,
    problems: list[Problem],
    *,
    base: Path = Path(),
    texts: Texts = MappingProxyType({}),
) -> tuple[Gateway, tuple[Intercept, ...], tuple[AddonEntry, ...]]:
    """Check the values and make the models."""
    gateway = checked(Gateway, document.get("gateway", {}), ("gateway",), source, problems)
    intercepts: list[Intercept] = []
    for index, table in enumerate(named(document.get("intercept", []))):
        at: KeyPath = ("intercept", index)
        intercept = checked(Intercept, table, at, source, problems)
        if intercept is None:
            continue
        others = [x.name for x in (gateway or Gateway()).listen] + [x.name for x in intercepts]
        if intercept.name in others or any(x.mode == intercept.mode for x in intercepts):
            text = f"`{intercept.name}` ({intercept.mode}): name and mode are its alone"
            problems.append(source.problem("duplicate_listener", text, at))
        intercepts.append(intercept)
    addons: list[AddonEntry] = []
    for path, table in zip(paths, document["addon"], strict=True):
        entry = checked(AddonEntry, fields_of(table, base), path, source, problems)
        if entry is None:
            continue
        if entry.mode != "off" and entry.active:
            entry = with_code(entry, base, texts, source.problem, path, problems)
        if any(other.name == entry.name for other in addons):
            problems.append(
                source.problem(
                    "duplicate_addon",
                    f'two addons are named "{entry.name}"',
                    path,
                    'give one a `name = "…"` of its own',
                )
            )
        addons.append(entry)
    return gateway or Gateway(), tuple(intercepts), tuple(addons)


def checked[M: Model](
    model: type[M], table: object, path: KeyPath, source: SourceMap, problems: list[Problem]
) -> M | None:
    """`model` of `table`, or None with the problems noted."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        problems.extend(problems_of(error, model, path, source))
        return None


def problems_of(
    error: ValidationError, model: type[Model], path: KeyPath, source: SourceMap
) -> list[Problem]:
    """pydantic's errors as problems: key, reason, line, nearest name; never the value."""
    out = []
    for detail in error.errors(include_url=False, include_input=False):
        loc: KeyPath = tuple(detail["loc"])
        key = ".".join(str(part) for part in loc)
        if detail["type"] == "extra_forbidden":
            hint = nearest(str(loc[-1]), fields_at(model, loc[:-1]))
            message, code = f"unknown key `{key}`", "unknown_key"
        elif detail["type"] == "missing":
            hint = f"add `{loc[-1]} = …`" if isinstance(loc[-1], str) else ""
            message, code = f"`{key}` is missing", "missing_key"
        else:
            text = detail["msg"].removeprefix("Value error, ")
            message, code, hint = f"`{key}`: {text}" if key else text, "invalid_value", ""
        out.append(source.problem(code, message, (*path, *loc), hint))
    return out


def fields_at(model: Any, loc: KeyPath) -> list[str]:
    """The names of the keys that are known at a place inside a model."""
    for part in loc:
        if isinstance(part, int):
            continue
        info = getattr(model, "model_fields", {}).get(part)
        if info is None:
            return []
        model = _inner_model(info.annotation)
    return list(getattr(model, "model_fields", {}))


def _inner_model(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None
