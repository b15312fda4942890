"""A console on a real store, with two teams, and somebody in each role."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from tidegate_console_api import ConsoleApi
from tidegate_console_api.app import make_door
from tidegate_console_api.config import ConsoleApiConfig
from tidegate_console_api.door import Door
from tidegate_console_api.users import Users
from tidegate_store_sql import StoreSql
from tidegate_store_sql.plugin import StoreSqlConfig

from tidegate.api import AddonContext, Plugin

PASSWORD: Final = "correct horse battery"
ROLES: Final = ("viewer", "developer", "admin", "owner")
NOBODY: Final = "outsider"
"""Has an account, and is in no team."""
VICTIM: Final = "victim"
"""An account that nobody uses."""
PARAMETER: Final = re.compile(r"\{(\w+)\}")

SERVICE: Final = {"upstream": "http://127.0.0.1:9", "approval": "manual"}


@dataclass
class Team:
    """Ids of one thing of each kind, by the name that paths have for it."""

    team_id: str
    ids: dict[str, str] = field(default_factory=dict)


@dataclass
class World:
    """What was made once: ids, and the cookies of those who are logged in."""

    red: Team
    blue: Team
    cookies: dict[str, str]

    def write(self, folder: Path) -> None:
        (folder / "world.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> World:
        found = json.loads((folder / "world.json").read_text())
        return cls(Team(**found["red"]), Team(**found["blue"]), found["cookies"])


@contextmanager
def opened(state: Path) -> Iterator[tuple[Door, StoreSql]]:
    """The application, and the addon that has the store."""
    addons: dict[str, Plugin[Any]] = {}
    store = StoreSql(
        StoreSqlConfig(), AddonContext("store-sql", state / "store", addons=lambda: addons)
    )
    console = ConsoleApi(
        ConsoleApiConfig(hosts=("testserver",)),
        AddonContext("console-api", state / "console", addons=lambda: addons),
    )
    addons |= {"store-sql": store, "console-api": console}
    yield make_door(console.config, store.platform_store(), addons), store
    store.store.database.close()


def operations(door: Door) -> dict[str, tuple[str, str]]:
    """Method and path of each operation, by its id."""
    paths: dict[str, Any] = door.api.openapi()["paths"]
    return {
        operation["operationId"]: (method.upper(), path)
        for path, item in paths.items()
        for method, operation in item.items()
    }


class Client(httpx.AsyncClient):
    """Somebody, by his cookie or by nothing."""

    def __init__(self, door: Door, cookie: str | None = None) -> None:
        super().__init__(
            transport=httpx.ASGITransport(door, raise_app_exceptions=False),
            base_url="http://localhost/api/v1",
            cookies={} if cookie is None else {"tidegate_session": cookie},
        )

    async def make(self, url: str, /, **body: Any) -> str:
        """Make something; its id."""
        answer = await self.post(url, json=body)
        assert answer.status_code == 201, answer.text
        told: dict[str, str] = answer.json()
        return told.get("id", "")


async def build(state: Path) -> World:
    """Make the world, through the API itself."""
    with opened(state) as (door, store):
        Users(store.platform_store()).first("root", PASSWORD)
        root = await log_in(door, "root")
        for user in (*ROLES, "bob", NOBODY, VICTIM):
            await root.make("/users", name=user, password=PASSWORD)
        red = await _team(root, "red", dict(zip(ROLES, ROLES, strict=True)))
        blue = await _team(root, "blue", {"bob": "owner"})
        for own, other in ((red, blue), (blue, red)):
            own.ids["subscription"] = await root.make(
                f"/teams/{own.team_id}/subscriptions",
                application_id=own.ids["application"],
                service_id=other.ids["offered"],
            )
        red.ids["request"], blue.ids["request"] = blue.ids["subscription"], red.ids["subscription"]
        admins = (await root.get("/admins")).json()["items"]
        for team in (red, blue):
            team.ids["admin"] = admins[0]["id"]
        cookies = {}
        for user in ("root", *ROLES, "bob", NOBODY):
            cookies[user] = (await log_in(door, user)).cookies["tidegate_session"]
        for user, team in (("owner", red), ("bob", blue)):
            client = Client(door, cookies[user])
            team.ids["token"] = await client.make("/tokens", name="mine", scopes=["viewer"])
        return World(red, blue, cookies)


async def _team(root: Client, name: str, members: dict[str, str]) -> Team:
    team = Team(await root.make("/teams", name=name))
    base, ids = f"/teams/{team.team_id}", team.ids
    for user, role in members.items():
        made = await root.make(f"{base}/members", user=user, role=role)
        ids.setdefault("member", made)
    ids["service"] = await root.make(f"{base}/services", name="hidden", path=f"/{name}", **SERVICE)
    ids["offered"] = await root.make(
        f"{base}/services",
        name="offered",
        path=f"/{name}-offered",
        visibility="internal",
        **SERVICE,
    )
    ids["application"] = await root.make(f"{base}/applications", name="web")
    ids["key"] = await root.make(f"{base}/applications/{ids['application']}/keys", name="ci")
    ids["provider"] = await root.make(
        f"{base}/providers", name="main", kind="openai", url="https://api.test/v1"
    )
    ids["provider_key"] = await root.make(
        f"{base}/providers/{ids['provider']}/keys", name="first", secret=f"sk-canary-{name}"
    )
    ids["policy"] = await root.make(f"{base}/policies", name="hours", text="true")
    return team


async def log_in(door: Door, user: str) -> Client:
    client = Client(door)
    answer = await client.post("/session", json={"user": user, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return client


def kind_of(path: str) -> str:
    """Of what `{id}` in a path is one. A "request" is a subscription that the team decides on."""
    if path.endswith(("/approve", "/reject")) or path.endswith("subscriptions/{id}/revoke"):
        return "request"
    last = re.findall(r"/([a-z]+)/\{(?:id|name)\}", path)[-1]
    kind = {"policies": "policy", "catalogue": "service"}.get(last, last.removesuffix("s"))
    return "provider_key" if kind == "key" and "/providers/" in path else kind


def filled(path: str, team: Team, **other: str) -> str:
    """A path without the prefix of the API, with ids of a team's things; `other` first."""

    def value(name: str) -> str:
        if name in other:
            return other[name]
        if name == "team_id":
            return team.team_id
        if name == "name":
            return VICTIM
        kind = kind_of(path) if name == "id" else name.removesuffix("_id")
        return team.ids[kind]

    return PARAMETER.sub(lambda match: value(match[1]), path).removeprefix("/api/v1")
