"""Runs one request through the pipeline of a configuration, in this process.

The addons are started as in a worker, with a copy of the node's state (its small files: keys and
such): nothing of it is written to. `bootstrap` runs, but helper processes are not started and
`log` hooks don't run. The upstream is a stand-in; no exchange leaves this process.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mitmproxy import http

from tidegate.api.exchange import Exchange
from tidegate.api.types import Client
from tidegate.cli import bootstrap
from tidegate.cli.source import worker_count
from tidegate.runtime.drive import Deadline
from tidegate.runtime.guard import watch
from tidegate.runtime.heads import HeadError, open_exchange
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.logqueue import LogQueue
from tidegate.runtime.messages import make_response
from tidegate.runtime.offline import Offline
from tidegate.runtime.pipeline import Pipeline
from tidegate.runtime.settings import Settings
from tidegate.runtime.trace import Trace

from .command import Command, refused

COPIED: Final = 1024 * 1024
"""Bytes up to which a file of the state is copied."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """What the upstream would answer."""

    status: int = 200
    body: str = ""

    def response(self) -> http.Response:
        """As a message. Its type is told by its looks."""
        content = self.body.encode()
        kind = b"text/plain"
        if content.startswith(b"data:"):
            kind = b"text/event-stream"
        elif content[:1] in (b"{", b"["):
            kind = b"application/json"
        fields = ((b"content-type", kind), (b"content-length", b"%d" % len(content)))
        return make_response(self.status, b"", fields, content, 0.0)


class Unlogged(LogQueue):
    """In place of the queue: nothing is written down of what did not happen."""

    def put(self, pipeline: Pipeline, exchange: Exchange) -> None:
        pipeline.generation.release()


def explain(
    settings: Settings, command: Command, state: Path, listener: str, answer: StandIn
) -> dict[str, Any]:
    """The trace of a request. Raises ConfigError where it is none, or addons don't start."""
    with tempfile.TemporaryDirectory(prefix="tidegate-explain-") as folder:
        copy_state(state, Path(folder))
        return asyncio.run(run(settings, command, Path(folder), listener, answer))


async def run(
    settings: Settings, command: Command, state: Path, listener: str, answer: StandIn
) -> dict[str, Any]:
    """Start the addons, run the exchange, shut them down."""
    exchange = exchange_of(settings, command, listener)
    workers = worker_count(settings)
    shared = bootstrap.run(settings, Host(state, workers), listens=False).shared
    runtime = Runtime(Host(state, workers, shared))
    runtime.logs = Unlogged(runtime.background, runtime.counters)
    runtime.commit(await runtime.prepare(settings))
    trace = exchange.trace = Trace(forced=True)
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    watch.start()
    deadline = Deadline(loop, task, exchange, settings.gateway.deadlines.hooks)
    try:
        carrier = Offline(runtime, answer.response())
        await carrier.run(exchange)
    finally:
        deadline.cancel()
        watch.stop()
        await runtime.close()
    found = trace.to_json()
    found["sent"] = [
        {"method": r.method, "path": r.data.path.decode("latin-1").partition("?")[0]}
        for r in carrier.sent
    ]
    return found


def exchange_of(settings: Settings, command: Command, listener: str) -> Exchange:
    """The exchange, as a carrier would open it."""
    names = [each.name for each in settings.gateway.listen]
    if listener and listener not in names:
        raise refused(f"--listener {listener!r}: there are {', '.join(names)}")
    fields = [("host", command.host), *command.headers]
    if command.body:
        fields.append(("content-length", str(len(command.body))))
    try:
        encoded = tuple((n.encode("ascii"), v.encode("latin-1")) for n, v in fields)
        exchange = open_exchange(
            command.method.encode("ascii"),
            command.target.encode("ascii"),
            encoded,
            Client("127.0.0.1", 0, "127.0.0.1", tls=command.tls),
            listener=listener or names[0],
            http_version=command.version,
            paths=settings.gateway.paths,
        )
    except UnicodeEncodeError:
        raise refused("the request has characters that HTTP does not allow: escape them") from None
    except HeadError as error:
        denial = error.denial
        raise refused(
            f"the gateway refuses this before any addon: {denial.status} {denial.code}: "
            f"{denial.message}"
        ) from None
    exchange.request.data.content = command.body
    exchange.bytes_in = len(command.body)
    return exchange


def copy_state(source: Path, target: Path) -> None:
    """Copy the small files of a node's state, as far as they can be read."""
    for file in source.rglob("*") if source.is_dir() else ():
        if file.is_symlink() or not file.is_file():
            continue
        place = target / file.relative_to(source)
        try:
            if file.stat().st_size <= COPIED:
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                shutil.copy2(file, place)
        except OSError:
            continue
