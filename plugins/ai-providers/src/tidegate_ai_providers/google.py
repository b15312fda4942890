"""Access tokens of Google Cloud: fetched beside the calls, and renewed before they end.

A service account signs a statement about itself (RFC 7523) and gets a token for an hour; a user's
own credentials (`gcloud auth application-default login`) hold a refresh token instead.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_URI: Final = "https://oauth2.googleapis.com/token"  # noqa: S105, an address
EARLY: Final = 300.0
"""Seconds before a token's end at which the next is fetched."""
RETRY: Final = (1.0, 60.0)
"""Seconds between tries: at first, and at most."""


class GoogleCredentials:
    """A file of credentials. Raises ValueError where it is none."""

    def __init__(self, file: Path) -> None:
        try:
            self._row: dict[str, Any] = json.loads(file.read_text("utf-8"))
            self._kind = self._row["type"]
            needed = {
                "service_account": ("client_email", "private_key"),
                "authorized_user": ("client_id", "client_secret", "refresh_token"),
            }[self._kind]
            if any(not isinstance(self._row.get(name), str) for name in needed):
                raise KeyError
        except (OSError, ValueError, KeyError, TypeError):
            text = "is no service account's or user's credentials"
            raise ValueError(f"{file} {text}") from None
        self.uri: str = self._row.get("token_uri", TOKEN_URI)
        self._key: rsa.RSAPrivateKey | None = None
        if self._kind == "service_account":
            try:
                key = serialization.load_pem_private_key(self._row["private_key"].encode(), None)
            except (ValueError, TypeError):
                key = None
            if not isinstance(key, rsa.RSAPrivateKey):
                raise ValueError(f"{file}: its private_key is no RSA key")
            self._key = key

    def form(self, now: float) -> dict[str, str]:
        """What is posted to `uri` for a token. `now`: Unix seconds."""
        row = self._row
        if self._key is None:
            names = ("client_id", "client_secret", "refresh_token")
            return {"grant_type": "refresh_token", **{name: row[name] for name in names}}
        header = {"alg": "RS256", "typ": "JWT", "kid": row.get("private_key_id", "")}
        claims = {
            "iss": row["client_email"],
            "scope": SCOPE,
            "aud": self.uri,
            "iat": int(now),
            "exp": int(now) + 3600,
        }
        text = b".".join(_part(json.dumps(value).encode()) for value in (header, claims))
        signature = self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())
        return {"grant_type": GRANT, "assertion": (text + b"." + _part(signature)).decode()}


class AccessToken:
    """The token that calls carry. It is b"" before the first has come, and after its end."""

    def __init__(self, credentials: GoogleCredentials, log: logging.Logger, name: str) -> None:
        self._credentials = credentials
        self._log = log
        self._name = name
        self._token = b""
        self._ends = 0.0
        self.tried = asyncio.Event()
        """The first has come, or has not."""

    @property
    def value(self) -> bytes:
        """The token, while it lasts."""
        return self._token if time.monotonic() < self._ends else b""

    async def keep(self) -> None:
        """Fetch and renew it, until cancelled."""
        pause = RETRY[0]
        while True:
            try:
                await self.fetch()
                pause = RETRY[0]
                left = self._ends - time.monotonic()
                await asyncio.sleep(max(RETRY[0], left - min(EARLY, left / 2)))
            except (OSError, ValueError) as error:
                text = "%s: no access token: %s; the next try is in %g s"
                self.tried.set()
                self._log.warning(text, self._name, error, pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, RETRY[1])

    async def fetch(self) -> None:
        """Fetch it once. ValueError or OSError says why that did not work, without secrets."""
        import httpx2

        try:
            async with httpx2.AsyncClient(timeout=10.0) as client:
                form = self._credentials.form(time.time())
                response = await client.post(self._credentials.uri, data=form)
        except httpx2.HTTPError as error:
            raise OSError(f"{type(error).__name__} at {self._credentials.uri}") from None
        self._take(response.status_code, response.content)

    def _take(self, status: int, content: bytes) -> None:
        try:
            row = json.loads(content)
            if status != 200:
                raise ValueError(f"{row.get('error', 'an error')} (HTTP {status})")
            token, seconds = row["access_token"], float(row.get("expires_in", 3600))
        except (KeyError, TypeError, AttributeError):
            raise ValueError(f"the answer is no token (HTTP {status})") from None
        self._token = str(token).encode()
        self._ends = time.monotonic() + seconds
        self.tried.set()


def _part(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
