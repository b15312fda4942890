"""What a call asks of a model: abilities, tokens, and whose prompt cache it may find again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tidegate.api import Exchange
from tidegate.api.formats import AiCall
from tidegate.api.models import Capability, Model

BYTES_PER_TOKEN: Final = 4
PREFIX: Final = 1024
"""Characters of the prompt that make calls belong together."""
EXPECTED_OUTPUT: Final = 500
"""Tokens that an answer is taken to have, unless the caller allows fewer."""

_OF_MEDIA: Final[dict[str, Capability]] = {
    "image": "images",
    "audio": "audio",
    "video": "files",
    "file": "files",
}


@dataclass(frozen=True, slots=True)
class Demand:
    """`input` and `output` are estimates, in tokens; `room` is what the caller may use of both."""

    abilities: frozenset[Capability]
    input: int
    output: int
    room: int

    def met_by(self, model: Model) -> bool:
        """Whether nothing that is known of the model speaks against it."""
        known = model.capabilities
        return known is None or self.abilities <= known

    def fits(self, model: Model) -> bool:
        """Whether the estimate fits into the model's context. Not known: it does."""
        return model.context is None or self.room <= model.context


def demand_of(call: AiCall, size: int) -> Demand:
    """What the call asks for; `size` is that of its body in bytes."""
    request = call.request
    abilities: set[Capability] = set()
    if request.tools:
        abilities.add("tools")
    if getattr(request.output, "kind", "") == "schema":
        abilities.add("json-schema")
    media = 0
    for part in _parts(request.messages):
        kind = _OF_MEDIA.get(getattr(part, "kind", ""))
        if kind is not None:
            abilities.add(kind)
            media += len(part.data)
    input = max(0, size - media) // BYTES_PER_TOKEN
    output = min(EXPECTED_OUTPUT, request.max_tokens or EXPECTED_OUTPUT)
    return Demand(frozenset(abilities), input, output, input + (request.max_tokens or 0))


def prompt_key(exchange: Exchange, call: AiCall) -> str:
    """The same for calls of one caller that begin alike: their prompt is cached in one place.

    They begin with the instructions, and where there are none with the first message.
    """
    caller = exchange.principal.id if exchange.principal is not None else exchange.client.address
    messages = call.request.messages
    said = [m for m in messages if m.role in ("system", "developer")] or messages[:1]
    text = "\n".join([getattr(part, "text", "") for part in _parts(said)])
    return f"{caller}\n{text[:PREFIX]}"


def _parts(messages: list[Any]) -> Iterator[Any]:
    """The parts of messages, those in results of tools as well."""
    for message in messages:
        for part in message.parts:
            yield part
            yield from getattr(part, "parts", ())
