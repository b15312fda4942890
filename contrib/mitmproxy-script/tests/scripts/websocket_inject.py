"""Send WebSocket messages of one's own: as a reply, and by a timer."""

import asyncio

from mitmproxy import ctx, http


def websocket_message(flow: http.HTTPFlow):
    assert flow.websocket is not None
    last = flow.websocket.messages[-1]
    if last.is_text and "secret" in last.text:
        last.drop()
        ctx.master.commands.call("inject.websocket", flow, last.from_client, b"ssssssh")


async def tick(flow: http.HTTPFlow):
    assert flow.websocket is not None
    while flow.websocket.timestamp_end is None:
        ctx.master.commands.call("inject.websocket", flow, True, b"tick")
        await asyncio.sleep(0.05)


def websocket_start(flow: http.HTTPFlow):
    flow.metadata["timer"] = asyncio.create_task(tick(flow))
