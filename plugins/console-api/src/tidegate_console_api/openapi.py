"""The OpenAPI document: FastAPI's, and what the door and the contract add to every operation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from tidegate.api.console import Problem, problems

from .door import COOKIE, PUBLIC, SAFE

_SECURITY: Final = {
    "token": {"type": "http", "scheme": "bearer", "description": "A personal access token."},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
}


def operation_id(route: APIRoute) -> str:
    """The addon and the name of the function."""
    return ".".join([*map(str, route.tags[:1]), route.name])


def complete(app: FastAPI) -> None:
    """Have `app.openapi()` tell all that can be met."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            for method, path, operation in _operations(document):
                _complete(method, path, operation)
            parts = document.setdefault("components", {})
            schemas = parts.setdefault("schemas", {})
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            schemas["Problem"] = Problem.model_json_schema()
            parts["securitySchemes"] = _SECURITY
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def _complete(method: str, path: str, operation: dict[str, Any]) -> None:
    public = (method, path) in PUBLIC
    parameters = operation.get("parameters", [])
    statuses = {400, 503}
    if not public:
        operation["security"] = [{name: []} for name in _SECURITY]
        statuses |= {401, 403}
    if method not in SAFE:
        statuses.add(403)
    if any(each["in"] == "path" for each in parameters):
        statuses.add(404)
    if "requestBody" in operation:
        statuses.add(413)
    if "requestBody" in operation or parameters:
        statuses.add(422)
    for each in parameters:
        if each["in"] == "header" and each["name"].lower() == "if-match":
            statuses |= {412, 428}
            each["required"] = True
            each["schema"] = each["schema"]["anyOf"][0]  # without null
    operation["responses"].pop("422", None)
    added = {str(status): told for status, told in problems(*statuses).items()}
    operation["responses"] = dict(sorted((added | operation["responses"]).items()))
