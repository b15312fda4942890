"""`tidegate keys …`: make, list and revoke keys; hash one for `addons.toml`."""

from __future__ import annotations

import json
import sys
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tidegate.api.keys import new_key

from .keys import hash_key
from .store import KeyFileError

if TYPE_CHECKING:
    from .plugin import AuthKey

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def commands(addon: AuthKey) -> typer.Typer:
    """The verbs, working on the files of `addon`."""
    app = typer.Typer(help="API keys.", no_args_is_help=True)
    _add_create(app, addon)
    _add_list(app, addon)
    _add_revoke(app, addon)

    @app.command()
    def new() -> None:
        """Print a fresh key that is stored nowhere: for `key` in the platform's file."""
        typer.echo(new_key())

    @app.command("hash")
    def hash_stdin() -> None:
        """Read a key from standard input, print its hash for `keys` in addons.toml."""
        key = sys.stdin.readline().strip()
        if not key:
            fail("no key on standard input")
        typer.echo(hash_key(addon.pepper, key))

    return app


def _add_create(app: typer.Typer, addon: AuthKey) -> None:
    @app.command()
    def create(
        name: Annotated[str, typer.Argument(help="Who holds it; unique in its team.")],
        team: Annotated[str, typer.Option(help="The team it belongs to.")] = "",
        expires: Annotated[str, typer.Option(help="2027-01-31 or 2027-01-31T12:00:00Z.")] = "",
        as_json: Json = False,
    ) -> None:
        """Make a key. It is shown once: only its hash is stored."""
        try:
            until = parse_expiry(expires) if expires else None
            key = addon.create(name, team, until)
        except (ValueError, KeyFileError, OSError) as error:
            fail(str(error))
        if as_json:
            print_json({"name": name, "team": team, "key": key, "expires": expires or None})
        else:
            typer.echo(key)
            typer.echo("Keep it: it is not shown again.", err=True)


def _add_list(app: typer.Typer, addon: AuthKey) -> None:
    @app.command("list")
    def list_keys(as_json: Json = False) -> None:
        """List the keys of the configuration and of the key file."""
        try:
            rows = listing(addon)
        except KeyFileError as error:
            fail(str(error))
        if as_json:
            print_json({"keys": rows})
            return
        for row in rows:
            until = f"until {row['expires']}" if row["expires"] else "no end"
            who = f"{row['team']}/{row['name']}" if row["team"] else row["name"]
            typer.echo(f"{who:32} {row['prefix'] or '-':10} {row['source']:8} {until}")
        if not rows:
            typer.echo("There are no keys. Make one: tidegate keys create NAME", err=True)


def _add_revoke(app: typer.Typer, addon: AuthKey) -> None:
    @app.command()
    def revoke(
        name: Annotated[str, typer.Argument(help="NAME, or TEAM/NAME.")],
    ) -> None:
        """Revoke a key of the key file. Running nodes refuse it within two seconds."""
        try:
            addon.revoke(name)
        except KeyError:
            fail(f'there is no key named "{name}" in {addon.file.path}')
        except (KeyFileError, OSError) as error:
            fail(str(error))
        typer.echo(f"revoked {name}", err=True)


def listing(addon: AuthKey) -> list[dict[str, Any]]:
    """All keys, without their hashes."""
    rows = [
        {
            "name": entry.name,
            "team": entry.team,
            "prefix": "",
            "source": "config",
            "created": None,
            "expires": entry.expires.isoformat() if entry.expires else None,
        }
        for entry in addon.config.keys
    ]
    rows += [
        {
            "name": key.name,
            "team": key.team,
            "prefix": key.prefix,
            "source": "file",
            "created": key.created.isoformat(),
            "expires": key.expires.isoformat() if key.expires else None,
        }
        for key in addon.file.read()
    ]
    return rows


def parse_expiry(text: str) -> datetime | date:
    """A date, or a date and time. ValueError says what to write."""
    try:
        return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a date: write 2027-01-31") from None


def print_json(value: object) -> None:
    """One line that tools can read."""
    typer.echo(json.dumps(value))


def fail(message: str) -> NoReturn:
    """Say it on standard error, exit 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)
