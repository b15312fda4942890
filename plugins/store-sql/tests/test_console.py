"""The routes of the console, on both databases.

Every role at every route, ids of other teams, and the OpenAPI: tests/console.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.testclient import TestClient
from tidegate_store_sql.claims import hosts_overlap, paths_overlap
from tidegate_store_sql.console import add_routes
from tidegate_store_sql.kinds import PLATFORM
from tidegate_store_sql.platform import Platform
from tidegate_store_sql.specs import (
    AdminSpec,
    ApplicationSpec,
    KeyRequest,
    MemberSpec,
    PolicySpec,
    ProviderKeySpec,
    ProviderSpec,
    ServiceSpec,
    TeamSpec,
)
from tidegate_store_sql.store import Store

from tidegate.api.console import Caller, ConsoleError
from tidegate.api.store import StoreError

from .conftest import ADA

TEAM = "/teams/{team_id}"


@dataclass
class Team:
    """A team with one of each thing: ids by the names of paths' parameters."""

    ids: dict[str, str]

    def path(self, template: str, kind: str = "") -> str:
        return template.format(**self.ids, id=self.ids.get(f"{kind}_id", ""))


class Api:
    """An application with the store's routes, over whichever store is put under it."""

    def __init__(self) -> None:
        self.platform = Platform(lambda: pytest.fail("no store was put under it"))
        self.caller = Caller("nobody")
        self.app = FastAPI()

        @self.app.middleware("http")
        async def who(request: Request, call_next: Any) -> Any:
            request.state.caller = self.caller
            return await call_next(request)

        async def refused(_: Request, error: Any) -> JSONResponse:
            return JSONResponse({"code": error.code, "detail": str(error)}, error.status)

        async def invalid(_: Request, error: Any) -> JSONResponse:
            return JSONResponse({"code": "invalid"}, 422)

        for kind in (ConsoleError, StoreError):
            self.app.add_exception_handler(kind, refused)
        self.app.add_exception_handler(RequestValidationError, invalid)
        router: Any = APIRouter()
        add_routes(router, self.platform)
        self.app.include_router(router)
        self.routes = sorted((m, r.path) for r in router.routes for m in r.methods)


class World:
    """Two teams in a store, and its routes."""

    def __init__(self, api: Api, store: Store) -> None:
        self.api = api
        self.store = api.platform.store = store
        self.client = TestClient(api.app, raise_server_exceptions=True)
        self.admin = self.store.create(ADA, PLATFORM, AdminSpec(user="root"))["id"]
        self.red = self.team("red")
        self.blue = self.team("blue")

    def team(self, name: str) -> Team:
        def make(spec: Any, above: str = "") -> str:
            return self.store.create(ADA, PLATFORM, spec, above)["id"]

        team = make(TeamSpec(name=name))
        application = make(ApplicationSpec(name="web"), team)
        provider = make(ProviderSpec(name="main", kind="openai", url="https://a.test/v1"), team)
        service = make(ServiceSpec(name="orders", path=f"/{name}", docs="openapi: 3"), team)
        key, _ = self.store.issue_key(ADA, PLATFORM, application, KeyRequest(name="ci"))
        ids = {
            "team_id": team,
            "application_id": application,
            "provider_id": provider,
            "service_id": service,
            "key_id": key["id"],
            "owner_id": make(MemberSpec(user=f"owner@{name}", role="owner"), team),
            "member_id": make(MemberSpec(user=f"viewer@{name}", role="viewer"), team),
            "admin_id": self.admin,
            "policy_id": make(PolicySpec(name="p", text="true"), team),
            "provider_key_id": make(ProviderKeySpec(name="first"), provider),
            "subscription_id": self.store.subscribe(ADA, PLATFORM, application, service)["id"],
        }
        return Team(ids)

    def be(self, role: str, team: Team | None = None) -> None:
        team = team or self.red
        if role == "platform":
            self.api.caller = Caller("root", admin=True, source="192.0.2.1", request_id="r1")
        else:
            roles: Any = {} if role == "nobody" else {team.ids["team_id"]: role}
            self.api.caller = Caller(role, roles=roles, source="192.0.2.1", request_id="r1")

    def call(self, method: str, path: str, body: Any = None, seen: str = "*") -> Any:
        return self.client.request(method, path, json=body, headers={"if-match": seen})


