"""The addon: where it looks for a password, and what it says."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any, Final

from pydantic import Field, field_validator, model_validator

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Denial,
    Duration,
    ErrorCode,
    Exchange,
    Model,
    Plugin,
    Principal,
    hook,
)

from .passwords import MAX_LENGTH, Throttle, decode, is_hash, matches, nobody

INVALID: Final = ErrorCode("invalid_credentials", 401, "This name or password is not right.")
THROTTLED: Final = ErrorCode("too_many_attempts", 429, "Too many wrong passwords. Try again later.")
BUSY: Final = ErrorCode(
    "authentication_busy", 503, "Too many passwords are being checked. Try again shortly."
)

REMEMBERED: Final = 4_096
"""Right credentials that are found without Argon2."""
AT_ONCE: Final = 2
"""Passwords that a worker checks at a time: each takes 64 MiB and a core."""
QUEUE: Final = 32
"""Passwords that may wait to be checked."""


class User(Model):
    """A user. `hash` is what `tidegate basic hash` prints."""

    name: str = Field(min_length=1, max_length=256, pattern=r"^[^:\x00-\x1f\x7f]+$")
    hash: str
    team: str = Field(default="", pattern="^[^/]*$")
    roles: tuple[str, ...] = ()

    @field_validator("hash")
    @classmethod
    def _argon2id(cls, value: str) -> str:
        if not is_hash(value):
            raise ValueError("it is no hash by Argon2id: make one with `tidegate basic hash`")
        return value

    def principal(self) -> Principal:
        """The user as others see it."""
        attributes = MappingProxyType({"roles": self.roles} if self.roles else {})
        return Principal(self.name, self.team, attributes)


class AuthBasicConfig(AddonConfig):
    """The options. `remember`: for how long a right password is not checked again."""

    users: tuple[User, ...] = Field(min_length=1)
    realm: str = Field(default="tidegate", pattern=r'^[^"\\\x00-\x1f\x7f]*$')
    remember: Duration = Field(default=600.0, le=86_400)
    attempts: int = Field(default=5, ge=1)
    longest_wait: Duration = Field(default=300.0, ge=1)

    @model_validator(mode="after")
    def _names(self) -> AuthBasicConfig:
        names = [user.name for user in self.users]
        if len(set(names)) < len(names):
            raise ValueError("two users have the same name")
        return self


class AuthBasic(Plugin[AuthBasicConfig]):
    """Names and passwords (RFC 7617): who is calling.

    Argon2id is slow on purpose, and runs beside the loop, few at a time. A right credential is
    remembered by its HMAC under a key of this process; a wrong one never is.
    """

    Config = AuthBasicConfig
    codes = (INVALID, THROTTLED, BUSY)

    def __init__(self, config: AuthBasicConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._users = {user.name: (user.hash, user.principal()) for user in config.users}
        self._key = secrets.token_bytes(32)
        self._known: dict[bytes, tuple[Principal, float]] = {}
        self._throttles = (
            Throttle(config.attempts, config.longest_wait),  # by address and name
            Throttle(config.attempts * 4, config.longest_wait),  # by address
        )
        self._challenge = (("www-authenticate", f'Basic realm="{config.realm}", charset="UTF-8"'),)
        self._nobody = ""
        self._checking: dict[bytes, asyncio.Task[Principal | Denial]] = {}
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="argon2")

    # -- exchanges ----------------------------------------------------------------------------

    @hook
    def authenticate(
        self, exchange: Exchange
    ) -> Principal | Denial | Coroutine[Any, Any, Principal | Denial] | None:
        """The user whose password is right. It waits only where one must be checked."""
        token = self._token(exchange)
        if token is None:
            return None
        if len(token) > MAX_LENGTH:
            return self._invalid()
        mark = hmac.digest(self._key, token.encode("utf-8", "surrogateescape"), "sha256")
        known = self._known.get(mark)
        if known is not None and exchange.started < known[1]:
            return known[0]
        pair = decode(token)
        return self._invalid() if pair is None else self._check(exchange, mark, *pair)

    @staticmethod
    def _token(exchange: Exchange) -> str | None:
        """What stands behind `Basic` in the first such field. All of them are consumed."""
        found: str | None = None
        for raw, value in exchange.request.data.headers.fields:
            if len(raw) == 13 and raw.lower() == b"authorization":
                scheme, _, text = value.decode("utf-8", "surrogateescape").partition(" ")
                if found is None and scheme.lower() == "basic":
                    found = text.strip()
        if found is not None:
            exchange.consume_header("authorization")
        return found

    def _check(
        self, exchange: Exchange, mark: bytes, name: str, password: str
    ) -> Denial | Coroutine[Any, Any, Principal | Denial]:
        """Deny whom failures hold back; else check. All who send the same credential meanwhile
        wait for the same check: a client that starts with ten requests at once is no guesser."""
        task = self._checking.get(mark)
        if task is not None:
            return _join(task)
        now, address = exchange.started, exchange.client.address
        keys = (f"{address} {name}", address)
        wait = max(t.wait(key, now) for t, key in zip(self._throttles, keys, strict=True))
        if wait > 0:
            self.context.counters.add("throttled_total")
            return THROTTLED.denial(retry_after=wait)
        if len(self._checking) >= QUEUE:
            self.context.counters.add("busy_total")
            return BUSY.denial(retry_after=1.0)
        # Counted before it is known to be wrong: a hundred guesses at once are a hundred guesses.
        for throttle, key in zip(self._throttles, keys, strict=True):
            throttle.failed(key, now)
        task = asyncio.create_task(self._verify(mark, name, password, now, keys))
        self._checking[mark] = task
        task.add_done_callback(lambda _: self._checking.pop(mark))
        return _join(task)

    async def _verify(
        self, mark: bytes, name: str, password: str, now: float, keys: tuple[str, str]
    ) -> Principal | Denial:
        # An unknown name costs as much as a known one, and is counted alike.
        hashed, principal = self._users.get(name, (self._nobody, None))
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._threads, matches, hashed, password)
        if principal is None or not right:
            self.context.counters.add("wrong_passwords_total")
            return self._invalid()
        for throttle, key in zip(self._throttles, keys, strict=True):
            throttle.take_back(key)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[mark] = (principal, now + self.config.remember)
        return principal

    def _invalid(self) -> Denial:
        return INVALID.denial(headers=self._challenge)

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Where it looks."""
        return "looked for a name and password in authorization (Basic)"

    # -- life ---------------------------------------------------------------------------------

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Keep the counts of failures over a reload."""
        if isinstance(previous, AuthBasic):
            self._throttles = previous._throttles
        self._nobody = await asyncio.to_thread(nobody, self.config.users[0].hash)

    @hook
    def shutdown(self) -> None:
        """Check no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @hook
    def cli_commands(self, app: Any) -> None:
        """`tidegate basic hash`."""
        from .commands import commands

        name = self.context.name
        app.add_typer(commands(), name="basic" if name == "auth-basic" else f"basic-{name}")


async def _join(task: asyncio.Task[Principal | Denial]) -> Principal | Denial:
    """Wait for a check that goes on where one of those who wait goes away."""
    return await asyncio.shield(task)
