"""Tables of other plugins in the store, and what else they have of it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import column, insert, inspect, select, table
from tidegate_store_sql.backup import backup
from tidegate_store_sql.commands import restored
from tidegate_store_sql.errors import StoreError
from tidegate_store_sql.kinds import PLATFORM
from tidegate_store_sql.schema import OWN

from tidegate.api import AddonConfig, AddonContext, Plugin
from tidegate.api import store as api_store
from tidegate.api.store import Actor, Entry, Migrations, Roles

from .conftest import ADA, make_plugin

FIRST = """
import sqlalchemy as sa
from alembic import op
revision = "0001"
down_revision = None

def upgrade():
    op.create_table("house_pets_pet", sa.Column("name", sa.Text(), primary_key=True))
"""
SECOND = """
import sqlalchemy as sa
from alembic import op
revision = "0002"
down_revision = "0001"

def upgrade():
    op.add_column("house_pets_pet", sa.Column("colour", sa.Text(), nullable=True))
"""
pet = table("house_pets_pet", column("name"))


class House:
    """A store and a plugin, as the addons of one configuration."""

    def __init__(self, url, tmp_path):
        self.folder = tmp_path / "house 100%"
        self.folder.mkdir()
        (self.folder / "v0001_first.py").write_text(FIRST)

        class HousePets(Plugin[AddonConfig]):
            migrations = Migrations("house_pets_", self.folder)

        self.url, self.state, self.plugin = url, tmp_path, HousePets
        self.on = True
        self.keeper = self.start()

    def addons(self):
        pets = {"house-pets": self.plugin(AddonConfig(), self.context)} if self.on else {}
        return {**pets, "store-sql": self.keeper}

    def start(self):
        """The program is started anew."""
        self.keeper = make_plugin(self.url, self.state)
        self.context = AddonContext("house-pets", self.state / "pets", addons=self.addons)
        self.keeper.context.addons = self.addons
        return self.keeper

    def pets(self):
        with self.context.platform_store().read() as connection:
            return sorted(connection.execute(select(pet.c.name)).scalars())


@pytest.fixture
def house(url, tmp_path):
    house = House(url, tmp_path)
    with house.context.platform_store().write() as connection:
        connection.execute(insert(pet).values(name="rex"))
    yield house
    house.keeper.store.database.close()


def test_a_plugin_s_change_and_its_audit_are_stored_together_or_not_at_all(house):
    store = house.context.platform_store()
    entry = Entry("create pet", "tom", "", None, {"name": "tom"})
    with store.write() as connection:
        connection.execute(insert(pet).values(name="tom"))
        store.audit(connection, ADA, entry)
    with suppress(RuntimeError), store.write() as connection:
        connection.execute(insert(pet).values(name="ghost"))
        store.audit(connection, ADA, entry)
        raise RuntimeError("no")
    assert house.pets() == ["rex", "tom"]
    (told,) = house.keeper.store.audit(PLATFORM).items
    assert (told["action"], told["actor"], told["request_id"]) == ("create pet", "ada", "req-1")
    assert house.keeper.store.verify().good == 1


def test_the_first_admin_is_made_once(house):
    store = house.context.platform_store()
    for _ in range(2):
        with store.write() as connection:
            store.make_admin(connection, Actor("setup"), "root")
    assert store.roles("root") == Roles(admin=True)
    assert len(house.keeper.store.audit(PLATFORM).items) == 1


def test_a_plugin_s_migration_backs_up_first_and_keeps_its_rows(house):
    (house.folder / "v0002_colour.py").write_text(SECOND)
    house.start()
    assert house.pets() == ["rex"]
    with house.keeper.store.database.read() as connection:
        columns = {c["name"] for c in inspect(connection).get_columns("house_pets_pet")}
    assert columns == {"name", "colour"}
    assert len(list(house.keeper.backups.iterdir())) == 1


def test_a_plugin_s_newer_schema_is_refused(house):
    version = table("house_pets_version", column("version_num"))
    with house.keeper.store.database.write() as connection:
        connection.execute(version.update().values(version_num="0999"))
    house.start()
    with pytest.raises(StoreError, match="house-pets") as error:
        house.pets()
    assert error.value.code == "schema_newer"


def test_a_backup_has_the_tables_of_plugins_even_of_those_that_are_off(house, tmp_path):
    house.on = False
    with house.start().open().database.read() as connection:
        backup(connection, tmp_path / "b.gz")
    house.on = True
    with house.context.platform_store().write() as connection:
        connection.execute(insert(pet).values(name="tom"))
    keeper = house.keeper
    restored(keeper.store, tmp_path / "b.gz", keeper.schemas)
    assert house.pets() == ["rex"]
    with pytest.raises(StoreError, match="house_pets_") as error:
        restored(keeper.store, tmp_path / "b.gz", [OWN])
    assert error.value.code == "backup_invalid"
    assert house.pets() == ["rex"]


def test_a_backup_from_before_a_plugin_gives_it_empty_tables(house, store_before, tmp_path):
    restored(house.keeper.store, store_before, house.keeper.schemas)
    assert house.pets() == []


@pytest.fixture
def store_before(tmp_path):
    """A backup of a store without the plugin, under the same master key."""
    keeper = make_plugin(f"sqlite:///{tmp_path / 'before.db'}", tmp_path)
    with keeper.open().database.read() as connection:
        backup(connection, tmp_path / "before.gz")
    keeper.store.database.close()
    return tmp_path / "before.gz"


def test_without_a_store_a_plugin_is_told_so(tmp_path):
    with pytest.raises(api_store.StoreError) as error:
        AddonContext("house-pets", tmp_path).platform_store()
    assert error.value.code == "store_missing"
