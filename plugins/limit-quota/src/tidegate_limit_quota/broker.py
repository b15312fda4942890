"""The broker: one process of the node that lends what the limits allow, and writes it down first.

python broker.py FOLDER TOKEN: it listens on a Unix socket in the folder, 0600; its journal is there
too. Where another one has them (the configuration has changed, and both run for a moment), that one
is asked to hand over; it then stands by, in case that the new configuration does not come about.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import orjson

from tidegate_limit_quota.journal import Journal
from tidegate_limit_quota.ledger import Ledger, Record, Terms
from tidegate_limit_quota.lender import Lender
from tidegate_limit_quota.protocol import LINE, SOCKET, Ask, connect, dumps
from tidegate_limit_quota.webhook import SETTINGS, Webhook
from tidegate_limit_quota.windows import SteadyClock

GRACE: Final = 5.0
"""Seconds in which a worker that was cut off may come back before its leases are spent."""
STAND_BY: Final = 0.03
"""Seconds between looks at whether the journal is free."""
HANDED_OVER: Final = 1.0
"""Seconds in which whoever asked for the journal must have taken it."""
FULL_PAUSE: Final = 0.5
"""Seconds between tries to write where the disk takes nothing."""

log = logging.getLogger("limit-quota")


class Broker:
    """Workers' connections, the ledger and its journal."""

    def __init__(self, folder: Path, token: str = "", webhook: Webhook | None = None) -> None:
        self.folder = folder
        self._token = token
        self.journal = Journal(folder)
        records = list(self.journal.read())
        seen = max((r[1] for r in records if r[0] == "t"), default=0.0)
        self.ledger = Ledger(SteadyClock(time.time, time.monotonic, seen))
        self.ledger.replay(records)
        if self.journal.broken:
            log.error("%d lines of the journal were broken and left out", self.journal.broken)
        self._webhook = webhook
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._answers: list[tuple[str, dict[str, Any]]] = []
        self._work = asyncio.Event()
        self._whole = False
        self._handed_over = False
        self._full_until = 0.0
        self._lender = Lender(self.ledger, self._say, self._later, self._alert)

    async def serve(self) -> None:
        """Listen until cancelled, or asked to hand over."""
        os.chdir(self.folder)  # a socket's address is 108 bytes at most
        Path(SOCKET).unlink(missing_ok=True)
        before = os.umask(0o177)
        server = await asyncio.start_unix_server(self._connected, SOCKET, limit=LINE)
        os.umask(before)
        known = {lease.session for lease in self.ledger.leases.values()}
        loop = asyncio.get_running_loop()
        for session in known:
            loop.call_later(GRACE, self._forget, session)
        try:
            while not self._handed_over:
                await self._work.wait()
                self._work.clear()
                await self._flush()
        finally:  # not `async with`: it would wait until the workers have gone
            server.close()
            for writer in self._writers.values():
                writer.close()
            self.journal.close()

    # -- workers ------------------------------------------------------------------------------

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = ""
        try:
            while line := await reader.readline():
                message = orjson.loads(line)
                if "hello" in message:
                    session = message["hello"]
                    self._lender.greet(session, message["limits"])
                    self._writers[session] = writer
                    writer.write(dumps({"broker": self._token}))
                elif "leases" in message:
                    self._lender.ask(session, [Ask(*one) for one in message["leases"]])
                    self._work.set()
                elif "hand over" in message:
                    self._handed_over = True
                    self._work.set()
                elif "bye" in message:
                    self._forget_now(session)
                    return
                else:
                    writer.write(dumps(await self._command(message)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("a connection was closed: %s: %s", type(error).__name__, error)
        finally:
            writer.close()
            if session and self._writers.get(session) is writer:
                del self._writers[session]
                asyncio.get_running_loop().call_later(GRACE, self._forget, session)

    def _forget(self, session: str) -> None:
        """A worker has not come back."""
        if session not in self._writers:
            self._forget_now(session)

    def _forget_now(self, session: str) -> None:
        self._writers.pop(session, None)
        lost = self._lender.gone(session)
        if lost:
            log.warning("a worker is gone: %d leases that it held count as spent", lost)
        self._work.set()

    async def _command(self, message: dict[str, Any]) -> dict[str, Any]:
        """What a person asks."""
        if "reset" in message:
            done = self.ledger.reset(*message["reset"])
            await self._flush()
            return {"reset": done, "written": not self._whole}
        return {
            "now": self.ledger.clock(),
            "accounts": list(self.ledger.status()),
            "pid": os.getpid(),
            "workers": len(self._writers),
            "journal": "full" if self._whole else "written",
        }

    def _say(self, session: str, message: dict[str, Any]) -> None:
        self._answers.append((session, message))
        self._work.set()

    def _later(self, seconds: float, fn: Any) -> None:
        asyncio.get_running_loop().call_later(seconds, fn)

    def _alert(self, terms: Terms, key: str, percent: int) -> None:
        if self._webhook is not None:
            self._webhook.put(
                terms.name, terms.unit, terms.amount, key, percent, self.ledger.clock()
            )

    # -- writing ------------------------------------------------------------------------------

    async def _flush(self) -> None:
        """Write what has changed; then, and only then, tell who waits for it."""
        answers, self._answers = self._answers, []
        records = self.ledger.take_records()
        written = await self._write(records) if records or self._whole else True
        for session, message in answers:
            writer = self._writers.get(session)
            if writer is not None:
                writer.write(dumps(message if written else unwritten(message)))

    async def _write(self, records: list[Record]) -> bool:
        now = time.monotonic()
        if now < self._full_until:
            return False
        try:
            if self._whole or self.journal.grown:
                await asyncio.to_thread(self.journal.replace, list(self.ledger.snapshot()))
            else:
                await asyncio.to_thread(self.journal.append, records)
        except OSError as error:
            if not self._whole:
                log.error("the journal can't be written, nothing is lent: %s", error.strerror)
            self._whole, self._full_until = True, now + FULL_PAUSE
            return False
        if self._whole:
            log.warning("the journal can be written again")
        self._whole = False
        return True


def unwritten(message: dict[str, Any]) -> dict[str, Any]:
    """What a worker hears instead of what could not be written down."""
    return {"failed": [(one[0], one[2]) for one in message.get("granted", ())]}


async def take_over(folder: Path) -> None:
    """Ask a broker that has the journal to hand it over."""
    try:
        _, writer = await connect(folder / SOCKET)
    except OSError:
        return  # it is about to end, or to begin
    writer.write(dumps({"hand over": True}))
    writer.close()


async def run(folder: Path, token: str, webhook: Webhook | None) -> None:
    """Serve; where another broker does, stand by until it is gone."""
    fresh = True
    while True:
        try:
            broker = Broker(folder, token, webhook)
        except BlockingIOError:
            if fresh:
                await take_over(folder)
            await asyncio.sleep(STAND_BY)
            continue
        fresh = False
        await broker.serve()
        await asyncio.sleep(HANDED_OVER)


async def main(folder: Path, token: str) -> None:
    """Run until SIGTERM."""
    settings = os.environ.get(SETTINGS)
    webhook = Webhook(**json.loads(settings)) if settings else None
    tasks = [asyncio.create_task(run(folder, token, webhook))]
    if webhook is not None:
        tasks.append(asyncio.create_task(webhook.run()))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, tasks[0].cancel)
    try:
        await tasks[0]
    except asyncio.CancelledError:
        pass


if __name__ == "__main__":
    logging.basicConfig(format="limit-quota broker: %(message)s", level=logging.INFO)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the supervisor ends this
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
