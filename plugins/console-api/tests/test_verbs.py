"""`tidegate console`, for an operator who can't log in."""

import json
import time
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from .conftest import PASSWORD, Console


def run(console: Console, *arguments: str, status: int = 0) -> str:
    app = typer.Typer()
    app.callback()(lambda: None)
    console.addon.cli_commands(app)
    result = CliRunner().invoke(app, ["console", *arguments])
    assert result.exit_code == status, result.output
    return result.output


async def works(console: Console, user: str, password: str) -> bool:
    client = console.client()
    answer = await client.post("/session", json={"user": user, "password": password})
    return answer.status_code == 200


async def test_users_are_listed(console: Console):
    console.users.first("root", None)
    assert run(console, "users") == "root  admin\n"
    listed: list[dict[str, Any]] = json.loads(run(console, "users", "--json"))
    assert [(user["name"], user["admin"], user["disabled"]) for user in listed] == [
        ("root", True, False)
    ]
    assert "password" not in listed[0]


async def test_a_password_is_made_anew(console: Console):
    session = await console.logged_in()
    password = run(console, "password", "root").strip()
    assert await works(console, "root", password)
    assert not await works(console, "root", PASSWORD)
    assert (await session.get("/session")).status_code == 401
    assert "not_found" in run(console, "password", "nobody", status=1)
    assert console.audited()[-1]["actor"] != ""


async def test_an_administrator_is_made_or_made_one_again(console: Console):
    root = await console.logged_in()
    await root.post("/users", json={"name": "ada"})
    await root.put("/users/ada", json={"disabled": True}, headers={"if-match": "*"})
    for user in ("ada", "new@example.com"):
        told = json.loads(run(console, "password", user, "--admin", "--json"))
        assert told["user"] == user
        assert await works(console, user, told["password"])
        assert console.store.roles(user).admin
    assert "invalid" in run(console, "password", "no name", "--admin", status=1)


async def test_a_token_is_made(console: Console):
    token = run(console, "token", "root", "--scope", "platform", "--days", "0").strip()
    client = console.client(authorization=f"Bearer {token}")
    assert (await client.get("/session")).json()["admin"]
    told = json.loads(run(console, "token", "root", "--scope", "viewer", "--json"))
    assert 80_000 < told["expires"] - time.time() < 90_000
    entries = console.audited()
    assert entries[-1]["action"] == "create token"
    assert entries[-1]["actor"].startswith("cli:")


@pytest.mark.parametrize("arguments", [("root", "--scope", "boss"), ("no", "--scope", "viewer")])
async def test_a_token_needs_a_user_and_a_scope_that_is_one(console: Console, arguments):
    assert "error: " in run(console, "token", *arguments, status=1)
