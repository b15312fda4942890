"""What every request passes: names, origins, sizes, errors; and what the OpenAPI says of it."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from pydantic import ValidationError
from sqlalchemy.exc import IntegrityError
from tidegate_console_api import ConsoleApi
from tidegate_console_api.config import ConsoleApiConfig
from tidegate_console_api.door import PUBLIC

from tidegate.api import AddonConfig, AddonContext, Plugin, hook
from tidegate.testing.contracts import PluginContract

from .conftest import Console


class TestContract(PluginContract):
    name = "console-api"

    def plugin(self) -> type[Plugin[Any]]:
        return ConsoleApi


class Pets(Plugin[AddonConfig]):
    """An addon with routes, one of which fails."""

    @hook
    def console_routes(self, router: APIRouter) -> None:
        @router.get("/pets")
        def pets() -> list[str]:
            return ["rex"]

        @router.post("/pets/burn")
        def burn() -> str:
            raise RuntimeError("sk-canary-7 burns")

        @router.post("/pets/race")
        def race() -> str:
            raise IntegrityError("INSERT …", {}, Exception("UNIQUE sk-canary-9"))

        @router.put("/pets")
        def put(pets: list[str]) -> list[str]:
            return pets


class Ill(Plugin[AddonConfig]):
    """An addon whose routes can't be had."""

    @hook
    def console_routes(self, router: APIRouter) -> None:
        raise RuntimeError("no routes today")


