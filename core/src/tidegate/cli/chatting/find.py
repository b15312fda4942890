"""Where the gateway is that `tidegate chat` talks to."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

from tidegate.cli.node import ask, status_url
from tidegate.runtime.problems import ConfigError, Problem

USUAL: Final = ("127.0.0.1", 8080)


def find_gateway(given: str, state: Path | None) -> str:
    """The URL: the one given, of the node whose state folder is here, or the usual. ConfigError."""
    if given:
        return given.rstrip("/").removesuffix("/v1")
    try:
        told = ask(status_url("", state), "/-/status")
    except ConfigError:
        if state is not None:
            raise
    else:
        for url in (told or {}).get("gateway") or ():
            return reachable(str(url))
    try:
        with socket.create_connection(USUAL, timeout=1.0):
            return f"http://{USUAL[0]}:{USUAL[1]}"
    except OSError:
        hint = "start one with `tidegate up`, or name one with --url or TIDEGATE_URL"
        raise ConfigError(Problem("no_node", "no gateway runs here", hint=hint)) from None


def reachable(url: str) -> str:
    """The URL of a listener, with loopback in place of "any address"."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
