"""Teams don't reach each other: with ids that were guessed in paths, in bodies and in filters.

`bob` owns blue, and tries what is red's.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text
from tidegate_console_api.door import Door
from tidegate_store_sql import StoreSql

from .world import PARAMETER, SERVICE, Client, World, filled, operations

TABLES = (
    *("team", "member", "service", "application", "credential", "subscription", "provider"),
    *("provider_key", "policy"),
)
BODIES: dict[str, dict[str, Any]] = {
    "team": {"name": "taken"},
    "member": {"user": "bob", "role": "owner"},
    "service": {"name": "taken", "path": "/taken", **SERVICE},
    "application": {"name": "taken"},
    "key": {"name": "taken"},
    "provider": {"name": "taken", "kind": "openai", "url": "https://evil.test"},
    "provider_key": {"name": "taken", "secret": "sk-taken"},
    "policy": {"name": "taken", "text": "true"},
}
"""What is accepted, so that it is not the body that is refused."""


TEAM = "/api/v1/teams/{team_id}"


def body_of(operation: str, world: World) -> dict[str, Any] | None:
    verb, _, kind = operation.removeprefix("store-sql.").partition("_")
    if verb in ("create", "replace", "issue", "rotate"):
        return BODIES[kind]
    if verb == "subscribe":
        red = world.red.ids
        return {"application_id": red["application"], "service_id": red["service"]}
    return None if verb in ("list", "get", "delete") else {}


def rows(store: StoreSql, team: str) -> str:
    """All that is a team's, as it is stored; without the last use of its keys."""
    found = {}
    with store.platform_store().read() as connection:
        for table in TABLES:
            column = "id" if table == "team" else "team_id"
            query = text(f"SELECT * FROM store_sql_{table} WHERE {column} = :team ORDER BY id")
            found[table] = [
                dict(row) for row in connection.execute(query, {"team": team}).mappings()
            ]
    return json.dumps(found)


def of_a_team(door: Door) -> list[tuple[str, str, str]]:
    """Operation, method and path of all that is under a team."""
    return [
        (operation, method, path)
        for operation, (method, path) in operations(door).items()
        if "{team_id}" in path
    ]


async def refused(client: Client, method: str, url: str, body: Any) -> tuple[int, str] | None:
    """What was answered, where that is not 404."""
    answer = await client.request(method, url, json=body, headers={"if-match": "*"})
    code = answer.json().get("code") if answer.content else ""
    return None if (answer.status_code, code) == (404, "not_found") else (answer.status_code, code)


async def test_nothing_of_another_team_is_found_under_its_own_path(
    console: tuple[Door, StoreSql], world: World
):
    door, store = console
    before, wrong = rows(store, world.red.team_id), {}
    client = Client(door, world.cookies["bob"])
    for operation, method, path in of_a_team(door):
        answer = await refused(client, method, filled(path, world.red), body_of(operation, world))
        if answer:
            wrong[operation] = answer
    # The same for every id, whether there is such a team or not.
    assert wrong == {"store-sql.delete_team": (403, "forbidden")}
    assert rows(store, world.red.team_id) == before


async def test_nothing_of_another_team_is_found_under_ones_own_path(
    console: tuple[Door, StoreSql], world: World
):
    door, store = console
    before, wrong, tried = rows(store, world.red.team_id), {}, 0
    client = Client(door, world.cookies["bob"])
    for operation, method, path in of_a_team(door):
        parameters = [name for name in PARAMETER.findall(path) if name != "team_id"]
        for name in parameters:  # each of the ids is red's in turn
            theirs = {name: _id(path, name, world)}
            tried += 1
            url = filled(path, world.blue, **theirs)
            if answer := await refused(client, method, url, body_of(operation, world)):
                wrong[operation, name] = answer
        url = filled(path, world.red, team_id=world.blue.team_id)  # and all of them
        if parameters and (answer := await refused(client, method, url, body_of(operation, world))):
            wrong[operation, "all"] = answer
    assert tried >= 40
    # A subscription of red's to blue's service is blue's to see, and only to see.
    asked = "store-sql.get_subscription"
    assert wrong == {(asked, "id"): (200, None), (asked, "all"): (200, None)}
    assert rows(store, world.red.team_id) == before


def _id(path: str, name: str, world: World) -> str:
    """The id that red's things have at a place of a path."""
    whole = filled(path, world.red).split("/")
    return whole[path.removeprefix("/api/v1").split("/").index(f"{{{name}}}")]


