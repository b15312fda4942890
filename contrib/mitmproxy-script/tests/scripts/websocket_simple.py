"""Process individual messages from a WebSocket connection."""

import re

from mitmproxy import http

ended = []


def websocket_start(flow: http.HTTPFlow):
    flow.metadata["started"] = True


def websocket_message(flow: http.HTTPFlow):
    assert flow.websocket is not None
    assert flow.metadata["started"]
    message = flow.websocket.messages[-1]
    if message.from_client:
        message.content = re.sub(rb"^Hello", b"HAPPY", message.content)
    if b"FOOBAR" in message.content:
        message.drop()


def websocket_end(flow: http.HTTPFlow):
    ended.append(flow.request.path)
