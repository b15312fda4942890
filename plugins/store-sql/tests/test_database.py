"""Schema, migrations, backups."""

from __future__ import annotations

import gzip
import json
import shutil

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select, text, update
from tidegate_store_sql import tables
from tidegate_store_sql.applying import export
from tidegate_store_sql.backup import backup
from tidegate_store_sql.commands import restored
from tidegate_store_sql.document import render
from tidegate_store_sql.errors import StoreError
from tidegate_store_sql.kinds import PLATFORM, TEAM
from tidegate_store_sql.schema import ENVIRONMENT, OWN
from tidegate_store_sql.specs import TeamSpec

from .conftest import ADA, make_plugin

NEXT = '''
"""Adds a column."""
import sqlalchemy as sa
from alembic import op
revision = "9001"
down_revision = "{before}"

def upgrade():
    op.add_column("store_sql_team", sa.Column("colour", sa.Text(), nullable=True))
'''


@pytest.fixture
def newer(monkeypatch, tmp_path):
    """The program of tomorrow, which has one more migration."""

    def become() -> None:
        folder = tmp_path / "migrations"
        shutil.copytree(OWN.folder, folder)
        (folder / "v9001_colour.py").write_text(NEXT.format(before=OWN.head))
        monkeypatch.setattr(OWN, "folder", folder)
        monkeypatch.setitem(vars(OWN), "versions", (*OWN.versions, "9001"))

    return become


def test_the_migrations_make_the_tables_that_the_program_knows(store):
    with store.database.read() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, kind, _: kind != "table" or name.endswith("version")
                  is False},
        )  # fmt: skip
        assert compare_metadata(context, tables.metadata) == []


def test_the_schema_of_the_program_is_that_of_its_newest_migration():
    scripts = ScriptDirectory(str(ENVIRONMENT), version_locations=[str(OWN.folder)])
    found = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(found)) == OWN.versions
    assert scripts.get_current_head() == OWN.head


def test_a_migration_backs_up_first_and_keeps_everything(store, shop, url, tmp_path, newer):
    before = render(export(store))
    newer()
    plugin = make_plugin(url, tmp_path)
    assert render(export(plugin.open())) == before
    with plugin.store.database.read() as connection:
        assert OWN.current(connection) == "9001"
        assert connection.execute(text("SELECT colour FROM store_sql_team")).first() == (None,)
    (file,) = plugin.backups.iterdir()
    assert f"schema-{OWN.versions[-2]}" in file.name
    assert plugin.open().verify().bad is None
    assert len(list(plugin.backups.iterdir())) == 1


def test_notes_of_before_policies_were_asked_are_asked_of_nothing(plugin):
    texts = {"a": "no personal data,\nplease", "b": 'method == "GET"', "c": ""}
    with plugin.store.database.write() as connection:
        OWN.migrate(connection, "0001")
        stamps = {"revision": 1, "created": 1.0, "updated": 1.0}
        team = {"id": "t", "name": "red", "title": "", **stamps}
        connection.execute(insert(tables.team).values(team))
        for id, said in texts.items():
            row = {"id": id, "team_id": "t", "name": id, "title": "", "text": said, **stamps}
            connection.execute(insert(tables.policy).values(row))
    (team,) = export(plugin.open()).team
    assert {policy.name: policy.text for policy in team.policy} == {
        "a": "false // no personal data, please", "b": 'method == "GET"', "c": "false // ",
    }  # fmt: skip
    assert {policy.services for policy in team.policy} == {()}


def test_a_newer_schema_is_refused_and_left_alone(store, url, tmp_path):
    with store.database.write() as connection:
        connection.execute(text("UPDATE store_sql_version SET version_num = '0999'"))
    with pytest.raises(StoreError) as error:
        make_plugin(url, tmp_path).open()
    assert error.value.code == "schema_newer"
    with store.database.read() as connection:
        version = connection.execute(text("SELECT version_num FROM store_sql_version")).scalar()
    assert version == "0999"


