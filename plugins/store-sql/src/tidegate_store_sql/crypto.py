"""Secrets at rest: envelopes of AES-256-GCM under a master key.

Each secret is encrypted under a key of its own, and that key under the master key: a rotation
wraps the small keys anew and touches no secret. What a secret belongs to is bound to it as
associated data: moved to another row, it does not open.

    v1.<id of the master key>.<wrapped key>.<secret>        base64url, nonces in front
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import StoreError

KEY: Final = 32
NONCE: Final = 12


class Keyring:
    """Master keys: the first one seals, all open."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = {key_id(key): key for key in keys}
        if not self._keys:
            raise StoreError("master_key_invalid", "there is no master key")
        self.current = next(iter(self._keys))

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """Keys in base64, separated by white space or commas, the one in use first."""
        keys = []
        for word in text.replace(",", " ").split():
            try:
                key = base64.urlsafe_b64decode(word.replace("+", "-").replace("/", "_"))
            except (ValueError, binascii.Error):
                key = b""
            if len(key) != KEY:
                raise StoreError(
                    "master_key_invalid",
                    f"a master key is {KEY} bytes in base64: `tidegate secrets new` makes one",
                )
            keys.append(key)
        return cls(keys)

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All of them, the one in use first."""
        return tuple(self._keys.values())

    def seal(self, secret: bytes, belongs: str) -> str:
        """An envelope of `secret` that opens only for what it `belongs` to."""
        inner = secrets.token_bytes(KEY)
        return self._envelope(inner, _encrypt(inner, secret, belongs), belongs)

    def open(self, sealed: str, belongs: str) -> bytes:
        """The secret. Raises StoreError `master_key_mismatch`."""
        inner, body = self._unwrap(sealed, belongs)
        return _decrypt(inner, body, belongs)

    def rewrap(self, sealed: str, belongs: str) -> str:
        """The same secret under the key in use now; it is not decrypted for that."""
        inner, body = self._unwrap(sealed, belongs)
        return self._envelope(inner, body, belongs)

    def _envelope(self, inner: bytes, body: bytes, belongs: str) -> str:
        wrapped = _encrypt(self._keys[self.current], inner, _wrapping(belongs))
        return ".".join(("v1", self.current, _text(wrapped), _text(body)))

    def _unwrap(self, sealed: str, belongs: str) -> tuple[bytes, bytes]:
        try:
            version, name, wrapped, body = sealed.split(".")
            parts = base64.urlsafe_b64decode(wrapped), base64.urlsafe_b64decode(body)
        except ValueError:
            version, name, parts = "", "", (b"", b"")
        if version != "v1":
            raise StoreError("master_key_mismatch", "a stored secret is damaged")
        if name not in self._keys:
            raise StoreError(
                "master_key_mismatch",
                f"a stored secret was sealed under the master key {name}, which is not here",
            )
        return _decrypt(self._keys[name], parts[0], _wrapping(belongs)), parts[1]


def key_id(key: bytes) -> str:
    """By which a master key is told from others; says nothing of it."""
    return hashlib.sha256(b"tidegate master key id" + key).hexdigest()[:8]


def new_key() -> str:
    """A fresh master key, as `Keyring.parse` reads it."""
    return _text(secrets.token_bytes(KEY))


class KeyFile:
    """Master keys in a file, 0600, a line each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, *, make: bool) -> Keyring:
        """The keys; with `make`, a first one where there is no file. Raises StoreError."""
        try:
            if self.path.stat().st_mode & 0o077:
                raise StoreError(
                    "master_key_invalid", f"others may read {self.path}: chmod 600 {self.path}"
                )
            return Keyring.parse(self.path.read_text())
        except FileNotFoundError:
            if not make:
                raise StoreError(
                    "master_key_mismatch", f"the store has secrets, but {self.path} is not there"
                ) from None
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._written(new_key() + "\n")
        try:
            os.link(temporary, self.path)  # where another process was first, its key stays
        except FileExistsError:
            pass
        finally:
            os.unlink(temporary)
        return Keyring.parse(self.path.read_text())

    def save(self, keyring: Keyring) -> None:
        """Replace the file, whole or not at all."""
        os.replace(self._written("".join(f"{_text(k)}\n" for k in keyring.keys)), self.path)

    def _written(self, text: str) -> str:
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return temporary


def _wrapping(belongs: str) -> str:
    return f"key of {belongs}"


def _encrypt(key: bytes, secret: bytes, belongs: str) -> bytes:
    nonce = secrets.token_bytes(NONCE)
    return nonce + AESGCM(key).encrypt(nonce, secret, belongs.encode())


def _decrypt(key: bytes, body: bytes, belongs: str) -> bytes:
    try:
        return AESGCM(key).decrypt(body[:NONCE], body[NONCE:], belongs.encode())
    except (InvalidTag, ValueError):
        raise StoreError(
            "master_key_mismatch", f"the secret of {belongs} does not open: damaged, or moved"
        ) from None


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode()
