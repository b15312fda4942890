"""Users and their tokens: who may make them, what they give, what is left of them."""

import json
from datetime import UTC, datetime

import pytest
from tidegate_console_api.credentials import TOKEN_PREFIX
from tidegate_console_api.scopes import exceeding, reduced

from tidegate.api.console import Caller
from tidegate.api.keys import well_formed
from tidegate.api.store import Roles

from .conftest import PASSWORD, Console


def test_the_first_administrator_is_made_once(console: Console):
    assert console.users.first("other", "a password of his") is None
    assert console.store.roles("root").admin
    assert not console.store.roles("other").admin


async def test_an_administrator_makes_changes_and_removes_users(console: Console):
    root = await console.logged_in()
    made = await root.post("/users", json={"name": "ada@example.com", "title": "Ada"})
    assert made.status_code == 201
    assert made.headers["location"] == "/api/v1/users/ada@example.com"
    assert made.headers["etag"] == '"1"'
    again = await root.post("/users", json={"name": "ada@example.com"})
    assert (again.status_code, again.json()["code"]) == (409, "already_exists")

    ada = console.client()
    login = {"user": "ada@example.com", "password": made.json()["password"]}
    assert (await ada.post("/session", json=login)).status_code == 200
    for method, path in (
        ("GET", "/users"),
        ("GET", "/users/root"),
        ("POST", "/users/root/password"),
    ):
        answer = await ada.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path

    path, change = "/users/ada@example.com", {"title": "Ada L."}
    assert (await root.put(path, json=change)).status_code == 428
    stale = await root.put(path, json=change, headers={"if-match": '"7"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "revision_conflict")
    changed = await root.put(path, json=change, headers={"if-match": '"1"'})
    assert changed.headers["etag"] == '"2"'
    assert (await root.get(path)).json()["title"] == "Ada L."

    reset = await root.post(f"{path}/password")
    assert (await ada.get("/session")).status_code == 401
    login["password"] = reset.json()["password"]
    assert (await ada.post("/session", json=login)).status_code == 200
    token = await ada.post("/tokens", json={"name": "ci", "scopes": ["platform"]})
    assert token.status_code == 403

    for tag, status in (('"1"', 412), ("*", 204), ("*", 404)):
        answer = await root.delete(path, headers={"if-match": tag})
        assert answer.status_code == status, tag
    assert (await ada.get("/session")).status_code == 401
    assert len(console.rows("console_api_session")) == 1


async def test_nobody_locks_himself_out(console: Console):
    root = await console.logged_in()
    tag = {"if-match": "*"}
    for answer in (
        await root.put("/users/root", json={"disabled": True}, headers=tag),
        await root.delete("/users/root", headers=tag),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "is_yourself")


async def test_lists_are_paged_and_searched(console: Console):
    root = await console.logged_in()
    for name in ("b_1", "b%2", "a.3"):
        name = name.replace("%", "+")
        assert (await root.post("/users", json={"name": name})).status_code == 201
    seen, path = [], "/users?limit=2"
    while path:
        answer = await root.get(path)
        seen.append([user["name"] for user in answer.json()["items"]])
        link = answer.headers.get("link", "")
        path = link.partition("<")[2].partition(">")[0].removeprefix("/api/v1")
        assert bool(path) == (answer.json()["next"] is not None)
    assert seen == [["a.3", "b+2"], ["b_1", "root"]]
    found = await root.get("/users", params={"search": "B_"})
    assert [user["name"] for user in found.json()["items"]] == ["b_1"]
    assert (await root.get("/users?cursor=%00")).status_code == 422
    assert (await root.get("/users?cursor=aaaaa")).status_code == 422
    assert (await root.get("/users?limit=0")).status_code == 422


async def test_a_token_stands_for_its_owner_until_it_expires_or_is_revoked(console: Console):
    root = await console.logged_in()
    expires = datetime.fromtimestamp(console.clock.now + 1000, UTC).isoformat()
    wanted = {"name": "ci", "scopes": ["platform"], "expires": expires}
    made = (await root.post("/tokens", json=wanted)).json()
    assert well_formed(made["token"], TOKEN_PREFIX)
    client = console.client(authorization=f"Bearer {made['token']}")
    assert (await client.get("/session")).json() == {
        "user": "root", "admin": True, "roles": {}, "scopes": ["platform"],
    }  # fmt: skip
    assert (await client.get("/users")).status_code == 200
    for method, path, body in (
        ("POST", "/tokens", {"name": "more", "scopes": ["platform"]}),
        ("PUT", "/session/password", {"current": PASSWORD, "new": PASSWORD}),
        ("DELETE", "/session", None),
    ):
        answer = await client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "session_required"), path
    listed = (await client.get("/tokens")).json()["items"]
    assert [token["id"] for token in listed] == [made["id"]]
    assert "token" not in listed[0]

    console.clock.now += 1001
    assert (await client.get("/session")).status_code == 401
    root = await console.logged_in()
    made = (await root.post("/tokens", json={"name": "ci", "scopes": ["platform"]})).json()
    client = console.client(authorization=f"Bearer {made['token']}")
    assert (await client.get("/session")).status_code == 200
    assert (await root.delete(f"/tokens/{made['id']}")).status_code == 204
    assert (await client.get("/session")).status_code == 401
    for wrong in ("Bearer x", "Bearer ", "Basic cm9vdA==", f"Bearer {made['token'][:-1]}x", "\xff"):
        client = console.client()
        answer = await client.get("/session", headers={"authorization": wrong.encode("latin-1")})
        assert answer.status_code == 401, wrong


async def test_tokens_are_their_owners_and_end_with_him(console: Console):
    root = await console.logged_in()
    await root.post("/users", json={"name": "ada", "password": PASSWORD})
    team = console.store_addon.prepare().create(*_team("red"))["id"]
    _join(console, team, "ada", "viewer")
    ada = await console.logged_in("ada")
    assert (await ada.get("/session")).json()["roles"] == {team: "viewer"}
    mine = (await root.post("/tokens", json={"name": "r", "scopes": ["platform"]})).json()
    hers = (await ada.post("/tokens", json={"name": "a", "scopes": ["viewer"]})).json()
    assert (await ada.delete(f"/tokens/{mine['id']}")).status_code == 404
    assert (await ada.get("/tokens?user=root")).status_code == 403
    assert [t["id"] for t in (await root.get("/tokens?user=ada")).json()["items"]] == [hers["id"]]
    client = console.client(authorization=f"Bearer {hers['token']}")
    assert (await client.get("/session")).json()["roles"] == {team: "viewer"}
    await root.put("/users/ada", json={"disabled": True}, headers={"if-match": "*"})
    assert (await client.get("/session")).status_code == 401
    assert (await root.delete(f"/tokens/{hers['id']}")).status_code == 204


@pytest.mark.parametrize("scopes", [["platform"], ["developer"], ["viewer", "viewer:other"]])
async def test_scopes_do_not_exceed_the_creator(console: Console, scopes: list[str]):
    root = await console.logged_in()
    await root.post("/users", json={"name": "ada", "password": PASSWORD})
    team = console.store_addon.prepare().create(*_team("red"))["id"]
    _join(console, team, "ada", "viewer")
    ada = await console.logged_in("ada")
    answer = await ada.post("/tokens", json={"name": "x", "scopes": scopes})
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_exceeds_creator")
    fine = await ada.post("/tokens", json={"name": "x", "scopes": ["viewer", f"viewer:{team}"]})
    assert fine.status_code == 201


def test_a_token_gives_the_lesser_of_scope_and_role():
    roles = Roles(False, {"t1": "owner", "t2": "viewer"})
    assert reduced(roles, ["developer"]) == Roles(False, {"t1": "developer", "t2": "viewer"})
    assert reduced(roles, ["owner:t2", "viewer"]) == Roles(False, {"t1": "viewer", "t2": "viewer"})
    assert reduced(roles, ["admin:t1"]) == Roles(False, {"t1": "admin"})
    assert reduced(roles, ["owner:t3", "platform"]) == Roles(False, {})
    boss = Roles(True, {"t1": "viewer"})
    assert reduced(boss, ["platform"]) == Roles(True, {})
    assert reduced(boss, ["viewer"]) == Roles(False, {"t1": "viewer"})
    assert reduced(boss, ["developer:t9"]) == Roles(False, {"t9": "developer"})
    member = Caller("ada", roles={"t1": "developer"})
    assert exceeding(["developer", "developer:t1"], member) is None
    assert exceeding(["developer:t2"], member) == "developer:t2"
    assert exceeding(["admin"], member) == "admin"
    assert exceeding(["platform", "owner:t5"], Caller("root", admin=True)) is None


async def test_every_change_is_audited_and_no_secret_is_kept(console: Console):
    before = len(console.audited())
    root = await console.logged_in(source="192.0.2.77")
    answers = [
        await root.post("/users", json={"name": "ada", "password": "hers, very secret"}),
        await root.put("/users/ada", json={"title": "A"}, headers={"if-match": "*"}),
        await root.post("/users/ada/password"),
        await root.post("/tokens", json={"name": "ci", "scopes": ["platform"]}),
    ]
    answers.append(await root.delete(f"/tokens/{answers[-1].json()['id']}"))
    answers.append(await root.delete("/users/ada", headers={"if-match": "*"}))
    new = {"current": PASSWORD, "new": "another fine password"}
    answers.append(await root.put("/session/password", json=new))
    session = root.cookies["tidegate_session"]
    answers.append(await root.delete("/session"))
    assert all(answer.is_success for answer in answers)
    entries = console.audited()[before:]
    assert [entry["action"] for entry in entries] == [
        "log in", "create user", "update user", "change password", "create token",
        "delete token", "delete user", "change password", "log out",
    ]  # fmt: skip
    assert {(entry["actor"], entry["source"]) for entry in entries} == {("root", "192.0.2.77")}
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert [entry["request_id"] for entry in entries[1:]] == ids
    kept = json.dumps(
        [
            console.rows(table)
            for table in ("store_sql_audit", "console_api_user", "console_api_session",
                          "console_api_token")
        ]
    )  # fmt: skip
    secrets = ["hers, very secret", new["new"], PASSWORD, session]
    secrets += [answers[2].json()["password"], answers[3].json()["token"]]
    assert [secret for secret in secrets if secret in kept] == []


def _team(name: str):
    from tidegate_store_sql.kinds import PLATFORM
    from tidegate_store_sql.specs import TeamSpec

    from tidegate.api.store import Actor

    return Actor("test"), PLATFORM, TeamSpec(name=name)


def _join(console: Console, team: str, user: str, role: str) -> None:
    from tidegate_store_sql.kinds import PLATFORM
    from tidegate_store_sql.specs import MemberSpec

    from tidegate.api.store import Actor

    spec = MemberSpec.model_validate({"user": user, "role": role})
    console.store_addon.prepare().create(Actor("test"), PLATFORM, spec, team)