async def test_ids_in_bodies_reach_nothing(console: tuple[Door, StoreSql], world: World):
    door, store = console
    red, blue = world.red, world.blue
    before = rows(store, red.team_id)
    client = Client(door, world.cookies["bob"])
    base = f"/teams/{blue.team_id}"
    for application, service in (
        (red.ids["application"], red.ids["offered"]),
        (red.ids["application"], blue.ids["service"]),
        (blue.ids["application"], red.ids["service"]),
        (blue.ids["application"], "0" * 16),
    ):
        body = {"application_id": application, "service_id": service}
        answer = await client.post(f"{base}/subscriptions", json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), body
    for kind, path in (("application", "applications"), ("service", "services"),
                       ("policy", "policies"), ("provider", "providers")):  # fmt: skip
        body = {**BODIES[kind], "team_id": red.team_id}
        assert (await client.post(f"{base}/{path}", json=body)).status_code == 422
    token = await client.post("/tokens", json={"name": "x", "scopes": [f"viewer:{red.team_id}"]})
    assert (token.status_code, token.json()["code"]) == (403, "scope_exceeds_creator")
    apply = await client.post("/apply", json={"document": "[[team]]\nname = 'red'\n"})
    assert apply.status_code == 403
    assert rows(store, red.team_id) == before


async def test_a_key_that_names_a_hidden_service_learns_nothing_of_it(
    console: tuple[Door, StoreSql], world: World
):
    client = Client(console[0], world.cookies["bob"])
    keys = f"/teams/{world.blue.team_id}/applications/{world.blue.ids['application']}/keys"
    answers = []
    for name, service in (("a", "red/hidden"), ("b", "red/nothing")):
        answer = await client.post(keys, json={"name": name, "services": [service]})
        answers.append((answer.status_code, answer.json().get("code")))
    assert answers[0] == answers[1]


async def test_filters_search_and_lists_show_nothing(console: tuple[Door, StoreSql], world: World):
    client = Client(console[0], world.cookies["bob"])
    red, base = world.red, f"/teams/{world.blue.team_id}"
    found = {}
    for url in (
        f"{base}/subscriptions?application_id={red.ids['key']}",
        f"{base}/subscriptions?service_id={red.ids['service']}",
        "/teams?search=red",
        "/catalogue?search=hidden-of-red",
        f"{base}/audit?search=red/hidden",
        f"{base}/audit?actor=viewer",
    ):
        answer = await client.get(url)
        assert answer.status_code == 200, answer.text
        found[url] = answer.json()["items"]
    assert {url: items for url, items in found.items() if items} == {}
    assert (await client.get("/tokens?user=owner")).status_code == 403
    for url in (f"{base}/services?team_id={red.team_id}", f"{base}/members?team_id={red.team_id}"):
        items = (await client.get(url)).json().get("items", [])
        assert {item["team_id"] for item in items} <= {world.blue.team_id}


async def test_every_list_of_a_team_has_its_own_alone(console: tuple[Door, StoreSql], world: World):
    door, _ = console
    client, red = Client(door, world.cookies["bob"]), world.red
    # What red offers, asks of blue and decides on is blue's to know; so is who administers, and
    # which of red's applications asks.
    shared = ("offered", "admin", "subscription", "request")
    secret = {id for name, id in red.ids.items() if name not in shared}
    lists = [
        path
        for method, path in operations(door).values()
        if method == "GET"
        and path.startswith("/api/v1")
        and "{" not in path[len(TEAM) :]
        and not path.endswith("/subscriptions")
    ]
    assert len(lists) > 10
    for path in lists:
        answer = await client.get(filled(path, world.blue))
        assert [id for id in secret if id in answer.text] == [], path


@pytest.mark.parametrize(("name", "status"), [("service", 404), ("offered", 200)])
async def test_the_catalogue_has_what_is_offered_and_no_more(
    console: tuple[Door, StoreSql], world: World, name: str, status: int
):
    client = Client(console[0], world.cookies["bob"])
    assert (await client.get(f"/catalogue/{world.red.ids[name]}")).status_code == status
    outsider = Client(console[0], world.cookies["outsider"])
    assert (await outsider.get(f"/catalogue/{world.red.ids[name]}")).status_code == 404


async def test_who_leaves_a_team_has_lost_it_at_once(console: tuple[Door, StoreSql], world: World):
    door, base = console[0], f"/teams/{world.red.team_id}"
    root, viewer = Client(door, world.cookies["root"]), Client(door, world.cookies["viewer"])
    wanted = {"name": "x", "scopes": [f"viewer:{world.red.team_id}"]}
    token = (await viewer.post("/tokens", json=wanted)).json()["token"]
    bearer = {"authorization": f"Bearer {token}"}
    by_token = Client(door)
    assert (await by_token.get(base, headers=bearer)).status_code == 200
    gone = f"{base}/members/{world.red.ids['member']}"
    assert (await root.delete(gone, headers={"if-match": "*"})).status_code == 204
    assert (await viewer.get(base)).status_code == 404
    assert (await by_token.get(base, headers=bearer)).status_code == 404


async def test_no_answer_tells_a_secret(console: tuple[Door, StoreSql], world: World):
    door, _ = console
    root = Client(door, world.cookies["root"])
    texts = [
        (await root.get(filled(path, world.red))).text
        for method, path in operations(door).values()
        if method == "GET" and path.startswith("/api/v1")
    ]
    assert len(texts) > 25
    assert [text for text in texts if "sk-canary" in text or "$argon2" in text] == []
