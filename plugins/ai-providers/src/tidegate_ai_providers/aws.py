"""AWS credentials, as the SDKs find them: variables, then the shared file."""

from __future__ import annotations

import configparser
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .sigv4 import Credentials

REREAD: Final = 60.0
"""Seconds after which the file is looked at again: other programs renew what stands in it."""


class AwsCredentials:
    """The credentials of a machine. `env`: the variables at the start."""

    def __init__(self, env: Mapping[str, str], profile: str = "default") -> None:
        self._fixed: Credentials | None = None
        if env.get("AWS_ACCESS_KEY_ID") and env.get("AWS_SECRET_ACCESS_KEY"):
            token = env.get("AWS_SESSION_TOKEN", "")
            id, secret = env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]
            self._fixed = Credentials(id, secret, token)
        given = env.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials"
        self._file = Path(given).expanduser()
        self._profile = profile
        self._found: Credentials | None = None
        self._looked = -REREAD
        self._changed = 0.0

    def current(self) -> Credentials | None:
        """What to sign with; None: there is nothing."""
        if self._fixed is not None:
            return self._fixed
        now = time.monotonic()
        if now - self._looked >= REREAD:
            self._looked = now
            self._look()
        return self._found

    def _look(self) -> None:
        try:
            changed = self._file.stat().st_mtime
            if changed == self._changed:
                return
            parser = configparser.RawConfigParser()
            parser.read_string(self._file.read_text("utf-8"))
            row = dict(parser[self._profile]) if parser.has_section(self._profile) else {}
        except (OSError, UnicodeDecodeError, configparser.Error):
            return  # while another program writes it: what was found before still holds
        self._changed = changed
        id, secret = row.get("aws_access_key_id"), row.get("aws_secret_access_key")
        found = Credentials(id, secret, row.get("aws_session_token", "")) if id and secret else None
        self._found = found
