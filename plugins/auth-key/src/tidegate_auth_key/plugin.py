"""The addon: where it looks for a key, and what it says."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, datetime
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Denial,
    ErrorCode,
    Exchange,
    Model,
    Node,
    Plugin,
    Principal,
    Secret,
    hook,
)
from tidegate.api.conditions import ADDRESS, within
from tidegate.api.keys import MAX_LENGTH, PREFIX, SHOWN, new_key, well_formed
from tidegate.api.platform import CONSUMER, SNAPSHOT, Consumer

from .keys import Key, KeyRing, expiry, hash_key, principal
from .store import KeyFile, KeyFileError, StoredKey, node_pepper, now

INVALID: Final = ErrorCode("invalid_api_key", 401, "This API key is not valid.")
EXPIRED: Final = ErrorCode("api_key_expired", 401, "This API key has expired.")
REVOKED: Final = ErrorCode("api_key_revoked", 401, "This API key was revoked.")

CHECK_EVERY: Final = 1.0
"""Seconds between two looks at the key file: a revoked key ends within that time."""


class KeyEntry(Model):
    """A key in the configuration: `hash` (from `tidegate keys hash`), or `key` itself.

    `expires` is a date (valid to the end of that day, UTC) or a date and time.
    """

    name: str = Field(min_length=1)
    team: str = ""
    hash: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    key: Secret | None = None
    expires: datetime | date | None = None

    @model_validator(mode="after")
    def _one(self) -> KeyEntry:
        if (self.hash is None) == (self.key is None):
            raise ValueError("give either `hash` or `key`")
        return self


class AuthKeyConfig(AddonConfig):
    """The options. `form = "any"` takes keys of another make, with at least 16 characters."""

    keys: tuple[KeyEntry, ...] = ()
    file: str | None = None
    header: tuple[str, ...] = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
    query: tuple[str, ...] = ()
    form: Literal["tidegate", "any"] = "tidegate"
    pepper: Secret | None = None

    @model_validator(mode="after")
    def _usable(self) -> AuthKeyConfig:
        for number, entry in enumerate(self.keys):
            key = entry.key.get_secret_value() if entry.key is not None else None
            if key is None:
                continue
            if self.form == "tidegate" and not well_formed(key):
                raise ValueError(
                    f"keys.{number}: `key` is not a key of ours: make one with `tidegate keys"
                    ' create`, or take keys of any form with form = "any"'
                )
            if not 16 <= len(key) <= MAX_LENGTH:
                raise ValueError(f"keys.{number}: `key` has 16 to {MAX_LENGTH} characters")
        if self.pepper is not None and len(self.pepper.get_secret_value()) < 16:
            raise ValueError("`pepper` has at least 16 characters")
        return self


class FieldNames(dict[bytes, str]):
    """The name of ours that a field has, by its bytes in whatever case; "" where it has none.

    Remembers what comes, within bounds: one look-up, where lowering and asking is two.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._ours = {name.encode(): name for name in names}

    def __missing__(self, raw: bytes) -> str:
        name = self._ours.get(raw.lower(), "")
        if len(raw) <= 64 and len(self) < 1024:
            self[raw] = name
        return name


