"""The OpenAPI 3.1 document of all prompts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from .book import Book, Entry
from .operation import Operation
from .options import Json

_ERROR: Final[Json] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "request_id"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "request_id": {"type": "string"},
                "fields": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string"},
                            "message": {"type": "string"},
                        },
                    },
                },
            },
        }
    },
}
_USAGE: Final[Json] = {
    "type": "object",
    "properties": {"input_tokens": {"type": "integer"}, "output_tokens": {"type": "integer"}},
}
_DELTA: Final = (
    'Events `{"delta": "…"}`, then one of type `done` with usage and model; or one of type `error`.'
)


def document(book: Book) -> Json:
    """The document. Its operations are called with the key that any call here needs."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Prompts", "version": "1"},
        "paths": dict(_paths(book.entries.values())),
        "components": {
            "schemas": {"Error": _ERROR, "Usage": _USAGE},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def _paths(entries: Iterable[Entry]) -> Iterable[tuple[str, Json]]:
    for entry in entries:
        yield entry.path, {"post": _operation(entry)}


def _operation(entry: Entry) -> Json:
    operation = entry.operation
    prompt, version = operation.prompt, operation.version
    suffix = "" if entry.latest else f"_v{version.version}"
    return {
        "operationId": f"{prompt.name.replace('-', '_')}{suffix}",
        "summary": prompt.description.partition("\n")[0] or prompt.name,
        "description": f"{prompt.description}\n\nVersion {version.version}.".strip(),
        "deprecated": version.deprecated,
        "requestBody": {
            "required": bool(operation.input_schema["required"]),
            "content": {"application/json": {"schema": call_schema(operation)}},
        },
        "responses": {
            "200": {"description": "The output.", "content": _answers(operation)},
            "422": _error("A variable is missing or wrong."),
            "502": _error("The model's answer is not what the prompt promises."),
            "default": _error("Any other error."),
        },
    }


def call_schema(operation: Operation) -> Json:
    """What a call says: the variables, and whether the answer shall stream."""
    schema = operation.input_schema
    stream = {"type": "boolean", "default": False, "description": "Answer as an event stream."}
    return {**schema, "properties": {**schema["properties"], "stream": stream}}


def _answers(operation: Operation) -> Json:
    schema = operation.version.output.schema_
    output: Any = {"type": "string"} if schema is None else schema
    answer = {
        "type": "object",
        "required": ["output", "model", "prompt", "version"],
        "properties": {
            "output": output,
            "usage": {"$ref": "#/components/schemas/Usage"},
            "model": {"type": "string"},
            "prompt": {"type": "string"},
            "version": {"type": "integer"},
        },
    }
    return {
        "application/json": {"schema": answer},
        "text/plain": {"schema": {"type": "string"}},
        "text/event-stream": {"schema": {"type": "string", "description": _DELTA}},
    }


def _error(description: str) -> Json:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": description, "content": {"application/json": {"schema": schema}}}
