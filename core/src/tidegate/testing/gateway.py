"""A running Tidegate: the real command in a process group of its own, on free ports."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

START = 60.0
"""Seconds that a start may take on a busy machine."""
STOP = 60.0
"""Seconds that a drain may take."""


class GatewayError(Exception):
    """The gateway did not start, stop or reload as it should; holds its last log lines."""


class ReloadRefused(Exception):
    """A new configuration was refused. `problems` are those of the status page."""

    def __init__(self, problems: list[dict[str, Any]]) -> None:
        super().__init__("\n".join(str(p.get("message", p)) for p in problems))
        self.problems = problems


class Gateway:
    """`async with Gateway(folder, addons_toml) as gateway`, or fixture `gateway`.

    Args:
        folder: a folder of the test's own, for configuration, state and log.
        config: the text of `addons.toml`; None: start without one, from defaults. Without a
            `[[gateway.listen]]` of its own it listens on a free port of 127.0.0.1.
        carrier: "lane" or "engine": put into the `[gateway]` table. None: as the file says.
        env: further variables; what `install_plugin` returns goes here.
        arguments: further flags of `tidegate up`.

    Attributes:
        ready: the ready line.
    """

    def __init__(
        self,
        folder: Path,
        config: str | None = None,
        *,
        carrier: str | None = None,
        env: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.file = folder / "addons.toml"
        self.ready: dict[str, Any] = {}
        self._config = config if carrier is None else with_carrier(config or "", carrier)
        self._env = {**os.environ, **(env or {})}
        self._arguments = arguments
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    # -- where it is --------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The first listener, such as `http://127.0.0.1:40001`."""
        return str(self.ready["gateway"][0])

    @property
    def api_key(self) -> str | None:
        """The key made at this start, if one was."""
        return self.ready.get("api_key")

    @property
    def status_url(self) -> str:
        """Where `/-/status`, `/-/ready` and `/-/healthy` are answered."""
        return str(self.ready["status"])

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def logs(self) -> str:
        """All that it has written to standard error so far."""
        log = self.folder / "gateway.log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    # -- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it and wait for the ready line. Raises GatewayError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tidegate.cli.main", "up", "--json"]
        command += ["--state", str(self.folder / "state")]
        if "[[gateway.listen]]" not in (self._config or ""):
            command += ["--listen", "127.0.0.1:0"]
        if self._config is not None:
            self.file.write_text(self._config, encoding="utf-8")
            command += ["--config", str(self.file)]
        with (self.folder / "gateway.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self.folder,
                env=self._env,
                start_new_session=True,
            )
        self._reader = asyncio.create_task(self._read())
        try:
            self.ready = await self._event("ready", START)
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> int:
        """Send SIGTERM, wait for the drain, return the exit code. Raises GatewayError."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        try:
            return await asyncio.wait_for(self._process.wait(), STOP)
        except TimeoutError:
            raise GatewayError(f"still there {STOP:g} s after SIGTERM\n{self._tail()}") from None
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End every process of the group at once."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await self._process.wait()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    # -- what it does -------------------------------------------------------------------------

    async def reload(self, config: str) -> dict[str, Any]:
        """Write another configuration and wait until all workers serve from it.

        Returns the status page. Raises ReloadRefused; then the old one is still in force.
        """
        fresh = self.file.with_suffix(".new")
        fresh.write_text(config, encoding="utf-8")
        fresh.replace(self.file)
        outcome = await self._event("reload", START)
        if not outcome["ok"]:
            raise ReloadRefused(outcome["problems"])
        return await self.status()

    async def status(self) -> dict[str, Any]:
        """`GET /-/status`."""
        found: dict[str, Any] = await asyncio.to_thread(_get, f"{self.status_url}/-/status")
        return found

    async def counters(self, addon: str) -> dict[str, int]:
        """The counters of an addon, added up over the workers."""
        total: dict[str, int] = {}
        for worker in (await self.status())["workers"]:
            for name, value in worker["counters"].get(addon, {}).items():
                total[name] = total.get(name, 0) + value
        return total

    async def _event(self, name: str, seconds: float) -> dict[str, Any]:
        """The next line that tells of `name`."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    event = await self._events.get()
                    if event is None:
                        raise GatewayError(f"it ended before it told {name!r}\n{self._tail()}")
                    if event.get("event") == name:
                        return event
                    if event.get("event") == "error":
                        raise GatewayError(f"{event}\n{self._tail()}")
        except TimeoutError:
            text = f"no {name!r} line within {seconds:g} s\n{self._tail()}"
            raise GatewayError(text) from None

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            try:
                self._events.put_nowait(json.loads(line))
            except ValueError:
                self._events.put_nowait({"event": "text", "line": line.decode(errors="replace")})
        self._events.put_nowait(None)

    def _tail(self) -> str:
        return "\n".join(self.logs.splitlines()[-30:])


def with_carrier(config: str, carrier: str) -> str:
    """The configuration with `[gateway] carrier` set, where it does not say one itself."""
    if "\n[gateway]" in f"\n{config}":
        head, table, rest = f"\n{config}".partition("\n[gateway]\n")
        return f'{head}{table}carrier = "{carrier}"\n{rest}'.lstrip("\n")
    return f'[gateway]\ncarrier = "{carrier}"\n\n{config}'


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310, loopback http
        return json.load(response)