@pytest.fixture(scope="module")
def api() -> Api:
    return Api()


@pytest.fixture
def world(api, store) -> World:
    return World(api, store)


def kind_of(template: str) -> str:
    """What `{id}` is in a path."""
    if "/providers/{provider_id}/keys" in template:
        return "provider_key"
    plural = template.split("/{id}", maxsplit=1)[0].rpartition("/")[2]
    return {"policies": "policy", "catalogue": "service"}.get(plural, plural.removesuffix("s"))


def body_of(template: str, team: Team) -> dict[str, Any]:
    """A body that the route takes."""
    if template.endswith("/rotate"):
        return {"name": "fresh"}
    if template.endswith(("/approve", "/reject", "/revoke")):
        return {}
    if template == "/apply":
        return {"document": "", "dry_run": True}
    if template == TEAM:
        return {"name": "red"}
    return {
        "member": {"user": "new@example.com", "role": "viewer"},
        "service": {"name": "fresh", "path": f"/fresh/{team.ids['team_id']}"},
        "application": {"name": "fresh"},
        "provider": {"name": "fresh", "kind": "openai", "url": "https://b.test"},
        "provider_key": {"name": "fresh", "secret": "s3cret-canary"},
        "policy": {"name": "fresh", "text": "true"},
        "key": {"name": "fresh"},
        "subscription": {"application_id": team.ids["application_id"],
                         "service_id": team.ids["service_id"]},
        "team": {"name": "fresh"},
        "admin": {"user": "second"},
    }[kind_of(template)]  # fmt: skip


def test_ids_of_another_team_in_bodies_and_filters_find_nothing(world):
    world.be("owner", world.blue)
    red, blue = world.red.ids, world.blue.ids
    path = f"/teams/{blue['team_id']}/subscriptions"
    for body in (
        {"application_id": red["application_id"], "service_id": red["service_id"]},
        {"application_id": red["application_id"], "service_id": blue["service_id"]},
        {"application_id": blue["application_id"], "service_id": red["service_id"]},
    ):
        assert world.call("POST", path, body).status_code == 404
    for name in ("application_id", "service_id"):
        assert world.client.get(f"{path}?{name}={red[name]}").json()["items"] == []
    names = [team["name"] for team in world.client.get("/teams").json()["items"]]
    assert names == ["blue"]
    assert {item["team"] for item in world.client.get("/catalogue").json()["items"]} == {"blue"}


def test_nobody_gives_or_takes_a_role_that_is_higher_than_his_own(world):
    world.be("admin")
    members = world.red.path(f"{TEAM}/members")
    owner = f"{members}/{world.red.ids['owner_id']}"
    for method, path, body in (
        ("POST", members, {"user": "x", "role": "owner"}),
        ("PUT", owner, {"user": "owner@red", "role": "viewer"}),
        ("DELETE", owner, None),
    ):
        answer = world.call(method, path, body)
        assert (answer.status_code, answer.json()["code"]) == (403, "scope_exceeds_creator")
    made = world.call("POST", members, {"user": "x", "role": "admin"})
    assert made.status_code == 201
    raised = {"user": "x", "role": "owner"}
    assert world.call("PUT", made.headers["location"], raised).status_code == 403


def test_the_name_of_a_team_is_for_the_platform_its_title_for_its_owner(world):
    world.be("owner")
    path = world.red.path(TEAM)
    assert world.call("PUT", path, {"name": "red", "title": "Red"}).json()["title"] == "Red"
    assert world.call("PUT", path, {"name": "green"}).status_code == 403
    world.be("platform")
    assert world.call("PUT", path, {"name": "green"}).json()["name"] == "green"


