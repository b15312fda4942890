"""`tidegate db | apply | export | audit | secrets`."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tidegate.api.store import Actor, Entry

from .applying import Options, apply, export
from .backup import backup, restore
from .crypto import Keyring, new_key
from .document import parse, render
from .errors import StoreError
from .kinds import PLATFORM, TEAM, Scope
from .schema import Schema
from .specs import moment
from .store import Store

if TYPE_CHECKING:
    from .plugin import StoreSql

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
EXPORT_KEY = "TIDEGATE_EXPORT_KEY"


def add_commands(app: typer.Typer, addon: StoreSql) -> None:
    """Add the verbs, working on the store of `addon`."""
    db = typer.Typer(help="The store's database.", no_args_is_help=True)
    app.add_typer(db, name="db")
    _add_schema(db, addon)
    _add_backup(db, addon)
    _add_apply(app, addon)
    _add_export(app, addon)
    audit = typer.Typer(help="Who changed what, and when.", no_args_is_help=True)
    app.add_typer(audit, name="audit")
    _add_audit(audit, addon)
    secrets = typer.Typer(
        help="The master key that secrets are sealed under.", no_args_is_help=True
    )
    app.add_typer(secrets, name="secrets")
    _add_secrets(secrets, addon)


def _add_schema(app: typer.Typer, addon: StoreSql) -> None:
    @app.command()
    def status(as_json: Json = False) -> None:
        """Say which schemas the database has, and which this program. Exit 1: not the same."""
        with _failing():
            store = addon.store
            store.database.make_private()
            with store.database.read() as connection:
                found = {one.name: one.current(connection) for one in addon.schemas}
            heads = {one.name: one.head for one in addon.schemas}
            told: dict[str, Any] = {
                "schemas": {n: {"database": v, "program": heads[n]} for n, v in found.items()}
            }
            if found == heads:
                told["revision"] = store.revision()
        if as_json:
            _print_json(told)
        else:
            for name, version in found.items():
                typer.echo(f"{name:20}{version or 'none'} (program: {heads[name]})")
            typer.echo(f"{'revision':20}{told.get('revision', 'none')}")
        if found != heads:
            raise typer.Exit(1)

    @app.command()
    def upgrade() -> None:
        """Bring the schemas up to date. What was before is backed up first."""
        with _failing():
            addon.prepare()
        for one in addon.schemas:
            typer.echo(f"the schema of {one.name} is {one.head}", err=True)


def _add_backup(app: typer.Typer, addon: StoreSql) -> None:
    @app.command("backup")
    def make(
        file: Annotated[Path, typer.Argument(help="Replaced if it is there.")],
    ) -> None:
        """Write the whole store to a file, in a form that any database can restore.

        Secrets stay sealed in it: keep the master key elsewhere.
        """
        with _failing(), addon.store.database.read() as connection:
            count = backup(connection, file)
        typer.echo(f"{count} rows in {file}", err=True)

    @app.command("restore")
    def put_back(
        file: Annotated[Path, typer.Argument(help="What `tidegate db backup` wrote.")],
        yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    ) -> None:
        """Put a backup in the place of all that is in the store."""
        if not yes:
            typer.confirm("All that is in the store now is lost. Go on?", abort=True)
        with _failing():
            count = restored(addon.store, file, addon.schemas)
        typer.echo(f"{count} rows from {file}", err=True)


def restored(store: Store, file: Path, schemas: Sequence[Schema]) -> int:
    """Restore a backup, note it in the audit, begin a new anchor; how many rows it has."""
    store.database.make_private()
    with store.database.write() as connection:
        count = restore(connection, file, schemas)
        if not store.vault.unlock(connection):
            raise StoreError("backup_invalid", f"{file} holds no store")
    with store.change(actor()) as change:
        change.entries.append(Entry("restore store", file.name, after={"rows": count}))
    with store.database.read() as connection:
        store.anchor.move(connection, anew=True)
    return count


def _add_apply(app: typer.Typer, addon: StoreSql) -> None:
    @app.command("apply")
    def make_so(
        file: Annotated[Path, typer.Option("-f", "--file", help="The file; `-`: standard input.")],
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing.")] = False,
        prune: Annotated[
            bool, typer.Option("--prune", help="Remove what the file says nothing of.")
        ] = False,
        as_json: Json = False,
    ) -> None:
        """Make the platform as a file says: all of it, or nothing.

        A section that is left out is left as it is. Sealed secrets are opened with the key in
        TIDEGATE_EXPORT_KEY.
        """
        with _failing():
            text = sys.stdin.read() if str(file) == "-" else file.read_text()
            options = Options(prune=prune, dry_run=dry_run, keyring=_export_key())
            changes = apply(addon.open(), actor(), parse(text, os.environ), options)
        if as_json:
            _print_json([{"action": c.action, "target": c.target, "before": c.before,
                          "after": c.after} for c in changes])  # fmt: skip
            return
        for change in changes:
            for line in difference(change):
                typer.echo(line)
        made = f"{len(changes)} change{'s' if len(changes) > 1 else ''}"
        verb = "would be made" if dry_run else "made"
        typer.echo(f"{made} {verb}" if changes else "nothing to change", err=True)


def difference(change: Entry) -> Iterator[str]:
    """A change as people read it."""
    verb, _, kind = change.action.partition(" ")
    mark = {"create": "+", "delete": "-", "update": "~"}.get(verb, " ")
    yield f"{mark} {kind} {change.target}"
    if verb == "delete":
        return
    for name, value in (change.after or {}).items():
        if verb == "create" and value in (None, "", False, []):
            continue
        before = f"{json.dumps((change.before or {}).get(name))} -> " if verb == "update" else ""
        yield f"    {name}: {before}{json.dumps(value, ensure_ascii=False)}"


def _add_export(app: typer.Typer, addon: StoreSql) -> None:
    @app.command("export")
    def give(
        secrets: Annotated[
            bool, typer.Option("--secrets", help="With the providers' secrets, sealed anew.")
        ] = False,
    ) -> None:
        """Print the platform as a file that `tidegate apply` takes.

        Secrets are left out. With `--secrets` they are in it, sealed under the key in
        TIDEGATE_EXPORT_KEY (`tidegate secrets new` makes one).
        """
        with _failing():
            keyring = _export_key() if secrets else None
            if secrets and keyring is None:
                _fail(f"put a key into {EXPORT_KEY}: `tidegate secrets new` makes one")
            typer.echo(render(export(addon.open(), keyring)), nl=False)


def _add_audit(app: typer.Typer, addon: StoreSql) -> None:
    @app.command("list")
    def show(
        team: Annotated[str, typer.Option(help="Only changes of this team.")] = "",
        limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
        before: Annotated[
            int | None, typer.Option(min=1, help="Only entries before this one.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """List changes, the newest first."""
        with _failing():
            store = addon.open()
            scope = Scope.of(store.find(PLATFORM, TEAM, name=team)["id"]) if team else PLATFORM
            after = "" if before is None else str(before)
            rows = store.audit(scope, after=after, limit=limit).items
        for row in rows:
            if as_json:
                _print_json(row)
                continue
            at = f"{moment(row['at']):%Y-%m-%d %H:%M:%S}"
            source = f" from {row['source']}" if row["source"] else ""
            what = f"{row['action']} {row['target']}"
            typer.echo(f"{row['seq']:>6} {at} {row['actor']}{source}: {what}")

    @app.command()
    def verify() -> None:
        """Check the chain from its first entry on. Exit 1: it is broken, and where."""
        with _failing():
            verdict = addon.open().verify()
        if verdict.bad is not None:
            _fail(f"entry {verdict.bad} {verdict.reason}")
        typer.echo(f"{verdict.good} entries, as they were written", err=True)


def _add_secrets(app: typer.Typer, addon: StoreSql) -> None:
    @app.command()
    def new() -> None:
        """Print a fresh key, for `master_key` or TIDEGATE_EXPORT_KEY."""
        typer.echo(new_key())

    @app.command()
    def rotate(
        given: Annotated[
            bool, typer.Option("--given", help="Use the first of the keys in the configuration.")
        ] = False,
    ) -> None:
        """Make a new master key, and wrap all secrets under it. Running nodes go on.

        It may be stopped at any time and begun again: the old key is forgotten last.
        """
        with _failing():
            store = addon.open()
            if not given:
                store.vault.add_key(new_key())
            with store.change(actor()) as change:
                count = store.vault.rewrap(change.connection)
                change.entries.append(Entry("rotate secrets", f"{count} secrets"))
            store.vault.drop_old_keys()
        typer.echo(f"{count} secrets are under the new key", err=True)


def actor() -> Actor:
    """Who runs this command."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Actor(f"cli:{user}", socket.gethostname())


def _export_key() -> Keyring | None:
    text = os.environ.get(EXPORT_KEY)
    return Keyring.parse(text) if text else None


@contextmanager
def _failing() -> Iterator[None]:
    """What goes wrong is said on standard error; exit 1."""
    try:
        yield
    except StoreError as error:
        _fail(f"{error.code}: {error}")
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value))


def _fail(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(1)
