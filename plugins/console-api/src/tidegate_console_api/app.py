"""The application: the routes of accounts and of every addon, behind the door."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from sqlalchemy import literal, select

from tidegate.api import Plugin
from tidegate.api.store import PlatformStore

from . import openapi, own_routes, user_routes
from .answers import handle_errors
from .config import ConsoleApiConfig
from .credentials import Sessions, Tokens
from .desk import Desk, DeskDep
from .door import Door
from .throttle import Throttle
from .users import Users

API: str = "/api/v1"

health = APIRouter()


class Health(BaseModel):
    """The console answers, and so does its store."""

    status: str = "ok"


@health.get("/api/health")
def get_health(desk: DeskDep) -> Health:
    """Say whether the console can work. 503: it can't, for want of its store."""
    with desk.store.read() as connection:
        connection.execute(select(literal(1)))
    return Health()


def make_door(
    config: ConsoleApiConfig,
    store: PlatformStore,
    addons: Mapping[str, Plugin[Any]],
    clock: Callable[[], float] = time.time,
) -> Door:
    """The ASGI application. Raises what an addon's `console_routes` raises, and names the addon."""
    api = FastAPI(
        title="Tidegate",
        summary="The admin API of the console.",
        version=version("tidegate-console-api"),
        openapi_url="/api/openapi.json",
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
    )
    sessions = Sessions(store, idle=config.idle, longest=config.longest, clock=clock)
    tokens = Tokens(store, clock)
    api.state.desk = Desk(
        store,
        Users(store, clock),
        sessions,
        tokens,
        Throttle(time.monotonic),
        secure=config.tls is not None,
    )
    handle_errors(api)
    api.include_router(health, tags=["console"])
    for own in (own_routes.router, user_routes.router):
        api.include_router(own, prefix=API, tags=["console"])
    for name, addon in addons.items():
        add = getattr(addon, "console_routes", None)
        if add is None:
            continue
        router = APIRouter(tags=[name])
        try:
            add(router)
            api.include_router(router, prefix=API)
        except Exception as error:
            raise RuntimeError(f'console_routes of addon "{name}": {error}') from error
    openapi.complete(api)
    return Door(api, sessions, tokens, hosts=config.hosts, body_limit=config.body_limit)