def pets() -> Pets:
    return Pets(AddonConfig(), AddonContext("pets", Path()))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:8090", 200), ("LOCALHOST:1", 200), ("127.0.0.1:8090", 200),
        ("[::1]:8090", 200), ("10.1.2.3", 200), ("console.corp.test:443", 200), ("evil.test", 400),
        ("127.0.0.1.evil.test", 400), ("", 400), ("localhost.evil.test:80", 400), ("[::1", 200),
    ],
)  # fmt: skip
async def test_only_names_of_its_own_are_answered(state: Path, host: str, status: int):
    console = Console(state, hosts=["Console.corp.test"])
    answer = await console.client().get("http://localhost/api/health", headers={"host": host})
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["code"] == "host_not_allowed"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 204),
        ({"sec-fetch-site": "same-origin", "origin": "http://localhost"}, 204),
        ({"sec-fetch-site": "none"}, 204),
        ({"origin": "http://localhost"}, 204),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://evil.test"}, 403),
        ({"origin": "https://localhost"}, 403),
        ({"origin": "http://localhost:8091"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://localhost"}, 403),
    ],
)
async def test_another_site_changes_nothing(console: Console, headers: dict[str, str], status: int):
    client = await console.logged_in()
    assert (await client.get("/session", headers=headers)).status_code == 200
    answer = await client.delete("/session", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "cross_site"
        login = {"user": "root", "password": "x"}
        answer = await client.post("/session", json=login, headers=headers)
        assert answer.json()["code"] == "cross_site"


async def test_a_token_may_come_from_anywhere(console: Console):
    root = await console.logged_in()
    token = (await root.post("/tokens", json={"name": "x", "scopes": ["platform"]})).json()
    client = console.client(authorization=f"Bearer {token['token']}", origin="http://other.test")
    assert (await client.post("/users", json={"name": "ada"})).status_code == 201


async def test_bodies_have_a_limit(state: Path):
    console = Console(state, body_limit="1KiB")
    client = await console.logged_in()

    async def chunks():
        for _ in range(3):
            yield b" " * 500

    whole = await client.post("/users", content=b" " * 1025)
    parts = await client.post(
        "/users", content=chunks(), headers={"content-type": "application/json"}
    )
    for answer in (whole, parts):
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_every_answer_is_a_problem_with_safe_headers_or_fine(state: Path):
    console = Console(state, pets())
    root = await console.logged_in()
    stranger = console.client()
    answers = {
        "unauthenticated": await stranger.get("/pets"),
        "unauthenticated ": await stranger.get("/no/such/thing"),
        "not_found": await root.get("/no/such/thing"),
        "method_not_allowed": await root.patch("/pets"),
        "invalid": await root.put("/pets", json={"sk-canary-8": 1}),
        "invalid ": await root.put("/pets", content=b"{", headers={"content-type": "text/json"}),
        "conflict": await root.post("/pets/race"),
        "internal_error": await root.post("/pets/burn"),
    }
    for code, answer in answers.items():
        body = answer.json()
        assert answer.headers["content-type"] == "application/problem+json", code
        assert (body["code"], body["status"]) == (code.strip(), answer.status_code)
        assert body["request_id"] == answer.headers["x-request-id"]
        assert "canary" not in answer.text
    assert answers["method_not_allowed"].headers["allow"] == "GET, PUT"
    assert answers["unauthenticated"].headers["www-authenticate"] == "Bearer"
    fine = await root.get("/pets")
    assert fine.json() == ["rex"]
    for answer in (fine, *answers.values()):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_without_its_store_it_says_so(console: Console):
    root = await console.logged_in()
    database = console.store_addon.prepare().database
    console.store.read().__enter__().close()
    database.close()
    file = database.file
    assert file is not None
    for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
        if (file.parent / name).exists():
            shutil.move(file.parent / name, file.parent / f"{name}.gone")
    file.mkdir()
    for method, path, body in (
        ("GET", "/session", None),
        ("GET", "/users", None),
        ("DELETE", "/session", None),
        ("POST", "/session", {"user": "root", "password": "x"}),
        ("GET", "http://localhost/api/health", None),
    ):
        answer = await root.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable"), path
        assert answer.headers["retry-after"] == "1"
    file.rmdir()
    for gone in file.parent.glob(f"{file.name}*.gone"):
        gone.rename(gone.with_suffix(""))
    assert (await root.get("/session")).status_code == 200


def test_an_addon_whose_routes_fail_is_named(state: Path):
    with pytest.raises(RuntimeError, match='console_routes of addon "ill": no routes today'):
        Console(state, Ill(AddonConfig(), AddonContext("ill", Path())))


@pytest.mark.parametrize(
    ("listen", "fine"),
    [
        ("127.0.0.1:0", True), ("localhost:8090", True), ("[::1]:8090", True),
        ("127.9.9.9:1", True),
        ("0.0.0.0:8090", False), ("10.0.0.1:8090", False), ("[::]:8090", False),
        ("console.test:443", False), ("8090", False),
    ],
)  # fmt: skip
def test_an_address_that_others_reach_needs_tls_or_a_word(listen: str, fine: bool):
    if fine:
        assert ConsoleApiConfig(listen=listen).listen == listen
        return
    with pytest.raises(ValidationError):
        ConsoleApiConfig(listen=listen)
    if ":" in listen:
        assert ConsoleApiConfig(listen=listen, plain_http=True)
        assert ConsoleApiConfig.model_validate(
            {"listen": listen, "tls": {"cert": "a.pem", "key": "a.key"}}
        )


# -- the OpenAPI --------------------------------------------------------------------------------


async def test_the_document_declares_every_error_and_who_may_call(state: Path):
    console = Console(state, pets())
    document = (await console.client().get("http://localhost/api/openapi.json")).json()
    assert set(document["components"]["securitySchemes"]) == {"token", "session"}
    ids = []
    for path, item in document["paths"].items():
        for method, operation in item.items():
            ids.append(operation["operationId"])
            declared = operation["responses"]
            assert {"400", "503"} <= set(declared), path
            assert ("security" in operation) == ((method.upper(), path) not in PUBLIC), path
            for status, response in declared.items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"]
    assert len(set(ids)) == len(ids)
    assert "pets.pets" in ids
    put = document["paths"]["/api/v1/users/{name}"]["put"]
    assert set(put["responses"]) == {
        "200", "400", "401", "403", "404", "409", "412", "413", "422", "428", "503",
    }  # fmt: skip
    tag = next(each for each in put["parameters"] if each["in"] == "header")
    assert (tag["name"], tag["required"]) == ("if-match", True)
    assert tag["schema"]["type"] == "string"