def test_what_was_restored_is_what_was_backed_up(store, shop, tmp_path):
    before, revision = render(export(store)), store.revision()
    with store.database.read() as connection:
        backup(connection, tmp_path / "b.gz")
    store.delete(ADA, PLATFORM, TEAM, shop.red)
    restored(store, tmp_path / "b.gz", [OWN])
    assert render(export(store)) == before
    assert store.secret(PLATFORM, shop.provider_key) == "sk-canary-1"
    assert store.revision() > revision + 1
    assert store.verify().bad is None
    assert store.audit(PLATFORM, limit=1).items[0]["action"] == "restore store"
    store.create(ADA, PLATFORM, TeamSpec(name="green"))


def test_a_backup_of_one_database_goes_into_the_other_kind(
    store, shop, url, tmp_path, request: pytest.FixtureRequest
):
    with store.database.read() as connection:
        backup(connection, tmp_path / "b.gz")
    other_url = f"sqlite:///{tmp_path}/other.db"
    if url.startswith("sqlite"):
        other_url = request.getfixturevalue("postgres").new()
    other = make_plugin(other_url, tmp_path).store  # the same state folder: the same master key
    restored(other, tmp_path / "b.gz", [OWN])
    assert render(export(other)) == render(export(store))
    assert other.secret(PLATFORM, shop.provider_key) == "sk-canary-1"
    assert other.vault.hash("x") == store.vault.hash("x")
    assert other.verify().bad is None
    other.database.close()


def test_a_backup_of_before_a_migration_is_restored_and_migrated(store, shop, tmp_path, newer):
    with store.database.read() as connection:
        backup(connection, tmp_path / "b.gz")
    before = render(export(store))
    newer()
    restored(store, tmp_path / "b.gz", [OWN])
    with store.database.read() as connection:
        assert OWN.current(connection) == "9001"
    assert render(export(store)) == before


def test_a_backup_holds_no_secret_and_is_private(store, shop, tmp_path):
    file = tmp_path / "b.gz"
    with store.database.read() as connection:
        backup(connection, file)
    content = gzip.decompress(file.read_bytes()).decode()
    for secret in ("canary", shop.secret_key, store.vault.pepper.hex()):
        assert secret not in content
    assert file.stat().st_mode & 0o077 == 0


def damaged(kind: str, content: bytes) -> bytes:
    lines = gzip.decompress(content).splitlines(keepends=True)
    head = json.loads(lines[0])
    return {
        "cut in the middle": content[: len(content) // 2],
        "without its end": gzip.compress(b"".join(lines[:-1])),
        "a row missing": gzip.compress(b"".join(lines[:3] + lines[4:])),
        "not ours": gzip.compress(b'{"format": "x"}\n'),
        "not gzip": b"x" * 100,
        "of a newer program": gzip.compress(
            json.dumps(head | {"schemas": {OWN.prefix: "0999"}}).encode()
            + b"\n"
            + b"".join(lines[1:])
        ),
    }[kind]


@pytest.mark.parametrize(
    "kind",
    ["cut in the middle", "without its end", "a row missing", "not ours", "not gzip",
     "of a newer program"],
)  # fmt: skip
def test_a_damaged_backup_changes_nothing(store, shop, tmp_path, kind):
    file = tmp_path / "b.gz"
    with store.database.read() as connection:
        backup(connection, file)
    file.write_bytes(damaged(kind, file.read_bytes()))
    before = render(export(store))
    with pytest.raises(StoreError):
        restored(store, file, [OWN])
    assert render(export(store)) == before
    assert store.verify().bad is None


def test_numbers_are_the_same_after_a_trip_through_the_database(store):
    times = [0.001, 1795527283.526, 253402300798.999]
    with store.database.write() as connection:
        for number, at in enumerate(times):
            row = {"id": str(number), "name": f"t{number}", "title": "", "revision": 2**53}
            connection.execute(insert(tables.team).values(**row, created=at, updated=at))
        connection.execute(update(tables.team).values(title="x"))
    with store.database.read() as connection:
        rows = connection.execute(select(tables.team.c.created, tables.team.c.revision)).all()
    assert sorted(rows) == [(at, 2**53) for at in times]
