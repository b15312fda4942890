"""What the routes of accounts work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from tidegate.api.console import Caller
from tidegate.api.store import Actor, PlatformStore

from .credentials import Sessions, Tokens
from .throttle import Throttle
from .users import Users


@dataclass(frozen=True, slots=True)
class Desk:
    """`secure`: whether the cookie may only go over TLS."""

    store: PlatformStore
    users: Users
    sessions: Sessions
    tokens: Tokens
    throttle: Throttle
    secure: bool = False


def _get_desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


DeskDep = Annotated[Desk, Depends(_get_desk)]


def actor_of(caller: Caller) -> Actor:
    """The caller, as the audit names him."""
    return Actor(caller.user, caller.source, caller.request_id)
