"""What a call needs of a model, beside what is known of the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.api.formats import AiRequest
from tidegate.api.models import Model


def missing(model: Model, request: AiRequest) -> str:
    """What the call has that the model is known not to take: `tools`, `images`; "": nothing.

    Only what a provider would refuse or not see. What is not known of a model is let through.
    """
    known = model.capabilities
    if known is None:
        return ""
    if request.tools and "tools" not in known:
        return "tools"
    if "images" not in known and any(
        getattr(part, "kind", "") == "image" for part in _parts(request.messages)
    ):
        return "images"
    return ""


def _parts(messages: list[Any]) -> Iterator[Any]:
    """The parts of all messages, those within results of tools included."""
    for message in messages:
        for part in message.parts:
            yield part
            yield from getattr(part, "parts", ())
