"""Errors as problem details (RFC 9457), whatever raised them."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import IntegrityError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match

from tidegate.api.console import ConsoleError, Problem
from tidegate.api.store import StoreError

MEDIA_TYPE: Final = "application/problem+json"
_CODES: Final = {
    400: ("invalid", "The request can't be read."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not take that method."),
    413: ("body_too_large", "The body is larger than allowed here."),
}

log = logging.getLogger("tidegate.console")


def problem(
    error: ConsoleError | StoreError,
    request_id: str,
    errors: list[dict[str, Any]] | None = None,
) -> JSONResponse:
    """The answer that an error is."""
    headers = dict(error.headers) if isinstance(error, ConsoleError) else {}
    if error.status == 503:
        headers.setdefault("retry-after", "1")
    body = Problem(
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=str(error),
        code=error.code,
        request_id=request_id,
        errors=errors,
    )
    content = body.model_dump(exclude_none=True)
    return JSONResponse(content, error.status, headers, media_type=MEDIA_TYPE)


def handle_errors(app: FastAPI) -> None:
    """Have every error of the application answered so."""

    def id_of(request: Request) -> str:
        return str(getattr(request.state, "request_id", ""))

    async def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ConsoleError | StoreError)
        return problem(error, id_of(request))

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = [  # without `input`: it may be a password
            {"loc": each["loc"], "msg": each["msg"], "type": each["type"]}
            for each in jsonable_encoder(error.errors())
        ]
        what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in errors[:3])
        return problem(ConsoleError(422, "invalid", what), id_of(request), errors)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code, text = _CODES.get(error.status_code, ("error", str(error.detail)))
        headers = error.headers
        if error.status_code == 405:  # the router names those of one route only
            headers = {"allow": ", ".join(sorted(_methods(request)))}
        return problem(ConsoleError(error.status_code, code, text, headers), id_of(request))

    async def conflicting(request: Request, error: Exception) -> JSONResponse:
        told = ConsoleError(409, "conflict", "Another changed it at the same time. Try again.")
        return problem(told, id_of(request))

    async def unknown(request: Request, error: Exception) -> JSONResponse:
        log.error("request %s failed: %s", id_of(request), type(error).__name__)
        told = ConsoleError(500, "internal_error", "The console failed to handle this request.")
        return problem(told, id_of(request))

    app.add_exception_handler(ConsoleError, known)
    app.add_exception_handler(StoreError, known)
    app.add_exception_handler(IntegrityError, conflicting)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unknown)


def _methods(request: Request) -> set[str]:
    """What can be done at the address of a request."""
    return {
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        for route in request.app.routes
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    }
