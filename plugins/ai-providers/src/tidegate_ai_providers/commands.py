"""`tidegate providers …`: add, list, test, remove, and what is known."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tidegate.api.store import StoreError

from . import screens
from .catalog import Catalog
from .config import AiProvidersConfig, ProviderConfig, reason_of
from .editing import with_provider, without_provider
from .known import Known, known
from .source import profile_of
from .trial import Outcome, first_offered, model_to_try, try_model

if TYPE_CHECKING:
    from .plugin import AiProviders

FILE: Final = "addons.toml"
Name = Annotated[str, typer.Argument(help="The provider's name.")]
Config = Annotated[
    Path | None,
    typer.Option(envvar="TIDEGATE_CONFIG", help="The configuration. Default: ./addons.toml."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Filter = Annotated[str, typer.Option("--filter", help="Only those with this text in them.")]
Url = Annotated[str, typer.Option(help="The base URL, where it is not the usual one.")]
Env = Annotated[str, typer.Option("--key-env", help="The variable that holds the key.")]
Stdin = Annotated[bool, typer.Option("--key-stdin", help="Read the key, and keep it in a file.")]
Kind = Annotated[str, typer.Option(help="How it is spoken to: anthropic, gemini, ollama, …")]
Like = Annotated[str, typer.Option(help="The known provider that it is, under another name.")]
Models = Annotated[list[str] | None, typer.Option("--model", help="Serve only these models.")]
Options = Annotated[
    list[str] | None, typer.Option("--set", help="A further option: region=eu-central-1.")
]
NoTest = Annotated[bool, typer.Option("--no-test", help="Make no test call.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the change, write nothing.")]


def commands(addon: AiProviders) -> typer.Typer:
    """The verbs for one addon."""
    app = typer.Typer(no_args_is_help=True, help="Providers of models: add, list, test, remove.")
    _add_changes(app, addon)
    _add_views(app, addon)
    return app


def _add_changes(app: typer.Typer, addon: AiProviders) -> None:
    @app.command(
        epilog="Examples: tidegate providers add mistral · tidegate providers add work "
        "--url http://127.0.0.1:8000/v1 · tidegate providers add openai --key-stdin"
    )
    def add(
        name: Name,
        key_env: Env = "",
        key_stdin: Stdin = False,
        url: Url = "",
        kind: Kind = "",
        like: Like = "",
        model: Models = None,
        option: Options = None,
        no_test: NoTest = False,
        dry_run: DryRun = False,
        config: Config = None,
        json: AsJson = False,
    ) -> None:
        """Add a provider to the configuration, and ask it something."""
        with plainly():
            given = {"name": name, "like": like, "kind": kind, "url": url, **_pairs(option)}
            entry: dict[str, Any] = {key: value for key, value in given.items() if value}
            row = profile_of(checked(entry))
            keep = (key_stdin or asks_for_key(row, key_env, url)) and not dry_run
            entry |= _keys(addon, name, row, key_env, url, keep)
            entry |= {"models": list(model)} if model else {}
            edit = with_provider(file_of(config), addon.context.name, entry)
            if not dry_run and edit.diff:
                edit.write()
        outcome = None if no_test or dry_run else tried(addon, entry, "")
        screens.added(edit, entry, row, outcome, as_json=json, dry_run=dry_run)
        raise typer.Exit(0 if outcome is None or outcome.ok else 1)

    @app.command(epilog="Example: tidegate providers remove work")
    def remove(
        name: Name, config: Config = None, dry_run: DryRun = False, json: AsJson = False
    ) -> None:
        """Take a provider out of the configuration."""
        with plainly():
            edit = without_provider(file_of(config), addon.context.name, name)
            if not dry_run:
                edit.write()
        screens.removed(edit, name, as_json=json, dry_run=dry_run)


def _add_views(app: typer.Typer, addon: AiProviders) -> None:
    @app.command("list", epilog="Example: tidegate providers list --json")
    def list_providers(only: Filter = "", json: AsJson = False) -> None:
        """List the providers, whose they are, and why those that are off are.

        Everyone's stand in the configuration; those of teams in the platform's store.
        """
        with plainly():
            screens.providers(addon, only, as_json=json)

    @app.command("known", epilog="Example: tidegate providers known --filter mistral")
    def list_known(only: Filter = "", json: AsJson = False) -> None:
        """List the providers that are known by name."""
        screens.known(only, as_json=json)

    @app.command("models", epilog="Example: tidegate providers models --filter haiku")
    def list_models(only: Filter = "", json: AsJson = False) -> None:
        """List the models of the configured providers, and the aliases."""
        screens.models(addon, only, as_json=json)

    @app.command(epilog="Example: tidegate providers test openai --model gpt-4o-mini")
    def test(
        name: Name,
        model: Annotated[str, typer.Option(help="The model to ask.")] = "",
        team: Annotated[str, typer.Option(help="Ask the provider of this team.")] = "",
        json: AsJson = False,
    ) -> None:
        """Ask a provider something."""
        with plainly():
            catalog, off = own_of(addon, team) if team else (addon.catalog, addon.source.off)
            outcome = ask(catalog, off, name, model)
        screens.tested(outcome, as_json=json)
        raise typer.Exit(0 if outcome.ok else 1)


@contextmanager
def plainly() -> Iterator[None]:
    """Say what is wrong on standard error, and exit with 2."""
    try:
        yield
    except (ValueError, OSError, StoreError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def own_of(addon: AiProviders, team: str) -> tuple[Catalog, Mapping[str, str]]:
    """The providers of a team, and why others are off. ValueError: it has none."""
    held = addon.stored().get(team)
    if held is None:
        raise ValueError(f"no team {team!r} has providers")
    return held.own, held.off


def ask(catalog: Catalog, off: Mapping[str, str], name: str, model: str) -> Outcome:
    """A test call to a provider. ValueError: there is none of that name that is on."""
    if name in off:
        raise ValueError(f"{name} is not on: {off[name]}")
    provider = catalog.providers.get(name)
    if provider is None:
        here = ", ".join(catalog.providers) or "none"
        raise ValueError(f"no provider is named {name!r}; here are: {here}")
    found = model_to_try(provider, example_of(provider.known), model) or first_offered(provider)
    return no_model(name) if found is None else try_model(catalog, found)


def tried(addon: AiProviders, entry: dict[str, Any], model: str) -> Outcome:
    """A test call to a provider that has just been written."""
    from .plugin import AiProviders

    name = entry["name"]
    expanded = {**entry, "keys": [_expanded(key) for key in entry.get("keys", ())]}
    try:
        config = AiProvidersConfig.model_validate({"providers": [expanded]})
        fresh = AiProviders(config, addon.context)
    except ValueError as error:
        return Outcome(name, False, None, 0.0, reason_of(error))
    off = fresh.source.off
    if name in off:
        return Outcome(name, False, None, 0.0, off[name])
    return ask(fresh.catalog, off, name, model)


def no_model(name: str) -> Outcome:
    """Nothing is known of what the provider has."""
    text = f"which model? `tidegate providers test {name} --model …`"
    return Outcome(name, False, None, 0.0, text)


def example_of(name: str) -> str:
    """The usual model for a test of a known provider; "": none."""
    return known()[name].example if name in known() else ""


def _expanded(key: Any) -> Any:
    """`${NAME}` replaced, as the configuration's reader does it."""
    if isinstance(key, str) and key.startswith("${"):
        return os.environ.get(key[2:-1].partition(":-")[0], "")
    return key


