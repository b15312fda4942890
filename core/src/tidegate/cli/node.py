"""Asks a running node: its status endpoints, found by URL or through its state folder."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import orjson

from tidegate.runtime.problems import ConfigError, Problem

from .source import STATE
from .status import STATUS_FILE

TIMEOUT: Final = 10.0


def status_url(given: str, state: Path | None) -> str:
    """Where the status of a node is served. Raises ConfigError where no node is known."""
    if given:
        return given.partition("/-/")[0].rstrip("/")
    file = (state or Path(STATE)) / STATUS_FILE
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        raise ConfigError(
            Problem(
                "no_node",
                "no running node is known here",
                str(file),
                hint="name it with --status URL (the ready line has it), or its --state folder",
            )
        ) from None


def ask(url: str, path: str) -> Any:
    """The JSON at a path of a node's status server; None: it is not there. Raises ConfigError."""
    if not url.startswith(("http://", "https://")):
        raise ConfigError(Problem("invalid_value", f"--status: {url!r} is not a URL"))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: no proxy
    try:
        with opener.open(url + path, timeout=TIMEOUT) as answer:
            return orjson.loads(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise ConfigError(Problem("node_failed", f"{url}{path} answered {error.code}")) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        text = f"no node answers at {url}: {reason}"
        raise ConfigError(Problem("no_node", text, hint="is it running?")) from None
