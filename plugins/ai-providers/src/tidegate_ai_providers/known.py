"""What is known of providers and models without asking them: the two files in `data/`.

`providers.toml` is written by hand; `models.json` holds facts (names, kinds, what a model takes,
context windows) put together from public price tables. What is not in it is not known.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

from tidegate.api.models import Capability

COMPATIBLE: Final = "openai-compatible"
GENERIC: Final = "openai-chat/generic"
SHAPES: Final = {
    "embeddings": "openai-embeddings",
    "images": "openai-images",
    "speech": "openai-speech",
    "transcription": "openai-transcription",
    "moderations": "openai-moderations",
    "rerank": "jina-rerank",
}
"""The formats that are meant where nothing else is said."""
_REGION: Final = re.compile(r"^(?:us-gov|us|eu|apac|au|jp|ca|sa|global)\.")


@dataclass(frozen=True, slots=True)
class Known:
    """A provider of `providers.toml`, whose head says what the fields mean."""

    name: str
    title: str
    url: str
    kind: str = COMPATIBLE
    env: str = ""
    formats: tuple[str, ...] = (GENERIC,)
    auth: str = "authorization"
    headers: Mapping[str, str] = field(default_factory=dict)
    serves: tuple[str, ...] = ("embeddings",)
    other: Mapping[str, str] = field(default_factory=dict)
    example: str = ""
    listed: bool = True

    @property
    def kinds(self) -> Mapping[str, str]:
        """Kinds of calls besides chat → the format that it takes them in."""
        return {kind: SHAPES[kind] for kind in self.serves} | dict(self.other)

    @property
    def options(self) -> tuple[str, ...]:
        """What its URL is made of besides: `region`, `resource`, …"""
        return tuple(dict.fromkeys(re.findall(r"\{(\w+)\}", self.url)))


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a model. None: not known."""

    kind: str = "chat"
    capabilities: frozenset[Capability] | None = None
    context: int | None = None
    max_output: int | None = None
    format: str = ""
    """The only format that the model is offered in, where its provider has several."""


@cache
def known() -> Mapping[str, Known]:
    """The providers, by name."""
    table = tomllib.loads(_data("providers.toml"))
    return {
        name: Known(name, **{k: _frozen(v) for k, v in row.items()}) for name, row in table.items()
    }


@cache
def models_of(provider: str) -> Mapping[str, Facts]:
    """The models that are known of a provider of `providers.toml`."""
    return {name: _facts(row) for name, row in _models().get(provider, {}).items()}


def facts(provider: str, model: str) -> Facts | None:
    """What is known of a model. Bedrock's names may have a region before them."""
    rows = models_of(provider)
    found = rows.get(model)
    return rows.get(_REGION.sub("", model)) if found is None else found


@cache
def _models() -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]] = json.loads(_data("models.json"))
    return rows


def _facts(row: Mapping[str, Any]) -> Facts:
    can = row.get("can")
    return Facts(
        row.get("kind", "chat"),
        None if can is None else frozenset(can),
        row.get("context"),
        row.get("max_output"),
        row.get("format", ""),
    )


def _data(name: str) -> str:
    return files(__package__).joinpath("data", name).read_text("utf-8")


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
