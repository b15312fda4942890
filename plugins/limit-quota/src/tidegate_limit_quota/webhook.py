"""Tells a webhook of alerts: signed, tried again, never in anyone's way."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
import urllib.error
import urllib.request
from typing import Any, Final

SETTINGS: Final = "TIDEGATE_LIMIT_QUOTA_WEBHOOK"
"""The variable in which the broker finds its webhook: no command line shows a secret."""
SIGNATURE: Final = "X-Tidegate-Signature"
WAITING: Final = 1000
TRIES: Final = 6
FIRST_WAIT: Final = 0.5
TIMEOUT: Final = 5.0

log = logging.getLogger("limit-quota")


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """`t=…,v1=…`: HMAC-SHA256 (RFC 2104) over the time, a dot and the body.

    The time is signed too, so that a receiver can refuse what was recorded and is sent again.
    """
    signed = hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256)
    return f"t={timestamp},v1={signed.hexdigest()}"


class Webhook:
    """A URL that the operator wrote, and a bounded queue of what it is to be told."""

    def __init__(self, url: str, secret: str, wait: float = FIRST_WAIT) -> None:
        self._url = url
        self._secret = secret
        self._wait = wait
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        self.dropped = 0

    def put(self, limit: str, unit: str, amount: int, key: str, percent: int, now: float) -> None:
        """Have it told of an alert; dropped where too many wait."""
        event = {"event": "quota_threshold", "limit": limit, "key": key, "percent": percent,
                 "unit": unit, "amount": amount, "at": round(now)}  # fmt: skip
        try:
            self._queue.put_nowait(json.dumps(event).encode())
        except asyncio.QueueFull:
            self.dropped += 1
            log.error("the webhook is too slow: %d alerts were dropped", self.dropped)

    async def run(self) -> None:
        """Send what comes, in order."""
        while True:
            body = await self._queue.get()
            wait = self._wait
            for _ in range(TRIES):
                problem = await asyncio.to_thread(self._post, body)
                if not problem:
                    break
                await asyncio.sleep(wait)
                wait *= 2
            else:
                log.error("the webhook did not take an alert, it is dropped: %s", problem)

    def _post(self, body: bytes) -> str:
        """Send one; what went wrong, or ""."""
        stamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            SIGNATURE: signature(self._secret, stamp, body),
        }
        request = urllib.request.Request(  # noqa: S310, the configuration has http(s) only
            self._url, body, headers, method="POST"
        )
        try:
            with _OPENER.open(request, timeout=TIMEOUT):
                return ""
        except (OSError, ValueError) as error:
            return str(error)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What the operator wrote is where it goes, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