class AuthKey(Plugin[AuthKeyConfig]):
    """API keys, stored as hashes: who is calling."""

    Config = AuthKeyConfig
    codes = (INVALID, EXPIRED, REVOKED, ADDRESS)

    def __init__(self, config: AuthKeyConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        own = context.state / "keys.json"
        self.file = KeyFile(context.base / config.file if config.file is not None else own)
        self._order = tuple(dict.fromkeys(name.lower() for name in config.header))
        self._names = FieldNames(self._order)
        self._any = config.form == "any"
        self._pepper: bytes | None = None
        self._ring = KeyRing([])
        self._watching: asyncio.Task[None] | None = None

    @property
    def pepper(self) -> bytes:
        """The secret that the hashes are made with: from the config, else the node's own."""
        if self._pepper is None:
            given = self.config.pepper
            self._pepper = (
                given.get_secret_value().encode() if given else node_pepper(self.context.state)
            )
        return self._pepper

    # -- exchanges ----------------------------------------------------------------------------

    @hook
    def authenticate(self, exchange: Exchange) -> Principal | Denial | None:
        """The holder of the key that the request carries."""
        credential = self._credential(exchange)
        if credential is None:
            return None
        key = self._ring.seen.get(credential)
        if key is None:
            if len(credential) > MAX_LENGTH or not (self._any or well_formed(credential)):
                return INVALID.denial(headers=CHALLENGE)
            snapshot = exchange.stashed(SNAPSHOT)
            consumer = None if snapshot is None else snapshot.consumer(credential)
            if consumer is not None:
                return self._consumer(exchange, consumer)
            key = self._find(credential)
        if key is None:
            return INVALID.denial(headers=CHALLENGE)
        if key.expires is not None and exchange.now >= key.expires:
            return EXPIRED.denial(headers=CHALLENGE)
        return key.principal

    def _consumer(self, exchange: Exchange, consumer: Consumer) -> Principal | Denial:
        """The application that a key of the platform's store stands for."""
        if consumer.revoked is not None:
            return REVOKED.denial(headers=CHALLENGE)
        if consumer.expires is not None and exchange.now >= consumer.expires:
            return EXPIRED.denial(headers=CHALLENGE)
        networks = consumer.networks
        if networks is not None and not within(exchange.client.address, networks):
            return ADDRESS.denial()
        exchange.stash[CONSUMER] = consumer
        return consumer.principal

    def _find(self, credential: str) -> Key | None:
        """The key of the configuration or the file; without any, no hash is made."""
        key = self._ring.find(hash_key(self.pepper, credential)) if len(self._ring) else None
        if key is not None:
            self._ring.remember(credential, key)
        return key

    def _credential(self, exchange: Exchange) -> str | None:
        """The first credential that is ours. All that are ours are consumed: none goes on."""
        names = self._names
        found: dict[str, str] = {}
        for raw, value in exchange.request.data.headers.fields:
            name = names[raw]
            if not name:
                continue
            text = value.decode("utf-8", "surrogateescape")
            if name == "authorization":
                scheme, _, text = text.partition(" ")
                text = text.strip()
                if scheme.lower() != "bearer" or not (self._any or text.startswith(PREFIX)):
                    continue  # another addon's, such as a JWT
            found.setdefault(name, text)
        first: str | None = None
        for name in self._order if len(found) > 1 else found:
            credential = found.get(name)
            if credential is None:
                continue
            if first is not None and not credential.startswith(PREFIX):
                continue  # a second credential, meant for the upstream
            exchange.consume_header(name)
            first = credential if first is None else first
        if self.config.query and b"?" in exchange.request.data.path:
            for name in self.config.query:
                parameter = exchange.consume_query(name)
                first = parameter if first is None else first
        return first

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Where it looks for a key."""
        places = [
            "authorization (Bearer)" if name == "authorization" else name
            for name in (name.lower() for name in self.config.header)
        ]
        places += [f"?{name}=" for name in self.config.query]
        key = "a key" if self._any else f"a {PREFIX} key"
        return f"looked for {key} in {', '.join(places)}"

    # -- life ---------------------------------------------------------------------------------

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Read the keys, then keep an eye on the file."""
        signature = self.file.signature()
        self._ring = KeyRing(await asyncio.to_thread(self._load))
        for entry in self.config.keys:
            if entry.key is not None and entry.key.get_secret_value() not in os.environ.values():
                self.context.log.warning(
                    'the key of "%s" stands in the file: write its hash (`tidegate keys hash`), '
                    'or key = "${NAME}" with the key in the environment',
                    entry.name,
                )
        self._watching = asyncio.create_task(self._watch(signature))

    @hook
    async def shutdown(self) -> None:
        """Stop watching the file."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    def _load(self) -> list[Key]:
        keys = [stored.key() for stored in self.file.read()]
        for entry in self.config.keys:
            clear = entry.key.get_secret_value() if entry.key is not None else ""
            hashed = entry.hash or hash_key(self.pepper, clear)
            holder = principal(entry.name, entry.team, clear[:SHOWN])
            keys.append(Key(hashed, holder, expiry(entry.expires)))
        return keys

    async def _watch(self, seen: tuple[int, int, int]) -> None:
        """Read the file anew when it changed. A broken one leaves the keys as they were."""
        while True:
            await asyncio.sleep(CHECK_EVERY)
            try:
                signature = await asyncio.to_thread(self.file.signature)
                if signature != seen:
                    seen = signature
                    self._ring = KeyRing(await asyncio.to_thread(self._load))
                    self.context.counters.add("key_file_reloads_total")
            except (OSError, KeyFileError) as error:
                self.context.counters.add("key_file_errors_total")
                self.context.log.error("the keys stay as they were: %s", error)

    # -- the node -----------------------------------------------------------------------------

    @hook
    def bootstrap(self, node: Node) -> None:
        """On a node without any key, make the first one and show it, once."""
        _ = self.pepper
        if self.config.keys or self.file.signature() != (0, 0, 0):
            return
        node.announce("api_key", self.create("default"))

    def create(self, name: str, team: str = "", expires: datetime | date | None = None) -> str:
        """Make a key, store its hash in the file, return it. ValueError: the name is taken."""
        key = new_key()
        stored = StoredKey(
            name=name,
            team=team,
            hash=hash_key(self.pepper, key),
            prefix=key[:SHOWN],
            created=now(),
            expires=expires,
        )
        with self.file.change() as keys:
            if any(other.id == stored.id for other in keys):
                raise ValueError(f'there is a key named "{stored.id}" already')
            keys.append(stored)
        return key

    def revoke(self, id: str) -> None:
        """Take the key `team/name` or `name` out of the file. KeyError: there is none."""
        with self.file.change() as keys:
            found = next((key for key in keys if key.id == id), None)
            if found is None:
                raise KeyError(id)
            keys.remove(found)

    @hook
    def cli_commands(self, app: Any) -> None:
        """`tidegate keys create | list | revoke | new | hash`."""
        from .commands import commands

        name = self.context.name
        app.add_typer(commands(self), name="keys" if name == "auth-key" else f"keys-{name}")


CHALLENGE: Final = (("www-authenticate", "Bearer"),)
"""RFC 9110 §11.6.1: a 401 says how to authenticate."""
