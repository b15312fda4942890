"""What embeddings consist of, whatever API says it; and the two forms that vectors come in."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from struct import pack, unpack
from typing import Any, Literal

from tidegate_ai_formats.losses import InvalidRequest

type Purpose = Literal["query", "document", "classification", "clustering", "similarity"]


@dataclass(slots=True)
class Embeddings:
    """What is asked. `inputs` are texts, or arrays of tokens; `raw` is the provider's own form
    of inputs that hold more than text."""

    inputs: list[Any]
    single: bool = False
    """Whether the one input was not in an array."""
    dimensions: int | None = None
    base64: bool = False
    purpose: Purpose | None = None
    truncate: bool | None = None
    title: str | None = None
    user: str | None = None
    rest: dict[str, Any] = field(default_factory=dict)


def take_inputs(value: Any, name: str) -> tuple[list[Any], bool]:
    """(inputs, whether it was one alone) of a field. Raises InvalidRequest."""
    if isinstance(value, str):
        return [value], True
    if not isinstance(value, list) or not value:
        raise InvalidRequest(name, "is required: a text, or an array of texts")
    if all(isinstance(one, int) for one in value):
        return [value], True
    return value, False


def texts_of(asked: Embeddings, name: str = "input") -> list[str]:
    """The inputs where all are texts. Raises InvalidRequest."""
    for n, one in enumerate(asked.inputs):
        if not isinstance(one, str):
            raise InvalidRequest(f"{name}[{n}]", "only text can be translated for this provider")
    return asked.inputs


def floats(vector: Any, *, int8: bool = False) -> list[float]:
    """A vector as numbers: OpenAI's clients ask for base64 of little-endian 32-bit floats.

    `int8`: it is one of signed bytes instead.
    """
    if isinstance(vector, str):
        data = b64decode(vector)
        if int8:
            return list(unpack(f"{len(data)}b", data))
        return list(unpack(f"<{len(data) // 4}f", data))
    if not isinstance(vector, list):
        raise ValueError("a vector is an array of numbers, or base64")
    return vector


def encoded(vector: Any) -> str:
    """A vector as base64."""
    return (
        vector if isinstance(vector, str) else b64encode(pack(f"<{len(vector)}f", *vector)).decode()
    )
