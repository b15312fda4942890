"""Every role at every endpoint. An endpoint that is not listed here fails the tests."""

from __future__ import annotations

import pytest
from tidegate_console_api.door import Door
from tidegate_store_sql import StoreSql

from .world import NOBODY, ROLES, Client, World, filled, operations

NEEDS = {
    # what everyone may, and what everyone with an account may of his own
    "console.get_health": "public",
    "console.log_in": "public",
    "console.who_am_i": "account",
    "console.log_out": "account",
    "console.change_password": "account",
    "console.list_tokens": "account",
    "console.create_token": "account",
    "console.delete_token": "owner",  # the token is the owner's: who owns it is what counts
    "list_team": "account",
    "list_catalogue": "account",
    "get_catalogue": "viewer",  # the service is private to the team
    # what the platform's administrators may
    "console.list_users": "platform",
    "console.create_user": "platform",
    "console.get_user": "platform",
    "console.update_user": "platform",
    "console.delete_user": "platform",
    "console.reset_password": "platform",
    "create_team": "platform",
    "delete_team": "platform",
    "list_admin": "platform",
    "create_admin": "platform",
    "get_admin": "platform",
    "delete_admin": "platform",
    "list_audit": "platform",
    "verify_audit": "platform",
    "export_platform": "platform",
    "apply_platform": "platform",
    # what is a team's: its members read
    "get_team": "viewer",
    **{
        f"{verb}_{kind}": "viewer"
        for verb in ("list", "get")
        for kind in (
            *("member", "service", "application", "key", "subscription", "provider"),
            *("provider_key", "policy"),
        )
    },
    # and by their role they change it
    "replace_team": "owner",
    "list_audit_of_team": "admin",
    **{
        f"{verb}_{kind}": "admin"
        for verb in ("create", "replace", "delete")
        for kind in ("member", "service", "provider", "provider_key", "policy")
    },
    **{f"{verb}_application": "developer" for verb in ("create", "replace", "delete")},
    **{f"{verb}_key": "developer" for verb in ("issue", "replace", "delete", "rotate", "revoke")},
    "subscribe": "developer",
    "delete_subscription": "developer",
    **{f"{verb}_subscription": "admin" for verb in ("approve", "reject", "revoke")},
}
"""Operation → the least that one must be: "public", "account", a role in the team, "platform"."""

CALLERS = ("stranger", NOBODY, "bob", *ROLES, "root")
"""`bob` owns another team."""
HIDDEN = {"console.delete_token"}
"""What is not there for those who may not."""


def needs(operation: str) -> str:
    """What one must be for an operation: the console's own ones are listed with its name."""
    return NEEDS[operation.removeprefix("store-sql.")]


def expected(operation: str, path: str, caller: str) -> int | None:
    """The status of a refusal; None: the caller may."""
    least = needs(operation)
    if least == "public":
        return None
    if caller == "stranger":
        return 401
    if caller == "root" or least == "account":
        return None
    if least == "platform":
        return 403
    if caller not in ROLES:
        return 404
    if ROLES.index(caller) >= ROLES.index(least):
        return None
    return 404 if operation in HIDDEN else 403


def test_every_endpoint_has_its_line(console: tuple[Door, StoreSql]):
    found = {operation.removeprefix("store-sql.") for operation in operations(console[0])}
    assert found == set(NEEDS)


@pytest.mark.parametrize("caller", CALLERS)
async def test_a_role_may_what_it_may_and_nothing_else(
    console: tuple[Door, StoreSql], world: World, caller: str
):
    door = console[0]
    client = Client(door, world.cookies.get(caller))
    wrong = {}
    last = {"console.delete_token": 1, "console.log_out": 2}
    for operation, (method, path) in sorted(
        operations(door).items(), key=lambda each: last.get(each[0], 0)
    ):
        # Who may is told 412 or 422 by his If-Match or body; little is changed on the way.
        body = None if method in ("GET", "DELETE") else {}
        headers = {"if-match": '"999999"'} if method in ("PUT", "DELETE") else {}
        url = "http://localhost" + path if path == "/api/health" else filled(path, world.red)
        answer = await client.request(method, url, json=body, headers=headers)
        refused = answer.status_code if answer.status_code in (401, 403, 404) else None
        if refused != expected(operation, path, caller) or answer.status_code >= 500:
            wrong[operation] = (answer.status_code, answer.text[:200])
    assert wrong == {}
    await client.aclose()
