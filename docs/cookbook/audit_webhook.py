"""Posts each exchange to a web hook, away from the traffic; what can't be sent is counted."""

import asyncio
import json
from http.client import HTTPException
from urllib.request import Request, urlopen

from tidegate.api import AddonConfig, Exchange, Plugin, hook


class Options(AddonConfig):
    """Where to post to, and how many posts may wait."""

    url: str
    queue: int = 1000


class AuditWebhook(Plugin[Options]):
    """Posts one after the other; a worker that ends waits five seconds for the rest."""

    Config = Options

    @hook
    async def startup(self, previous: object) -> None:
        self._posts: asyncio.Queue[bytes] = asyncio.Queue(self.config.queue)
        self._sender = asyncio.create_task(self._send())

    @hook
    def log(self, exchange: Exchange) -> None:
        event = {"id": exchange.id, "path": exchange.path, "outcome": exchange.outcome}
        try:
            self._posts.put_nowait(json.dumps(event).encode())
        except asyncio.QueueFull:
            self.context.counters.add("posts_dropped_total")

    @hook
    async def shutdown(self) -> None:
        await asyncio.wait({asyncio.create_task(self._posts.join())}, timeout=5)
        self._sender.cancel()

    async def _send(self) -> None:
        while body := await self._posts.get():
            try:
                await asyncio.to_thread(self._post, body)
            except (OSError, HTTPException):
                self.context.counters.add("posts_failed_total")
            self._posts.task_done()

    def _post(self, body: bytes) -> None:
        request = Request(self.config.url, body, {"content-type": "application/json"})  # noqa: S310
        urlopen(request, timeout=5).close()  # noqa: S310, the URL is the operator's
