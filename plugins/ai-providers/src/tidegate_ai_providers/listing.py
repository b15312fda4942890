"""Lists of models, answered here: as OpenAI, Anthropic and Gemini say them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import unquote

from tidegate.api.models import Model

from .known import SHAPES
from .teams import Catalogue

CREATED: Final = 1_700_000_000
"""When a model was made is not known here, and clients want a number: the same for each."""
CREATED_TEXT: Final = "2023-11-14T22:13:20Z"
PREFIXES: Final = (
    ("/v1/models", "openai"),
    ("/openai/v1/models", "openai"),
    ("/v1beta/models", "gemini"),
)


def list_asked(path: str) -> tuple[str, str] | None:
    """(shape, model) that a path asks for; model "": all. None: it is no list's path."""
    for prefix, shape in PREFIXES:
        if path == prefix:
            return shape, ""
        if path.startswith(prefix + "/") and ":" not in path.rpartition("/")[2]:
            return shape, unquote(path[len(prefix) + 1 :])
    return None


def entries(catalog: Catalogue, virtual: Iterable[str] = ()) -> Iterator[tuple[str, Model]]:
    """Names and models: those that stand for several, those that are listed, then the aliases."""
    for name in virtual:
        yield name, several(name)
    for model in catalog.all():
        yield model.id, model
    for alias in catalog.aliases:
        for kind in ("chat", *SHAPES):
            if (found := catalog.find(alias, kind)) is not None:
                yield alias, found
                break


def several(name: str) -> Model:
    """What a list says of a name behind which another plugin chooses among models."""
    return Model("tidegate", name, "openai-chat")


def render(shape: str, rows: Iterable[tuple[str, Model]]) -> dict[str, Any]:
    """The list in a shape."""
    if shape == "gemini":
        return {"models": [gemini(name, model) for name, model in rows]}
    if shape == "anthropic":
        data = [anthropic(name) for name, model in rows if model.kind == "chat"]
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return {"data": data, "has_more": False, "first_id": first, "last_id": last}
    return {"object": "list", "data": [openai(name, model) for name, model in rows]}


def one(shape: str, name: str, model: Model) -> dict[str, Any]:
    """One model in a shape."""
    if shape == "gemini":
        return gemini(name, model)
    return anthropic(name) if shape == "anthropic" else openai(name, model)


def openai(name: str, model: Model) -> dict[str, Any]:
    """With what is known besides, in the words of servers that say it (`context_length`)."""
    row: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": CREATED,
        "owned_by": model.provider,
    }
    if model.kind != "chat":
        row["kind"] = model.kind
    if model.context is not None:
        row["context_length"] = model.context
    if model.max_output is not None:
        row["max_output_tokens"] = model.max_output
    if model.capabilities is not None:
        row["capabilities"] = sorted(model.capabilities)
    return row


def anthropic(name: str) -> dict[str, Any]:
    """As Anthropic lists them."""
    return {"type": "model", "id": name, "display_name": name, "created_at": CREATED_TEXT}


def gemini(name: str, model: Model) -> dict[str, Any]:
    """As Gemini lists them."""
    methods = ["generateContent", "streamGenerateContent"] if model.kind == "chat" else []
    row: dict[str, Any] = {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "supportedGenerationMethods": methods,
    }
    if model.context is not None:
        row["inputTokenLimit"] = model.context
    if model.max_output is not None:
        row["outputTokenLimit"] = model.max_output
    return row
