"""Routes of users, for platform administrators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, StringConstraints

from tidegate.api.console import Administrator, IfMatch, Listing, PageDep, etag, problems

from .desk import DeskDep, actor_of
from .users import Password, UserName

router = APIRouter(prefix="/users")

Name = Annotated[UserName, Path(description="The user's name.")]
Title = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class UserRequest(_Body):
    """A user who is to be made. Without a password, one is made and told."""

    name: UserName
    title: Title = ""
    password: Password | None = None


class UserChange(_Body):
    """What a user is to be. Who is disabled can't log in, and his tokens don't work."""

    title: Title = ""
    disabled: bool = False


class User(BaseModel):
    """Someone who can log in."""

    name: str
    title: str
    disabled: bool
    revision: int
    created: datetime
    updated: datetime


class NewUser(User):
    """A user who was just made."""

    password: str | None
    """The one that was made for him. It is shown this once."""


class NewPassword(BaseModel):
    """A password that was made. It is shown this once."""

    password: str


@router.get("")
def list_users(caller: Administrator, desk: DeskDep, page: PageDep) -> Listing[User]:
    """All who have an account, by name."""
    rows, following = desk.users.page(page.limit, page.cursor, page.search)
    return page.listing([User(**row) for row in rows], following)


@router.post("", status_code=201, responses=problems(409))
def create_user(
    wanted: UserRequest, caller: Administrator, desk: DeskDep, response: Response
) -> NewUser:
    """Make an account. What its user may do is said by the teams in which he is a member."""
    actor = actor_of(caller)
    row, made = desk.users.create(actor, wanted.name, wanted.title, wanted.password)
    response.headers["location"] = f"/api/v1/users/{wanted.name}"
    return NewUser(**_tagged(row, response), password=made)


@router.get("/{name}")
def get_user(name: Name, caller: Administrator, desk: DeskDep, response: Response) -> User:
    """One account."""
    return User(**_tagged(desk.users.get(name), response))


@router.put("/{name}", responses=problems(409))
def update_user(
    name: Name,
    change: UserChange,
    seen: IfMatch,
    caller: Administrator,
    desk: DeskDep,
    response: Response,
) -> User:
    """Change an account."""
    actor = actor_of(caller)
    row = desk.users.update(actor, name, change.title, change.disabled, seen)
    return User(**_tagged(row, response))


@router.delete("/{name}", status_code=204, responses=problems(409))
def delete_user(name: Name, seen: IfMatch, caller: Administrator, desk: DeskDep) -> None:
    """Remove an account, its sessions and its tokens. Memberships of the name stay."""
    desk.users.delete(actor_of(caller), name, seen)


@router.post("/{name}/password")
def reset_password(name: Name, caller: Administrator, desk: DeskDep) -> NewPassword:
    """Give a user a new password; his sessions end."""
    return NewPassword(password=desk.users.reset_password(actor_of(caller), name))


def _tagged(row: Any, response: Response) -> dict[str, Any]:
    response.headers["etag"] = etag(row["revision"])
    return dict(row)
