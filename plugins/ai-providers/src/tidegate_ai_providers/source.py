"""Where providers, keys and aliases come from: one small interface, and the configuration as one.

Nothing behind `Source` knows of the configuration file, so that a store can take its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

from tidegate.api import Secret, Timeouts
from tidegate.api.fields import field_value
from tidegate.api.models import Model

from .config import AiProvidersConfig, ModelConfig, ProviderConfig
from .known import GENERIC, SHAPES, Facts, Known, facts, known, models_of

CLOUD_KEYS: Final = frozenset(("vertex", "bedrock"))
"""Kinds that need no key: their credentials are files or of the machine."""


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A key of a pool. `label` is for people: never a part of the key."""

    label: str
    secret: Secret
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider that is on, with all that its upstreams are made of.

    `formats`: the preferred one first; () where it has no chat. `serves`: other kinds of calls,
    each with its format. `models`: the listed ones. `open`: others are served as well. `ids`: what
    the provider calls a model, where that is not its name here. `team`: whose it is; "":
    everyone's. `trusted`: as of an upstream.
    """

    name: str
    title: str
    kind: str
    url: str
    known: str = ""
    formats: tuple[str, ...] = (GENERIC,)
    serves: Mapping[str, str] = field(default_factory=lambda: dict(SHAPES))
    auth: str = "authorization"
    headers: tuple[tuple[str, Secret], ...] = ()
    keys: tuple[ProviderKey, ...] = ()
    models: tuple[Model, ...] = ()
    open: bool = True
    ids: Mapping[str, str] = field(default_factory=dict)
    timeouts: Timeouts = field(default_factory=Timeouts)
    max_connections: int = 256
    api_version: str | None = None
    region: str = ""
    credentials: Path | None = None
    profile: str = "default"
    team: str = ""
    trusted: bool = True

    @property
    def label(self) -> str:
        """Its name, and whose it is: for people."""
        return f"{self.name} of {self.team}" if self.team else self.name

    def model(self, name: str, kind: str) -> Model | None:
        """A model that is not listed, with what is known of it; None: it has none of that kind."""
        if not self.open or not (self.formats if kind == "chat" else kind in self.serves):
            return None
        found = facts(self.known, name) or Facts(kind)
        if found.kind != kind:
            return None
        made = make_model(self.name, name, self.formats, self.serves, found)
        return replace(made, team=self.team) if self.team else made


class Source(Protocol):
    """Where a catalogue is filled from."""

    def providers(self) -> Sequence[Provider]:
        """Those that are on, in their order."""

    def aliases(self) -> Mapping[str, str]:
        """Names → `provider/model`, or another alias."""


class ConfiguredSource:
    """The options of the addon. `env`: the variables; `base`: where relative paths start.

    Raises ValueError for a key file that can't be read and for an option that is missing.
    """

    def __init__(self, config: AiProvidersConfig, env: Mapping[str, str], base: Path) -> None:
        self.off: dict[str, str] = {}
        """Providers that are not on, and why."""
        self._providers: list[Provider] = []
        for one in config.providers:
            if one.if_env is not None and not env.get(one.if_env):
                self.off[one.name] = f"{one.if_env} is not set"
                continue
            made = resolve(one, env, base)
            if isinstance(made, str):
                self.off[one.name] = made
            else:
                self._providers.append(made)
        self._aliases = {
            alias: target
            for alias, target in config.aliases.items()
            if target.partition("/")[0] not in self.off
        }

    def providers(self) -> Sequence[Provider]:
        return self._providers

    def aliases(self) -> Mapping[str, str]:
        return self._aliases


def profile_of(config: ProviderConfig) -> Known:
    """What is known of a provider: by its name, else by its kind."""
    table = known()
    like = config.like or config.name
    found = table.get(like) or table.get(config.kind or "")
    if found is None or (config.kind is not None and config.kind != found.kind):
        found = table.get(config.kind or "") or Known(like, like, "", serves=())
    return found


def resolve(config: ProviderConfig, env: Mapping[str, str], base: Path) -> Provider | str:
    """The provider of a table, or why it is not on. Raises ValueError."""
    row = profile_of(config)
    own = config.url is not None
    keys = tuple(keys_of(config, row, env, base))
    if not keys and row.env and not own and row.kind not in CLOUD_KEYS:
        return f"{row.env} is not set"
    credentials = config.credentials or (env.get(row.env) if row.kind == "vertex" else None)
    if row.kind == "vertex" and not credentials and not keys:
        return f"{row.env} is not set"
    region = config.region or env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or ""
    if row.kind == "bedrock" and not region and not (own and keys):
        return "no `region`, and AWS_REGION is not set"
    serves = SHAPES if own and not row.url else row.kinds
    formats = config.formats or row.formats
    if row.kind == "azure" and config.api_version:
        formats = formats[:1]
    plain = Provider(
        config.name,
        row.title,
        row.kind,
        url_of(config, row, region),
        known="" if row.name not in known() else row.name,
        formats=formats,
        serves=serves,
        auth=row.auth,
        headers=tuple({n: Secret(v) for n, v in row.headers.items()}.items())
        + tuple(config.headers.items()),
        keys=keys,
        open=config.models is None,
        timeouts=Timeouts(**config.timeouts.model_dump()),
        max_connections=config.max_connections,
        api_version=config.api_version,
        region=region,
        credentials=base / credentials if credentials else None,
        profile=config.profile or env.get("AWS_PROFILE") or "default",
    )
    listed, ids = models_listed(config, row, formats, serves)
    return replace(plain, models=listed, ids=ids)


def keys_of(
    config: ProviderConfig, row: Known, env: Mapping[str, str], base: Path
) -> Sequence[ProviderKey]:
    """The keys of a provider. Raises ValueError for a file that can't be read."""
    out = []
    for number, one in enumerate(config.keys, 1):
        if one.if_env is not None and not env.get(one.if_env):
            continue
        label = one.name or f"key {number}"
        if one.key is not None:
            if not one.key.get_secret_value():
                continue  # `${VARIABLE:-}`: not set
            secret = one.key
        else:
            assert one.file is not None
            secret = secret_in(base / one.file, f"{config.name}: {label}")
        out.append(ProviderKey(label, secret, one.weight))
    if not config.keys and row.kind not in CLOUD_KEYS and config.url is None:
        usual = env.get(row.env, "") if row.env else ""
        if usual:
            out.append(ProviderKey(f"${row.env}", Secret(field_value(usual.strip()))))
    return out


