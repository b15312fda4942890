"""The options: providers, their keys and models, aliases."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from tidegate.api import AddonConfig, ByteSize, Duration, Secret
from tidegate.api.config import Model as Table
from tidegate.api.fields import field_name, field_value
from tidegate.api.formats import TranslationPolicy
from tidegate.api.models import Capability
from tidegate.api.upstream import parse_url

from .known import COMPATIBLE, known

type Kind = Literal[
    "openai-compatible", "anthropic", "gemini", "vertex", "azure", "bedrock", "cohere", "ollama"
]
type Call = Literal[
    "chat", "embeddings", "images", "speech", "transcription", "moderations", "rerank"
]
NAME = r"^[a-z0-9][a-z0-9._-]*$"


def _url(url: str) -> str:
    if "${" not in url:  # else it is that of a provider whose `if_env` is not set: off
        parse_url(url)
    return url


def _secret(value: Secret) -> Secret:
    """A key goes into a header field: a line end in it would end the field."""
    return Secret(field_value(value.get_secret_value().strip()))


def _as_key(value: object) -> object:
    return {"key": value} if isinstance(value, str) else value


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


class KeyConfig(Table):
    """A key: itself (write `${VARIABLE}`), or the file it stands in. `name` is for logs."""

    key: Annotated[Secret, AfterValidator(_secret)] | None = None
    file: str | None = None
    name: str = ""
    weight: int = Field(default=1, ge=1, le=100)
    if_env: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.key is None) == (self.file is None):
            raise ValueError("a key is given as `key` or as `file`, one of them")
        return self


class ModelConfig(Table):
    """A model that is listed. `like`: the known model whose facts hold for it.

    `id` is the provider's name for it, where callers call it otherwise (an Azure deployment).
    """

    name: str = Field(min_length=1)
    id: str | None = None
    like: str | None = None
    kind: Call | None = None
    capabilities: tuple[Capability, ...] | None = None
    context: int | None = Field(default=None, ge=1)
    max_output: int | None = Field(default=None, ge=1)


class TimeoutConfig(Table):
    """Bounds of an attempt. Models think: an answer's first byte may be its last."""

    connect: Duration = 5.0
    first_byte: Duration = 600.0
    idle: Duration = 300.0


class ProviderConfig(Table):
    """A provider. One that is known by its name needs no more than that.

    `like` is the name it is known by, where `name` is another. With `models` no other model of it
    is served. Without `keys` its key is looked for in the variable that is usual for it.
    """

    name: str = Field(pattern=NAME)
    like: str = ""
    kind: Kind | None = None
    url: Annotated[str, AfterValidator(_url)] | None = None
    keys: tuple[Annotated[KeyConfig, BeforeValidator(_as_key)], ...] = ()
    models: tuple[Annotated[ModelConfig, BeforeValidator(_named)], ...] | None = None
    formats: tuple[str, ...] | None = None
    headers: dict[Annotated[str, AfterValidator(field_name)], Annotated[Secret,
        AfterValidator(_secret)]] = Field(default_factory=dict)  # fmt: skip
    if_env: str | None = None
    api_version: str | None = None
    region: str | None = None
    location: str | None = None
    project: str | None = None
    resource: str | None = None
    credentials: str | None = None
    profile: str | None = None
    timeouts: TimeoutConfig = TimeoutConfig()
    max_connections: int = Field(default=256, ge=1)

    @model_validator(mode="after")
    def _known(self) -> Self:
        like = self.like or self.name
        if self.like and self.like not in known():
            raise ValueError(f"no provider is known as {self.like!r}: `tidegate providers known`")
        if self.url is None and like not in known() and self.kind in (None, COMPATIBLE):
            raise ValueError(
                f"no provider is known as {like!r}: give its `url`, or a name that "
                "`tidegate providers known` lists"
            )
        names = [model.name for model in self.models or ()]
        if len(set(names)) != len(names):
            raise ValueError("the names of a provider's models are unique")
        return self


class AiProvidersConfig(AddonConfig):
    """Options of `ai-providers`. See the README.

    `unknown` says what becomes of calls for a model that nobody here has. `body` bounds the
    request bodies that are read. `recover` is how long a refused key rests before it is tried.
    `team_hosts` are patterns of hosts where teams may have providers whatever their addresses:
    elsewhere these must be public ones.
    """

    providers: tuple[Annotated[ProviderConfig, BeforeValidator(_named)], ...] = ()
    aliases: dict[str, str] = Field(default_factory=dict)
    policy: TranslationPolicy = "drop-and-warn"
    unknown: Literal["refuse", "pass"] = "refuse"
    body: ByteSize = 32 * 1024 * 1024
    recover: Duration = Field(default=300.0, gt=0)
    team_hosts: tuple[str, ...] = ()

    @field_validator("providers")
    @classmethod
    def _unique(cls, value: tuple[ProviderConfig, ...]) -> tuple[ProviderConfig, ...]:
        names = [provider.name for provider in value]
        if len(set(names)) != len(names):
            raise ValueError("the names of providers are unique")
        return value

    @model_validator(mode="after")
    def _aliases(self) -> Self:
        for alias, target in self.aliases.items():
            seen: list[Any] = [alias]
            while target in self.aliases:
                if target in seen:
                    raise ValueError(f"aliases.{alias}: it leads back to itself")
                seen.append(target)
                target = self.aliases[target]
            provider, slash, model = target.partition("/")
            if not (slash and model):
                raise ValueError(f'aliases.{alias}: write "provider/model"')
            if provider not in [p.name for p in self.providers]:
                raise ValueError(f"aliases.{alias}: no provider is named {provider!r}")
        return self


def reason_of(error: ValueError) -> str:
    """What is wrong, in one line, without the values."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    reason = first["msg"].removeprefix("Value error, ")
    return f"{where}: {reason}" if where else reason