def asks_for_key(row: Known, key_env: str, url: str) -> bool:
    """Whether to ask for the key: it is needed, not in its variable, and somebody is there."""
    variable = key_env or row.env
    needed = bool(row.env) and row.kind not in ("vertex", "bedrock") and not url
    return needed and not os.environ.get(variable) and sys.stdin.isatty()


def _keys(
    addon: AiProviders, name: str, row: Known, key_env: str, url: str, ask: bool
) -> dict[str, Any]:
    """The fields of an entry that say where its key is."""
    if ask:
        return {"keys": [{"file": str(kept_key(addon, name))}]}
    variable = key_env or ("" if url else row.env)
    if not variable or row.kind in ("vertex", "bedrock"):
        return {}
    return {"if_env": variable, "keys": [f"${{{variable}}}"]}


def kept_key(addon: AiProviders, name: str) -> Path:
    """Read a key and put it into a file that only this user may read."""
    if sys.stdin.isatty():
        key = typer.prompt(f"The key of {name} (it is not shown)", hide_input=True)
    else:
        key = sys.stdin.readline()
    if not key.strip():
        raise ValueError("there is no key on standard input")
    folder = addon.context.state
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / f"{name}.key"
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(key.strip() + "\n")
    base = addon.context.base.resolve()
    resolved = file.resolve()
    return resolved.relative_to(base) if resolved.is_relative_to(base) else resolved


def file_of(config: Path | None) -> Path:
    """The configuration file. ValueError: there is none that could be changed."""
    file = config or Path(FILE)
    if not file.is_file():
        raise ValueError(f"there is no {file}: the built-in configuration can't be changed")
    return file


def checked(entry: dict[str, Any]) -> ProviderConfig:
    """An entry as the configuration takes it; ValueError says what is wrong, in one line."""
    try:
        return ProviderConfig.model_validate(entry)
    except ValueError as error:
        raise ValueError(reason_of(error)) from None


def _pairs(options: list[str] | None) -> dict[str, str]:
    pairs = {}
    for one in options or ():
        name, equals, value = one.partition("=")
        if not equals:
            raise ValueError(f"{one!r}: write --set NAME=VALUE")
        pairs[name] = value
    return pairs
