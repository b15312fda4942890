"""The verbs, as `tidegate` runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from sqlalchemy import delete
from tidegate_store_sql import tables
from tidegate_store_sql.commands import add_commands
from tidegate_store_sql.kinds import PLATFORM, TEAM
from tidegate_store_sql.schema import OWN
from tidegate_store_sql.specs import TeamSpec
from typer.testing import CliRunner

from .conftest import ADA, make_plugin

FILE = '[[team]]\nname = "red"\ntitle = "Red"\n'


@pytest.fixture
def run(url, tmp_path, monkeypatch):
    """Runs one command, with a fresh addon as a process has."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str, exit: int = 0, stdin: str = ""):
        addon = make_plugin(url, tmp_path)
        app = typer.Typer()
        add_commands(app, addon)
        result = CliRunner().invoke(app, arguments, input=stdin)
        addon.store.database.close()
        assert result.exit_code == exit, result.output
        return result

    return command


def test_a_new_database_is_upgraded_and_says_so(run):
    told = json.loads(run("db", "status", "--json", exit=1).stdout)
    assert told == {"schemas": {"store-sql": {"database": None, "program": OWN.head}}}
    run("db", "upgrade")
    told = json.loads(run("db", "status", "--json").stdout)
    assert told["schemas"]["store-sql"]["database"] == OWN.head
    assert told["revision"] == 0


def test_apply_shows_what_changes_and_export_gives_it_back(run):
    Path("platform.toml").write_text(FILE)
    dry = run("apply", "-f", "platform.toml", "--dry-run")
    assert dry.stdout == '+ team red\n    name: "red"\n    title: "Red"\n'
    assert "1 change would be made" in dry.stderr
    assert run("export").stdout == ""
    run("apply", "-f", "platform.toml")
    assert run("export").stdout == FILE
    assert "nothing to change" in run("apply", "-f", "-", stdin=FILE).stderr
    changed = run("apply", "-f", "-", "--json", stdin=FILE.replace("Red", "Crimson"))
    assert json.loads(changed.stdout) == [
        {"action": "update team", "target": "red", "before": {"title": "Red"},
         "after": {"title": "Crimson"}}
    ]  # fmt: skip


def test_a_bad_file_is_told_with_its_place(run):
    assert "invalid: team.0.name" in run("apply", "-f", "-", stdin="[[team]]", exit=1).stderr
    assert "nowhere.toml" in run("apply", "-f", "nowhere.toml", exit=1).stderr


def test_the_audit_is_listed_and_verified(run, url, tmp_path):
    run("apply", "-f", "-", stdin=FILE + '[[team]]\nname = "blue"\n')
    rows = [json.loads(x) for x in run("audit", "list", "--json").stdout.splitlines()]
    assert [(row["seq"], row["action"], row["target"]) for row in rows] == [
        (2, "create team", "blue"), (1, "create team", "red"),
    ]  # fmt: skip
    assert rows[0]["actor"].startswith("cli:")
    assert "create team red" in run("audit", "list", "--team", "red").stdout
    assert "2 entries" in run("audit", "verify").stderr
    database = make_plugin(url, tmp_path).store.database
    with database.write() as connection:
        connection.execute(delete(tables.audit).where(tables.audit.c.seq == 2))
    database.close()
    assert "entry 2 is missing" in run("audit", "verify", exit=1).stderr


def test_a_backup_is_made_and_restored(run, url, tmp_path):
    run("apply", "-f", "-", stdin=FILE)
    run("db", "backup", "store.gz")
    run("apply", "-f", "-", "--prune", stdin='[[team]]\nname = "blue"\n')
    assert run("db", "restore", "store.gz", stdin="n\n", exit=1)
    assert "blue" in run("export").stdout
    run("db", "restore", "store.gz", "--yes")
    assert run("export").stdout == FILE
    run("audit", "verify")
    assert "not there" in run("db", "restore", "--yes", "nothing.gz", exit=1).stderr


def test_the_master_key_is_rotated(run, tmp_path):
    run("apply", "-f", "-", stdin=FILE)
    file = tmp_path / "store-sql/master.key"
    before = file.read_text()
    assert "2 secrets" in run("secrets", "rotate").stderr
    assert file.read_text() != before
    assert len(file.read_text().split()) == 1
    assert run("export").stdout == FILE
    run("audit", "verify")


def test_secrets_leave_only_under_a_key_that_is_given(run, monkeypatch):
    provider = '[[team.provider]]\nname = "p"\nkind = "openai"\nurl = "https://x.test"\n'
    secret = '[[team.provider.key]]\nname = "k"\nsecret = "sk-canary"\n'
    run("apply", "-f", "-", stdin=FILE + provider + secret)
    assert "TIDEGATE_EXPORT_KEY" in run("export", "--secrets", exit=1).stderr
    monkeypatch.setenv("TIDEGATE_EXPORT_KEY", run("secrets", "new").stdout.strip())
    sealed = run("export", "--secrets").stdout
    assert "sealed = " in sealed
    assert "canary" not in sealed
    assert "nothing to change" in run("apply", "-f", "-", stdin=sealed).stderr


def test_a_store_that_can_not_be_had_is_told(tmp_path):
    url = "postgresql+psycopg://tidegate:canary@127.0.0.1:1/x"
    app = typer.Typer()
    add_commands(app, make_plugin(url, tmp_path))
    result = CliRunner().invoke(app, ["db", "upgrade"])
    assert result.exit_code == 1
    assert result.stderr.startswith("storage_unavailable: ")
    assert "canary" not in result.output


def test_a_key_from_the_environment_is_rotated_by_its_owner(url, tmp_path):
    first = make_plugin(url, tmp_path, master_key="A" * 43 + "=")
    first.open().create(ADA, PLATFORM, TeamSpec(name="red"))
    both = make_plugin(url, tmp_path, master_key=f"{'B' * 42}A=,{'A' * 43}=")
    app = typer.Typer()
    add_commands(app, both)
    assert "given by the configuration" in CliRunner().invoke(app, ["secrets", "rotate"]).stderr
    assert CliRunner().invoke(app, ["secrets", "rotate", "--given"]).exit_code == 0
    only = make_plugin(url, tmp_path, master_key=f"{'B' * 42}A=").open()
    assert [row["name"] for row in only.page(PLATFORM, TEAM).items] == ["red"]