def test_a_thing_is_made_read_changed_and_removed_by_its_revision(world):
    world.be("admin")
    services = world.red.path(f"{TEAM}/services")
    made = world.call("POST", services, {"name": "new", "path": "/new", "methods": ["GET"]})
    assert made.status_code == 201
    where = made.headers["location"]
    read = world.client.get(where)
    assert (read.json(), read.headers["etag"]) == (made.json(), made.headers["etag"])
    assert read.json()["created"].endswith("Z")
    listed = world.client.get(f"{services}?search=NEW&kind=rest").json()["items"]
    assert [item["name"] for item in listed] == ["new"]
    assert "docs" not in listed[0]
    changed = {"name": "new", "path": "/new", "title": "New", "docs": "openapi: 3"}
    after = world.call("PUT", where, changed, read.headers["etag"])
    assert after.json()["title"] == "New"
    stale = world.call("PUT", where, changed, read.headers["etag"])
    assert (stale.status_code, stale.json()["code"]) == (412, "revision_conflict")
    assert world.call("DELETE", where, None, read.headers["etag"]).status_code == 412
    assert world.call("DELETE", where, None, after.headers["etag"]).status_code == 204
    assert world.client.get(where).status_code == 404
    entry = world.store.audit(PLATFORM, limit=1).items[0]
    assert (entry["actor"], entry["source"], entry["request_id"]) == ("admin", "192.0.2.1", "r1")


