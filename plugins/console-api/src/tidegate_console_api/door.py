"""What every request passes before a route sees it, and every answer on its way out.

The order: a request id, `Host`, whether a browser was sent here by another site, who calls, the
size of the body. Whoever is not known is refused here: a route that forgets to ask is no hole.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from ipaddress import ip_address
from typing import Any, Final

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import Message, Receive, Scope, Send

from tidegate.api.console import Caller, ConsoleError
from tidegate.api.store import Roles, StoreError

from .answers import problem
from .credentials import Sessions, Tokens
from .scopes import reduced

COOKIE: Final = "tidegate_session"
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
PUBLIC: Final = frozenset(
    {("GET", "/api/health"), ("GET", "/api/openapi.json"), ("POST", "/api/v1/session")}
)
"""What is answered to those who are not logged in."""
_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


type Known = tuple[str, tuple[str, ...] | None, Roles]
"""A user, the scopes of the token that he calls with, and what he may do."""


class Door:
    """The ASGI application: `api` behind these checks."""

    def __init__(
        self,
        api: FastAPI,
        sessions: Sessions,
        tokens: Tokens,
        *,
        hosts: Collection[str] = (),
        body_limit: int,
    ) -> None:
        self.api = api
        self._sessions, self._tokens = sessions, tokens
        self._hosts = frozenset(host.lower() for host in hosts) | {"localhost"}
        self._body_limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            raise RuntimeError(f"the console speaks HTTP, not {scope['type']}")
        state = scope.setdefault("state", {})
        state["request_id"] = secrets.token_hex(12)
        send = _with_headers(send, state["request_id"], tls=scope["scheme"] == "https")
        try:
            await self._admit(scope)
            receive = _limited(scope, receive, self._body_limit)
        except (ConsoleError, StoreError) as error:
            await problem(error, state["request_id"])(scope, receive, send)
            return
        await self.api(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        headers, state = Headers(scope=scope), scope["state"]
        if not self._known_host(headers.get("host", "")):
            raise ConsoleError(400, "host_not_allowed", "This console has no such name: `hosts`.")
        bearer = headers.get("authorization")
        if bearer is None and scope["method"] not in SAFE and _from_elsewhere(scope, headers):
            raise ConsoleError(403, "cross_site", "Another site sent this request.")
        if (scope["method"], scope["path"]) in PUBLIC:
            return
        if bearer is not None:
            found = await run_in_threadpool(self._by_token, bearer)
        else:
            secret = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
            found = await run_in_threadpool(self._by_session, secret)
            state["session"] = secret
        if found is None:
            raise ConsoleError(
                401, "unauthenticated", "Log in, or send a token.", {"www-authenticate": "Bearer"}
            )
        user, scopes, roles = found
        source = scope["client"][0] if scope.get("client") else ""
        state["caller"] = Caller(
            user, roles.admin, roles.teams, source, state["request_id"], scopes
        )

    def _by_token(self, authorization: str) -> Known | None:
        scheme, _, token = authorization.partition(" ")
        found = self._tokens.find(token.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            return None
        user, scopes = found
        return user, scopes, reduced(self._tokens.store.roles(user), scopes)

    def _by_session(self, secret: str) -> Known | None:
        user = self._sessions.user(secret) if secret else None
        return (user, None, self._sessions.store.roles(user)) if user is not None else None

    def _known_host(self, host: str) -> bool:
        """Addresses and known names only: a page of another name that resolves to ours (DNS
        rebinding) would have the browser's consent to read what we answer."""
        name = host.lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        if name in self._hosts:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True


def _from_elsewhere(scope: Scope, headers: Headers) -> bool:
    """Whether a browser sends this for another origin than ours.

    Every browser tells by Sec-Fetch-Site or Origin where a request that changes something comes
    from; what tells neither is no browser, and has no cookie but its own.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and origin != f"{scope['scheme']}://{headers.get('host')}"


def _limited(scope: Scope, receive: Receive, limit: int) -> Receive:
    """`receive`, up to `limit` bytes of body."""
    length = Headers(scope=scope).get("content-length", "0")
    if not length.isdigit() or int(length) > limit:
        raise ConsoleError(413, "body_too_large", f"A body is at most {limit} bytes.")
    total = 0

    async def limited() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise HTTPException(413)
        return message

    return limited


def _with_headers(send: Send, request_id: str, *, tls: bool) -> Callable[[Message], Any]:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            headers["x-request-id"] = request_id
            if tls:
                headers["strict-transport-security"] = "max-age=31536000"
        await send(message)

    return told
