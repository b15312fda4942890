"""Routes of a user's own: his session, his password, his tokens."""

from __future__ import annotations

import logging
import math
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from tidegate.api.console import CallerDep, ConsoleError, Id, Listing, PageDep, problems
from tidegate.api.store import Actor, Role

from .credentials import hashed
from .desk import Desk, DeskDep, actor_of
from .door import COOKIE
from .passwords import verify
from .scopes import Scope, exceeding
from .users import Given, Password, UserName

router = APIRouter()
log = logging.getLogger("tidegate.console")


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a date and time, with its zone: 2027-01-31T12:00:00Z")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_text)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Login(_Body):
    """Who one is."""

    user: UserName
    password: Given


class PasswordChange(_Body):
    """One's password, and what it is to be."""

    current: Given
    new: Password


class TokenRequest(_Body):
    """A token that is to be made. `expires`: null: never."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[ -~]*$")]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=50)]
    expires: Moment | None = None


class Me(BaseModel):
    """Who calls, and what he may do."""

    user: str
    admin: bool
    """Whether he administers the platform."""
    roles: dict[str, Role]
    """By team id."""
    scopes: list[str] | None
    """Of the token that he calls with."""


class Token(BaseModel):
    """A personal access token, without its secret."""

    id: str
    user: str
    name: str
    prefix: str
    """Its first characters."""
    scopes: list[str]
    created: datetime
    expires: datetime | None


class NewToken(Token):
    """A token that was just made."""

    token: str
    """The secret. It is shown this once."""


@router.post("/session", responses=problems(401, 429))
def log_in(login: Login, desk: DeskDep, request: Request, response: Response) -> Me:
    """Log in. The answer sets the cookie of the session."""
    source = request.client.host if request.client else ""
    _count_attempt(desk, login.user, source)
    if not verify(desk.users.password_of(login.user), login.password):
        log.warning("a login as %s from %s failed", login.user, source)
        raise ConsoleError(401, "invalid_credentials", "There is no such user and password.")
    desk.throttle.succeeded(login.user, source)
    opened = desk.sessions.open(Actor(login.user, source, request.state.request_id))
    response.set_cookie(
        COOKIE,
        opened.secret,
        max_age=int(desk.sessions.longest),
        secure=desk.secure,
        httponly=True,
        samesite="lax",
    )
    roles = desk.store.roles(login.user)
    return Me(user=login.user, admin=roles.admin, roles=dict(roles.teams), scopes=None)


@router.get("/session")
def who_am_i(caller: CallerDep) -> Me:
    """Say who calls, and what he may do."""
    scopes = None if caller.scopes is None else list(caller.scopes)
    return Me(user=caller.user, admin=caller.admin, roles=dict(caller.roles), scopes=scopes)


@router.delete("/session", status_code=204)
def log_out(caller: CallerDep, desk: DeskDep, request: Request, response: Response) -> None:
    """End the session."""
    desk.sessions.close(actor_of(caller), _session(request))
    response.delete_cookie(COOKIE, secure=desk.secure, httponly=True, samesite="lax")


@router.put("/session/password", status_code=204, responses=problems(429))
def change_password(
    change: PasswordChange, caller: CallerDep, desk: DeskDep, request: Request
) -> None:
    """Change one's password. All other sessions of the user end."""
    session = _session(request)
    _count_attempt(desk, caller.user, caller.source)
    if not desk.users.change_password(
        actor_of(caller), change.current, change.new, hashed(session)
    ):
        raise ConsoleError(403, "invalid_credentials", "The current password is another.")
    desk.throttle.succeeded(caller.user, caller.source)


@router.get("/tokens")
def list_tokens(
    caller: CallerDep,
    desk: DeskDep,
    page: PageDep,
    user: Annotated[UserName | None, Query(description="Whose; one's own.")] = None,
) -> Listing[Token]:
    """One's tokens; for platform administrators, those of any user."""
    user = user or caller.user
    if user != caller.user:
        caller.must_administer()
    rows, following = desk.tokens.page(user, page.limit, page.cursor, page.search)
    return page.listing([_token(row) for row in rows], following)


@router.post("/tokens", status_code=201)
def create_token(
    wanted: TokenRequest, caller: CallerDep, desk: DeskDep, request: Request
) -> NewToken:
    """Make a token. Its scopes do not exceed what its maker may do; sessions only."""
    _session(request)
    over = exceeding(wanted.scopes, caller)
    if over is not None:
        raise ConsoleError(403, "scope_exceeds_creator", f"The scope {over} is more than you have.")
    expires = None if wanted.expires is None else round(wanted.expires.timestamp(), 3)
    if expires is not None and expires <= desk.tokens.clock():
        raise ConsoleError(422, "invalid", "`expires` has passed.")
    row, token = desk.tokens.create(
        actor_of(caller), caller.user, wanted.name, wanted.scopes, expires
    )
    return NewToken(**_token(row).model_dump(), token=token)


@router.delete("/tokens/{id}", status_code=204)
def delete_token(id: Id, caller: CallerDep, desk: DeskDep) -> None:
    """Revoke a token: one's own; for platform administrators, any."""
    desk.tokens.delete(actor_of(caller), id, of=None if caller.admin else caller.user)


def _count_attempt(desk: Desk, user: str, source: str) -> None:
    """Refuse a try of a password where too many have failed."""
    wait = desk.throttle.begin(user, source)
    if wait > 0:
        text = "Too many attempts have failed. Try again later."
        raise ConsoleError(429, "too_many_attempts", text, {"retry-after": str(math.ceil(wait))})


def _session(request: Request) -> str:
    """The secret of the session. Refuses callers with a token: a token makes no other."""
    session: str = getattr(request.state, "session", "")
    if not session:
        raise ConsoleError(403, "session_required", "This needs a login, not a token.")
    return session


def _token(row: Any) -> Token:
    return Token(**{**row, "scopes": row["scopes"].split()})
