"""`tidegate console`: for an operator who can't log in. He works on the store itself."""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError

from tidegate.api.store import Actor, StoreError

if TYPE_CHECKING:
    from .plugin import ConsoleApi

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Who = Annotated[str, typer.Argument(help="The user's name.")]


def add_verbs(app: typer.Typer, addon: ConsoleApi) -> None:
    """Add the verbs, working on the store that `addon` finds."""
    console = typer.Typer(
        help="Users of the console, their passwords and tokens.", no_args_is_help=True
    )
    app.add_typer(console, name="console")

    @console.command("users")
    def users(as_json: Json = False) -> None:
        """List those who have an account."""
        _list(addon, as_json=as_json)

    @console.command("password")
    def password(
        user: Who,
        admin: Annotated[
            bool,
            typer.Option("--admin", help="Make the user where there is none, enabled, and a "
                         "platform administrator."),
        ] = False,
        as_json: Json = False,
    ) -> None:  # fmt: skip
        """Give a user a new password, shown once. His sessions end."""
        _reset(addon, user, admin=admin, as_json=as_json)

    @console.command("token")
    def token(
        user: Who,
        scope: Annotated[
            list[str], typer.Option(help="platform, ROLE or ROLE:TEAM_ID. May be repeated.")
        ],
        name: Annotated[str, typer.Option(help="What it is for.")] = "made by tidegate console",
        days: Annotated[float, typer.Option(min=0, help="Until it expires; 0: never.")] = 1.0,
        as_json: Json = False,
    ) -> None:
        """Make a token for a user, shown once. It gives no more than the user may."""
        _make_token(addon, user, scope, name, days, as_json=as_json)


def _list(addon: ConsoleApi, *, as_json: bool) -> None:
    from .users import Users

    with _failing():
        store = addon.context.platform_store()
        rows: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            found, cursor = Users(store).page(200, cursor, "")
            rows += [{**row, "admin": store.roles(row["name"]).admin} for row in found]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        marks = [mark for mark in ("admin", "disabled") if row[mark]]
        typer.echo("  ".join(filter(None, [row["name"], row["title"], *marks])))


def _reset(addon: ConsoleApi, user: str, *, admin: bool, as_json: bool) -> None:
    from .users import UserName, Users

    with _failing():
        TypeAdapter(UserName).validate_python(user)
        users = Users(addon.context.platform_store())
        made = users.rescue(_actor(), user) if admin else users.reset_password(_actor(), user)
    typer.echo(json.dumps({"user": user, "password": made}) if as_json else made)


def _make_token(
    addon: ConsoleApi, user: str, scopes: list[str], name: str, days: float, *, as_json: bool
) -> None:
    from .credentials import Tokens
    from .scopes import Scope

    with _failing():
        for scope in scopes:
            TypeAdapter(Scope).validate_python(scope)
        tokens = Tokens(addon.context.platform_store())
        expires = round(time.time() + days * 86400, 3) if days else None
        row, made = tokens.create(_actor(), user, name, scopes, expires)
    told = {**row, "scopes": scopes, "token": made}
    typer.echo(json.dumps(told) if as_json else made)


def _actor() -> Actor:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return Actor(f"cli:{name}", socket.gethostname())


@contextmanager
def _failing() -> Iterator[None]:
    """What goes wrong is said on standard error; exit 1."""
    from tidegate.api.console import ConsoleError

    try:
        yield
    except (StoreError, ConsoleError) as error:
        typer.echo(f"error: {error.code}: {error}", err=True)
        raise typer.Exit(1) from None
    except ValidationError as error:
        typer.echo(f"error: invalid: {error.errors()[0]['msg']}", err=True)
        raise typer.Exit(1) from None
