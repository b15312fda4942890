"""`tidegate basic hash`: hash a password for `addons.toml`."""

from __future__ import annotations

import getpass
import sys

import typer

from .passwords import MAX_LENGTH, hash_password


def commands() -> typer.Typer:
    """The verbs."""
    app = typer.Typer(help="Names and passwords.", no_args_is_help=True)

    @app.callback()
    def group() -> None:
        """Names and passwords."""

    @app.command("hash")
    def hash_stdin() -> None:
        """Read a password from the terminal or standard input, print its hash for `users`."""
        if sys.stdin.isatty():
            password = getpass.getpass("Password: ")
        else:
            password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            typer.echo("no password given", err=True)
            raise typer.Exit(1)
        if len(password.encode("utf-8", "surrogateescape")) > MAX_LENGTH // 2:
            typer.echo(f"a password has at most {MAX_LENGTH // 2} bytes", err=True)
            raise typer.Exit(1)
        typer.echo(hash_password(password))

    return app
