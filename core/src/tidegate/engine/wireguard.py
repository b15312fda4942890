"""The keys of a WireGuard network that ends in the node."""

from __future__ import annotations

import json
import os
from pathlib import Path

import mitmproxy_rs


def ensure_keys(path: Path) -> None:
    """Make the keys of both ends where there are none (JSON: `server_key`, `client_key`).

    Raises OSError: it can't be written, or others may read it.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            raise PermissionError(f"{path} may be read by others: chmod 600") from None
        return
    made = {name: mitmproxy_rs.wireguard.genkey() for name in ("server_key", "client_key")}
    with os.fdopen(handle, "w") as file:
        json.dump(made, file, indent=4)