def test_pages_lead_to_one_another(world):
    world.be("platform")
    for number in range(5):
        world.call("POST", "/teams", {"name": f"t{number}"})
    for path, key, count in (("/teams", "name", 7), ("/audit", "seq", None)):
        seen, cursor = [], ""
        while True:
            page = world.client.get(path, params={"limit": 2, "cursor": cursor}).json()
            seen += [item[key] for item in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
        everything = world.client.get(path, params={"limit": 200}).json()["items"]
        assert seen == [item[key] for item in everything]
        assert count in {None, len(seen)}
        assert len(set(seen)) == len(seen)


def test_a_key_is_told_once_replaced_with_overlap_and_revoked(world):
    world.be("developer")
    keys = world.red.path(f"{TEAM}/applications/{{application_id}}/keys")
    made = world.call("POST", keys, {"name": "new", "networks": ["192.0.2.0/24"]})
    key = made.json()["key"]
    where = made.headers["location"]
    assert key not in world.client.get(where).text + world.client.get(keys).text
    fresh = world.call("POST", f"{where}/rotate", {"name": "newer", "overlap": 60})
    assert fresh.json()["networks"] == ["192.0.2.0/24"]
    assert fresh.json()["key"] != key
    assert world.client.get(fresh.headers["location"]).json()["name"] == "newer"
    assert world.client.get(where).json()["expires"] is not None
    limited = world.call("PUT", where, {"name": "old", "services": ["red/orders"]})
    assert limited.json()["services"] == ["red/orders"]
    assert world.call("POST", f"{where}/revoke").json()["revoked"] is not None
    assert world.call("PUT", where, {"name": "old"}).json()["revoked"] is not None


def test_a_subscription_is_asked_for_and_decided_by_the_team_of_the_service(world):
    world.be("platform")
    services = world.red.path(f"{TEAM}/services")
    body = {"name": "shared", "path": "/shared", "visibility": "internal"}
    service = world.call("POST", services, body).json()["id"]
    world.be("developer", world.blue)
    path = world.blue.path(f"{TEAM}/subscriptions")
    assert service in {o["id"] for o in world.client.get("/catalogue").json()["items"]}
    assert world.client.get(f"/catalogue/{service}").json()["ref"] == "red/shared"
    wish = {"application_id": world.blue.ids["application_id"], "service_id": service}
    asked = world.call("POST", path, {**wish, "reason": "the shop"}).json()
    told = (asked["status"], asked["application"], asked["service"])
    assert told == ("requested", "blue/web", "red/shared")
    id = asked["id"]
    assert world.call("POST", path, wish).json()["code"] == "subscription_state"
    world.be("owner", world.blue)
    assert world.call("POST", f"{path}/{id}/approve", {}).status_code == 404  # it is red's to say
    world.be("admin")
    decisions = world.red.path(f"{TEAM}/subscriptions")
    waiting = world.client.get(f"{decisions}?status=requested&service_id={service}").json()
    assert [item["id"] for item in waiting["items"]] == [id]
    approved = world.call("POST", f"{decisions}/{id}/approve", {"decision": "welcome"}).json()
    assert (approved["status"], approved["decided_by"]) == ("approved", "admin")
    assert world.call("POST", f"{decisions}/{id}/reject", {}).status_code == 409
    assert world.call("POST", f"{decisions}/{id}/revoke", {}).json()["status"] == "revoked"
    world.be("nobody")
    assert world.client.get("/catalogue").json()["items"] == []


def test_a_secret_goes_in_and_never_comes_out(world):
    world.be("admin")
    keys = world.red.path(f"{TEAM}/providers/{{provider_id}}/keys")
    made = world.call("POST", keys, {"name": "x", "secret": "s3cret-canary"})
    assert made.json()["has_secret"] is True
    where = made.headers["location"]
    kept = world.call("PUT", where, {"name": "y"})
    assert (kept.json()["name"], kept.json()["has_secret"]) == ("y", True)
    moved = world.call("PUT", world.red.path(f"{TEAM}/providers/{{provider_id}}"),
                       {"name": "main", "kind": "openai", "url": "https://evil.test"})  # fmt: skip
    assert moved.json()["code"] == "secret_origin_changed"
    world.be("platform")
    texts = [made.text, kept.text, moved.text, world.client.get(where).text]
    texts += [world.client.get(p).text for p in ("/audit?limit=200", "/export")]
    assert "canary" not in "".join(texts)


def test_the_last_administrator_stays(world):
    world.be("platform")
    answer = world.call("DELETE", f"/admins/{world.admin}")
    assert (answer.status_code, answer.json()["code"]) == (409, "last_admin")
    for body in ({"document": "admins = []"}, {"document": "", "prune": True}):
        assert world.call("POST", "/apply", body).json()["code"] == "last_admin"
    assert world.call("POST", "/admins", {"user": "second"}).status_code == 201
    assert world.call("DELETE", f"/admins/{world.admin}").status_code == 204


def test_the_platform_as_a_file_goes_out_and_comes_in(world, monkeypatch):
    world.be("platform")
    document = world.client.get("/export")
    assert document.headers["content-type"].startswith("application/toml")
    same = world.call("POST", "/apply", {"document": document.text, "prune": True})
    assert same.json() == {"dry_run": False, "changes": []}
    changed = document.text.replace('path = "/red"', 'path = "/crimson"')
    dry = world.call("POST", "/apply", {"document": changed, "dry_run": True}).json()
    assert [(c["action"], c["target"]) for c in dry["changes"]] == [
        ("update service", "red/orders")
    ]
    assert world.client.get("/export").text == document.text
    assert world.call("POST", "/apply", {"document": changed}).json()["changes"]
    assert world.client.get("/audit/verify").json()["bad"] is None
    monkeypatch.setenv("DATABASE_PASSWORD", "canary")
    reads = '[[team]]\nname = "red"\nprovider = [{name="x", kind="x", url="https://evil.test", '
    reads += 'key = [{name="k", secret="${DATABASE_PASSWORD}"}]}]'
    answer = world.call("POST", "/apply", {"document": reads})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


STRANGE = ["\x00", "\ud800", "x" * 300, "'; DROP TABLE store_sql_team; --", "%", "1e999", "-1"]


def test_strange_texts_are_refused_or_kept_but_never_break_anything(world):
    world.be("platform")
    headers = {"content-type": "application/json", "if-match": '"999999"'}
    for method, template in world.api.routes:
        path = world.red.path(template, kind_of(template))
        for strange in STRANGE:
            if method == "GET" and strange.isprintable():
                query = dict.fromkeys(("cursor", "search", "status", "actor"), strange)
                assert world.client.get(path, params=query).status_code < 500
            elif method in {"POST", "PUT"}:
                body = body_of(template, world.red)
                for name in body:
                    content = json.dumps({**body, name: strange})
                    answer = world.client.request(method, path, content=content, headers=headers)
                    assert answer.status_code < 500, (method, path, name)


def test_numbers_and_cursors_out_of_range_are_refused(world):
    world.be("platform")
    keys = world.red.path(f"{TEAM}/applications/{{application_id}}/keys")
    for number in ("1" * 400, "-1", "1e400", "NaN", "0.5e300"):
        content = f'{{"name": "n", "expires": {number}}}'
        headers = {"content-type": "application/json"}
        assert world.client.post(keys, content=content, headers=headers).status_code == 422
    forged = base64.urlsafe_b64encode(b'["\\u0000", "a"]').decode()
    for path in ("/teams", "/catalogue", "/admins", "/audit"):
        for cursor in (forged, "x", "9" * 30):
            assert world.client.get(path, params={"cursor": cursor}).status_code == 422
    assert world.client.get("/audit", params={"cursor": "9" * 18}).status_code == 200


SHOP = (["api.example.com"], "/shop")
OVERLAPS = [
    (["api.example.com"], "/shop", True),
    (["api.example.com"], "/shop/admin", True),
    (["api.example.com"], "", True),
    (["api.example.com"], "/{}", True),
    (["API.example.com"], "/shop", True),
    ([], "/shop", True),
    (["*"], "/shop", True),
    (["*.example.com"], "/shop", True),
    (["other.test", "*.com"], "/shop", True),
    (["api.example.com"], "/shopping", False),
    (["api.example.com"], "/{}/x", True),
    (["other.example.com"], "/shop", False),
    (["*.api.example.com"], "/shop", False),
    (["*.pi.example.com"], "/shop", False),
]


@pytest.mark.parametrize(("hosts", "route", "overlap"), OVERLAPS, ids=str)
def test_two_services_overlap_where_one_request_could_be_for_both(hosts, route, overlap):
    for some, others in (((hosts, route), SHOP), (SHOP, (hosts, route))):
        found = hosts_overlap(some[0], others[0]) and paths_overlap(some[1], others[1])
        assert found is overlap


def test_a_team_takes_no_requests_from_another_team(world):
    world.be("admin")
    services = world.red.path(f"{TEAM}/services")
    shop = {"name": "shop", "hosts": ["api.example.com"], "path": "/shop"}
    assert world.call("POST", services, shop).status_code == 201
    below = {**shop, "name": "below", "path": "/shop/admin"}
    assert world.call("POST", services, below).status_code == 201  # within a team: its own matter
    world.be("admin", world.blue)
    services = world.blue.path(f"{TEAM}/services")
    mine = f"{services}/{world.blue.ids['service_id']}"
    deep = {"name": "orders", "path": "/shop/{any}", "hosts": ["*.example.com"]}
    for answer in (
        world.call("POST", services, {**deep, "name": "x"}),
        world.call("PUT", mine, deep),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "host_taken")
    world.be("platform")
    assert world.call("PUT", mine, deep).status_code == 200
    world.be("admin", world.blue)
    titled = world.call("PUT", mine, {**deep, "title": "placed by the platform"})
    assert titled.status_code == 200  # it does not move: no question
