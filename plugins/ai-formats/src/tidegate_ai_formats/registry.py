"""Formats by name, imported when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from .format import Format

_MODULES: Final = {
    "anthropic-messages": "anthropic",
    "bedrock-converse": "converse",
    "cohere-chat": "cohere",
    "gemini": "gemini",
    "ollama-chat": "ollama",
    "openai-chat": "chat",
    "openai-responses": "responses",
}
NAMES: Final = tuple(sorted(_MODULES))


def get_format(name: str) -> Format:
    """The format `name`, or a dialect: `openai-chat/mistral`. LookupError: none.

    >>> get_format("anthropic-messages").family
    'anthropic'
    """
    base, _, dialect = name.partition("/")
    module = _MODULES.get(base)
    if module is None:
        raise LookupError(f"there is no format {name!r}; there are: {', '.join(NAMES)}")
    found = cast(Format, import_module(f"{__package__}.{module}").FORMAT)
    return found.in_dialect(dialect) if dialect else found
