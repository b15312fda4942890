"""The secrets of one store: its master keys, and what is sealed under them."""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

from sqlalchemy import Connection, insert, select, update

from .crypto import KeyFile, Keyring
from .errors import StoreError
from .tables import provider_key, vault


class Vault:
    """Seals and opens; knows the pepper of keys and the key of the audit chain.

    `given` is the text of the master keys from the configuration; without it they are in `file`.
    """

    def __init__(self, given: str | None, file: Path) -> None:
        self._given = given
        self._file = KeyFile(file)
        self._keyring: Keyring | None = None
        self._pepper = b""
        self._audit = b""

    @property
    def pepper(self) -> bytes:
        """What the hashes of keys are made with."""
        return self._known(self._pepper)

    @property
    def audit_key(self) -> bytes:
        """What the chain of the audit is made with."""
        return self._known(self._audit)

    @staticmethod
    def _known(value: bytes) -> bytes:
        if not value:
            raise StoreError("master_key_mismatch", "the store was not opened")
        return value

    def unlock(self, connection: Connection) -> bool:
        """Read the store's own secrets; False: it has none yet. Raises `master_key_mismatch`."""
        found = connection.execute(select(vault.c.name, vault.c.sealed))
        rows = {name: str(sealed) for name, sealed in found}
        if not rows:
            return False
        self._load(make=False)
        if set(rows) != {"pepper", "audit"}:
            raise StoreError("master_key_mismatch", "the store has lost secrets of its own")
        self._pepper = self.open(rows["pepper"], "store/pepper")
        self._audit = self.open(rows["audit"], "store/audit")
        return True

    def make(self, connection: Connection) -> None:
        """Make the secrets of a new store; the caller holds its lock."""
        if self.unlock(connection):
            return
        keyring = self._load(make=True)
        for name in ("pepper", "audit"):
            sealed = keyring.seal(secrets.token_bytes(32), f"store/{name}")
            connection.execute(insert(vault).values(name=name, sealed=sealed))
        self.unlock(connection)

    def seal(self, secret: bytes, belongs: str) -> str:
        """See `Keyring.seal`."""
        return self._ring().seal(secret, belongs)

    def open(self, sealed: str, belongs: str) -> bytes:
        """See `Keyring.open`. A key that a rotation brought meanwhile is looked for."""
        try:
            return self._ring().open(sealed, belongs)
        except StoreError:
            if self._given is not None:
                raise
            return self._load(make=False).open(sealed, belongs)

    def hash(self, key: str) -> str:
        """HMAC-SHA256 of a key under the pepper, in hex."""
        return hmac.digest(self.pepper, key.encode("utf-8", "surrogateescape"), "sha256").hex()

    # -- rotation -----------------------------------------------------------------------------

    def add_key(self, key: str) -> None:
        """Put a new master key before those in the file. Raises StoreError where they are given."""
        if self._given is not None:
            raise StoreError(
                "invalid",
                "the master key is given by the configuration: write the new one before the old"
                " one there (new,old), then rotate with --given, then take the old one out",
            )
        self._keyring = Keyring([*Keyring.parse(key).keys, *self._ring().keys])
        self._file.save(self._keyring)

    def rewrap(self, connection: Connection) -> int:
        """Wrap every secret anew under the key in use; how many there were."""
        ring = self._ring()
        own = connection.execute(select(vault.c.name, vault.c.sealed)).all()
        for name, sealed in own:
            anew = ring.rewrap(sealed, f"store/{name}")
            connection.execute(update(vault).where(vault.c.name == name).values(sealed=anew))
        columns = (provider_key.c.id, provider_key.c.team_id, provider_key.c.provider_id)
        held = connection.execute(
            select(*columns, provider_key.c.sealed).where(provider_key.c.sealed.is_not(None))
        ).all()
        for id, team, provider, sealed in held:
            anew = ring.rewrap(sealed, belonging(team, provider))
            connection.execute(
                update(provider_key).where(provider_key.c.id == id).values(sealed=anew)
            )
        return len(own) + len(held)

    def drop_old_keys(self) -> None:
        """Forget all master keys but the one in use."""
        if self._given is None:
            self._keyring = Keyring(self._ring().keys[:1])
            self._file.save(self._keyring)

    def _ring(self) -> Keyring:
        return self._keyring or self._load(make=False)

    def _load(self, *, make: bool) -> Keyring:
        self._keyring = (
            Keyring.parse(self._given) if self._given is not None else self._file.load(make=make)
        )
        return self._keyring


def belonging(team: str, provider: str) -> str:
    """What the keys of a provider are bound to, by ids."""
    return f"{team}/{provider}"
