"""What the verbs print: a screen for people, or JSON for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.table import Table

from tidegate.api.edit import Edit

from .catalog import Catalog
from .known import Known, models_of
from .known import known as known_providers
from .listing import entries
from .trial import Outcome

if TYPE_CHECKING:
    from .plugin import AiProviders


def put_json(value: object) -> None:
    """One JSON value on a line."""
    print(orjson.dumps(value).decode())


def put_table(columns: Sequence[str], rows: Iterable[Sequence[str]], none: str) -> None:
    """A table without lines; `none` where it is empty."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    console.print(table if table.row_count else none)


def has(only: str, *texts: str) -> bool:
    """Whether one of the texts has `only` in it, whatever the case."""
    return any(only.lower() in text.lower() for text in texts)


# -- lists --------------------------------------------------------------------------------------


def providers(addon: AiProviders, only: str, *, as_json: bool) -> None:
    """The providers: those that are configured, and those of teams."""
    rows = _rows(addon.catalog, addon.source.off, "")
    for team, held in sorted(addon.stored().items()):
        rows += _rows(held.own, held.off, team)
    shown = [
        row
        for row in rows
        if has(only, row["name"], row["team"], row.get("title", ""), row.get("url", ""))
    ]
    if as_json:
        put_json(shown)
        return
    put_table(
        ("provider", "of", "state", "keys", "models", "url"),
        (
            (
                row["name"],
                row["team"] or "everyone",
                row["state"],
                ", ".join(row.get("keys", ())) or "-",
                f"{row['models']} listed" if row.get("models") else "any" if "url" in row else "-",
                row.get("url", "-"),
            )
            for row in shown
        ),
        "No provider is configured. `tidegate providers known` lists those with a name.",
    )


def _rows(catalog: Catalog, off: Mapping[str, str], team: str) -> list[dict[str, Any]]:
    """Those that are on, then those that are not; `team`: whose they are, and the store has."""
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "team": team,
            "title": provider.title,
            "state": "on",
            "keys": [key.label for key in provider.keys],
            "models": len(provider.models),
            "open": provider.open,
            "formats": list(provider.formats),
            "url": provider.url,
        }
        for name, provider in catalog.providers.items()
    ]
    return rows + [
        {"name": name, "team": team, "state": f"off: {why}"} for name, why in off.items()
    ]


def known(only: str, *, as_json: bool) -> None:
    """The providers of the table."""
    rows = [one for one in known_providers().values() if has(only, one.name, one.title, one.url)]
    if as_json:
        more = [{"models": len(models_of(one.name)), "options": one.options} for one in rows]
        put_json([{**asdict(one), **extra} for one, extra in zip(rows, more, strict=True)])
        return
    put_table(
        ("name", "provider", "key in", "base URL"),
        ((one.name, one.title, one.env or "-", one.url) for one in rows),
        f"No known provider has {only!r} in its name.",
    )


def models(addon: AiProviders, only: str, *, as_json: bool) -> None:
    """The models that are listed, and aliases."""
    rows = [(name, model) for name, model in entries(addon.catalog) if has(only, name)]
    if as_json:
        put_json(
            [
                {
                    "id": name,
                    "model": model.id,
                    "kind": model.kind,
                    "context": model.context,
                    "max_output": model.max_output,
                    "capabilities": None
                    if model.capabilities is None
                    else sorted(model.capabilities),
                }
                for name, model in rows
            ]
        )
        return
    put_table(
        ("model", "kind", "context", "can"),
        (
            (
                name if name == model.id else f"{name} = {model.id}",
                model.kind,
                f"{model.context:,}" if model.context else "-",
                ", ".join(sorted(model.capabilities or ())) or "-",
            )
            for name, model in rows
        ),
        "No model is listed.",
    )


# -- changes ------------------------------------------------------------------------------------


def said(outcome: Outcome) -> str:
    """A test call in a line."""
    if outcome.ok:
        tokens = f" ({outcome.input} + {outcome.output} tokens)" if outcome.output else ""
        return f"ok in {outcome.seconds * 1000:.0f} ms: {outcome.text}{tokens}"
    status = f"HTTP {outcome.status}: " if outcome.status else ""
    return f"failed: {status}{outcome.text}"


def added(
    edit: Edit,
    entry: dict[str, Any],
    row: Known,
    outcome: Outcome | None,
    *,
    as_json: bool,
    dry_run: bool,
) -> None:
    """A provider that was added."""
    if as_json:
        put_json(
            {
                "name": entry["name"],
                "file": str(edit.file),
                "diff": edit.diff,
                "written": bool(edit.diff) and not dry_run,
                "test": None if outcome is None else asdict(outcome),
            }
        )
        return
    if dry_run:
        print(edit.diff or f"{edit.file}: {entry['name']} is so already", end="")
        return
    rows = [
        ("provider", f"{row.title}, {entry.get('url') or row.url}"),
        ("key", _key_of(entry)),
    ]
    if outcome is not None:
        rows += [("model", outcome.model), ("test call", said(outcome))]
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2))
    for one in rows:
        table.add_row("", *one)
    console = Console(highlight=False, markup=False)
    console.print(f"{edit.file}: {entry['name']} is {'added' if edit.diff else 'there already'}.\n")
    console.print(table)
    if outcome is not None and outcome.ok:
        messages = [{"role": "user", "content": "Hello!"}]
        body = orjson.dumps({"model": outcome.model, "messages": messages}).decode()
        print(
            "\nCall it, where `tidegate up` runs:\n\n"
            "  curl http://127.0.0.1:8080/v1/chat/completions \\\n"
            '    -H "Authorization: Bearer $TIDEGATE_API_KEY" \\\n'
            '    -H "Content-Type: application/json" \\\n'
            f"    -d '{body}'"
        )


def _key_of(entry: dict[str, Any]) -> str:
    keys = entry.get("keys", ())
    if not keys:
        return "none"
    first = keys[0]
    if isinstance(first, dict):
        return f"in {first['file']}"
    return f"in {first}: `tidegate up` must be started with it"


def removed(edit: Edit, name: str, *, as_json: bool, dry_run: bool) -> None:
    """A provider that was taken out."""
    if as_json:
        put_json({"name": name, "file": str(edit.file), "diff": edit.diff, "written": not dry_run})
    else:
        print(edit.diff, end="")


def tested(outcome: Outcome, *, as_json: bool) -> None:
    """A test call."""
    if as_json:
        put_json(asdict(outcome))
    else:
        print(f"{outcome.model}: {said(outcome)}")
