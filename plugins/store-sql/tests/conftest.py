"""Stores to test on: SQLite, and a real PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from tidegate_store_sql.audit import Actor
from tidegate_store_sql.kinds import PLATFORM
from tidegate_store_sql.plugin import StoreSql, StoreSqlConfig
from tidegate_store_sql.specs import (
    ApplicationSpec,
    KeyRequest,
    ProviderKeySpec,
    ProviderSpec,
    ServiceSpec,
    TeamSpec,
)
from tidegate_store_sql.store import Store

from tidegate.api import AddonContext

collect_ignore = [] if find_spec("fastapi") else ["test_console.py"]
"""FastAPI comes with the console, which this plugin works without."""

ADA = Actor("ada", "192.0.2.7", "req-1")


class Postgres:
    """A server of its own on a free loopback port, in a folder of its own."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries = binaries
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._as: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}",
                        "--clear-groups"]  # fmt: skip
            os.chown(folder, user.pw_uid, user.pw_gid)
        self._run("initdb", "-D", str(folder / "data"), "-U", "tidegate", "-A", "trust", "-N",
                  "-E", "UTF8")  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as, str(self.binaries / program), *arguments],
            check=True, capture_output=True, timeout=60, cwd=self.folder,
        )  # fmt: skip

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*self._as, str(self.binaries / "postgres"), "-D", str(self.folder / "data"),
             "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
             "-c", f"unix_socket_directories={self.folder}", "-c", "max_connections=60"],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(200):
            try:
                psycopg.connect(self.dsn("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise RuntimeError("PostgreSQL did not start")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(3)  # SIGQUIT: at once, as a crash
            self.process.wait(20)
            self.process = None

    def dsn(self, name: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=tidegate dbname={name}"

    def new(self) -> str:
        """The URL of a fresh schema: as good as a database of one's own, and made sooner."""
        name = f"t{uuid4().hex[:12]}"
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")  # type: ignore[call-overload]
        options = f"options=-csearch_path%3D{name}"
        return f"postgresql+psycopg://tidegate@127.0.0.1:{self.port}/postgres?{options}"


def binaries() -> Path | None:
    """Where PostgreSQL's programs are: the newest of Debian's, or those on the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    path = shutil.which("postgres")
    return found[-1].parent if found else Path(path).resolve().parent if path else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    where = binaries()
    if where is None:
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="tidegate-pg-"))
    server = Postgres(where, folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database URL of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new()


def make_plugin(url: str, state: Path, **options: object) -> StoreSql:
    config = StoreSqlConfig.model_validate({"url": url, **options})
    return StoreSql(config, AddonContext("store-sql", state / "store-sql", base=state))


@pytest.fixture
def plugin(url: str, tmp_path: Path) -> Iterator[StoreSql]:
    plugin = make_plugin(url, tmp_path)
    yield plugin
    plugin.store.database.close()


@pytest.fixture
def store(plugin: StoreSql) -> Store:
    """An open, empty store."""
    return plugin.open()


@dataclass(frozen=True)
class Shop:
    """Two teams with something of each kind; ids."""

    red: str
    blue: str
    orders: str
    hidden: str
    app: str
    key: str
    secret_key: str
    provider: str
    provider_key: str


@pytest.fixture
def shop(store: Store) -> Shop:
    """Red offers services and a provider; blue has an application with a key."""
    red = store.create(ADA, PLATFORM, TeamSpec(name="red"))["id"]
    blue = store.create(ADA, PLATFORM, TeamSpec(name="blue"))["id"]
    orders = ServiceSpec(name="orders", path="/orders", visibility="internal")
    hidden = ServiceSpec(name="hidden", path="/hidden")
    provider = store.create(
        ADA, PLATFORM, ProviderSpec(name="main", kind="openai", url="https://api.test/v1"), red
    )["id"]
    app = store.create(ADA, PLATFORM, ApplicationSpec(name="web"), blue)["id"]
    row, key = store.issue_key(ADA, PLATFORM, app, KeyRequest(name="ci"))
    spec = ProviderKeySpec.model_validate({"name": "first", "secret": "sk-canary-1"})
    return Shop(
        red=red,
        blue=blue,
        orders=store.create(ADA, PLATFORM, orders, red)["id"],
        hidden=store.create(ADA, PLATFORM, hidden, red)["id"],
        app=app,
        key=row["id"],
        secret_key=key,
        provider=provider,
        provider_key=store.create(ADA, PLATFORM, spec, provider)["id"],
    )
