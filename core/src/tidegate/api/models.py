"""Models of providers: what a plugin that chooses a model learns from one that knows providers.

A plugin that is configured with providers puts its `Models` on every exchange it sees, before
`route` (`exchange.stash[MODELS]`): those that its caller may use. Others find models there, and
get an `Upstream` for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from .exchange import StashKey
from .formats import AiCall
from .upstream import Upstream

type Capability = Literal["tools", "images", "audio", "files", "json-schema", "reasoning", "stream"]


@dataclass(frozen=True, slots=True)
class Model:
    """One model of one provider. None says "not known": nothing is then refused for it."""

    provider: str
    """The provider's name in the configuration."""
    name: str
    """As the provider calls it."""
    format: str
    """The provider's format for this kind of call, such as `anthropic-messages`."""
    kind: str = "chat"
    """chat, embeddings, images, speech, transcription, moderations or rerank."""
    capabilities: frozenset[Capability] | None = None
    context: int | None = None
    """Tokens of prompt and answer together."""
    max_output: int | None = None
    team: str = ""
    """Whose provider it is; "": everyone's."""

    @property
    def id(self) -> str:
        """`provider/name`: how callers ask for it."""
        return f"{self.provider}/{self.name}"


class Models(Protocol):
    """The providers of one pipeline."""

    def find(self, name: str, kind: str = "chat") -> Model | None:
        """The model for `provider/model`, an alias, or a bare name that one provider lists."""

    def all(self) -> Sequence[Model]:
        """Every model that is listed, in the order of the configuration."""

    def upstream(self, model: Model, call: AiCall) -> Upstream:
        """Where calls of this caller's format go for that model: its keys, its codec.

        The same object for the same model and format, so that what it learns of the provider
        (cooldowns, latency) lasts. LookupError: no installed format can translate the call.
        """


MODELS: Final = StashKey[Models]("ai.models")

VIRTUAL: Final = StashKey[tuple[str, ...]]("ai.virtual")
"""Names that stand for several models: put there before `route` by a plugin that chooses among
them, so that lists of models show them."""
