"""Make events hooks non-blocking using async or @concurrent."""

import asyncio
import time

from mitmproxy import http
from mitmproxy.script import concurrent


class Waits:
    async def request(self, flow: http.HTTPFlow):
        await asyncio.sleep(0.01)
        flow.request.headers["waited"] = "1"

    @concurrent
    def response(self, flow: http.HTTPFlow):
        time.sleep(0.6)
        flow.response.headers["slept"] = "1"


addons = [Waits()]
