"""Runs the saved test cases of a version against a gateway, over HTTP."""

from __future__ import annotations

import http.client
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jsonschema_rs
import orjson

from .operation import Operation
from .options import Expectation, Json

USUAL: Final = "http://127.0.0.1:8080"
_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one case went. `why` is "" where it passed."""

    prompt: str
    case: str
    why: str
    seconds: float
    output: Any = None

    @property
    def passed(self) -> bool:
        """Whether all that was expected held."""
        return not self.why

    def row(self) -> Json:
        """For tables and for JSON."""
        return {
            "prompt": self.prompt,
            "case": self.case,
            "result": "pass" if self.passed else "FAIL",
            "seconds": round(self.seconds, 2),
            "why": self.why,
            "output": self.output,
        }


def run(url: str, key: str | None, operation: Operation, timeout: float) -> list[Outcome]:
    """The outcomes of all cases, one after the other."""
    name = f"{operation.prompt.name}/v{operation.version.version}"
    outcomes = []
    for case in operation.version.tests:
        started = time.monotonic()
        try:
            output = call(url, key, case.variables, timeout)
            why = fault(case.expect, output)
        except (OSError, ValueError, http.client.HTTPException) as error:
            output, why = None, str(error) or type(error).__name__
        outcomes.append(Outcome(name, case.name, why, time.monotonic() - started, output))
    return outcomes


def gateway_of(state: Path) -> str:
    """The gateway whose node has this state folder; the usual address where none is known."""
    try:
        status = (state / "status.url").read_text(encoding="utf-8").strip()
        told = orjson.loads(_get(f"{status}/-/status"))
        return str(told["gateway"][0])
    except (OSError, ValueError, LookupError, http.client.HTTPException):
        return USUAL


def _get(url: str) -> bytes:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5.0)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().read()
    finally:
        connection.close()


def call(url: str, key: str | None, variables: Json, timeout: float) -> Any:
    """The output of one call. ValueError: it was answered with an error."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL")
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout)
    headers = {"content-type": "application/json", "accept": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    try:
        connection.request("POST", parts.path, orjson.dumps(variables), headers)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    try:
        value = orjson.loads(body)
    except ValueError:
        value = {}
    if response.status != 200 or not isinstance(value, dict) or "output" not in value:
        error = value.get("error") if isinstance(value, dict) else None
        told = error.get("message") if isinstance(error, dict) else ""
        raise ValueError(f"{response.status} {told or response.reason}")
    return value["output"]


def fault(expect: Expectation, output: Any) -> str:
    """What of the expectation does not hold; "" where all does."""
    text = output if isinstance(output, str) else orjson.dumps(output).decode()
    shown = f"{text[:_SHOWN]}…" if len(text) > _SHOWN else text
    if "equals" in expect.model_fields_set and output != expect.equals:
        return f"it is {shown!r}"
    for part in _several(expect.contains):
        if part not in text:
            return f"{part!r} is not in {shown!r}"
    for part in _several(expect.excludes):
        if part in text:
            return f"{part!r} is in it"
    if expect.matches is not None and not re.search(expect.matches, text):
        return f"{shown!r} does not match"
    if expect.schema_ is not None:
        validator = jsonschema_rs.validator_for(expect.schema_)
        error = next(iter(validator.iter_errors(output)), None)
        if error is not None:
            return error.message
    return ""


def _several(parts: str | tuple[str, ...]) -> tuple[str, ...]:
    return (parts,) if isinstance(parts, str) else parts