def secret_in(file: Path, what: str) -> Secret:
    """The key in a file: its text without spaces around it. Raises ValueError."""
    try:
        text = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ValueError(f"{what}: {file} can't be read: {reason}") from None
    if not text:
        raise ValueError(f"{what}: {file} is empty")
    return Secret(field_value(text))


def url_of(config: ProviderConfig, row: Known, region: str) -> str:
    """The base URL, its options put in. Raises ValueError where one is missing."""
    url = config.url or row.url
    if config.url is None:
        given = {
            "region": region,
            "location": config.location,
            "project": config.project,
            "resource": config.resource,
        }
        for option in row.options:
            if not given.get(option):
                raise ValueError(f"provider {config.name!r} needs `{option}`")
        if row.kind == "vertex" and config.location == "global":
            url = url.replace("{location}-", "", 1)
        url = url.format(**given)
    url = url.rstrip("/")
    if row.kind == "azure" and not config.api_version and "/openai/v1" not in url:
        url += "/openai/v1"
    return url


def models_listed(
    config: ProviderConfig, row: Known, formats: tuple[str, ...], serves: Mapping[str, str]
) -> tuple[tuple[Model, ...], dict[str, str]]:
    """The models to list, and what the provider calls those that have another name."""
    if config.models is None:
        rows = models_of(row.name) if row.listed else {}
        made = [make_model(config.name, n, formats, serves, f) for n, f in rows.items()]
        return tuple(model for model in made if model.format), {}
    listed = tuple(
        make_model(config.name, one.name, formats, serves, facts_of(one, row))
        for one in config.models
    )
    return listed, {one.name: one.id for one in config.models if one.id is not None}


def facts_of(one: ModelConfig, row: Known) -> Facts:
    """What holds for a model: what its table says, else what is known. Raises ValueError."""
    like = facts(row.name, one.like or one.id or one.name)
    if one.like is not None and like is None:
        like = next((f for name in known() if (f := facts(name, one.like))), None)
        if like is None:
            raise ValueError(f"model {one.name!r}: nothing is known of {one.like!r}")
    found = like or Facts()
    can = one.capabilities
    return Facts(
        one.kind or found.kind,
        found.capabilities if can is None else frozenset((*can, "stream")),
        one.context or found.context,
        one.max_output or found.max_output,
        found.format,
    )


def make_model(
    provider: str, name: str, formats: tuple[str, ...], serves: Mapping[str, str], found: Facts
) -> Model:
    """A model of the contract."""
    format = serves.get(found.kind, "")
    if found.kind == "chat":
        format = found.format if found.format in formats else formats[0] if formats else ""
    return Model(
        provider, name, format, found.kind, found.capabilities, found.context, found.max_output
    )
