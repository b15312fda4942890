"""One client of a day: `day.py KIND HOST NAME COUNT`. A line of JSON for each exchange.

Each kind is a library as it comes; what differs from a program of anyone's is that it tells.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from collections.abc import Iterator
from typing import Any

KIND, HOST, NAME, COUNT = sys.argv[1:5]
URL = f"https://{HOST}/day/{NAME}"


def ask_httpx(count: int, *, http2: bool = False) -> Iterator[tuple[int, str, Any]]:
    import httpx

    with httpx.Client(http2=http2, timeout=30) as client:
        for number in range(count):
            if number % 5 == 4:
                got = client.post(f"{URL}/{number}", content=b"x" * 5000)
            else:
                got = client.get(f"{URL}/{number}")
            yield got.status_code, got.text, got.headers.get("x-transformed")


def ask_requests(count: int) -> Iterator[tuple[int, str, Any]]:
    import requests

    with requests.Session() as client:
        for number in range(count):
            got = client.get(f"{URL}/{number}", timeout=30)
            yield got.status_code, got.text, got.headers.get("x-transformed")


def ask_openai(count: int) -> Iterator[tuple[int, str, Any]]:
    import openai

    client = openai.OpenAI(api_key="sk-theirs", max_retries=0, timeout=30)
    for number in range(count):
        text = f"{NAME} {number}"
        messages = [{"role": "user", "content": text}]
        if number % 2:
            got = client.chat.completions.create(model="m", messages=messages)
            said = got.choices[0].message.content
        else:
            parts = client.chat.completions.create(model="m", messages=messages, stream=True)
            said = " ".join(part.choices[0].delta.content for part in parts)
        yield (200 if said == f"ok {text}" else 0), said, None


def ask_websocket(count: int) -> Iterator[tuple[int, str, Any]]:
    from wsproto import ConnectionType, WSConnection, events

    context = ssl.create_default_context()
    with (
        socket.create_connection((HOST, 443), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as sock,
    ):
        ws = WSConnection(ConnectionType.CLIENT)

        def answer() -> Any:
            while True:
                for event in ws.events():
                    return event
                ws.receive_data(sock.recv(65536) or None)

        sock.sendall(ws.send(events.Request(host=HOST, target=f"/day/{NAME}/0")))
        answer()
        for number in range(count):
            sock.sendall(ws.send(events.TextMessage(data=f"{NAME} {number}")))
            said = answer().data
            yield (200 if said == f"{NAME} {number}" else 0), said, None
        sock.sendall(ws.send(events.CloseConnection(code=1000)))
        answer()


KINDS = {
    "httpx": ask_httpx,
    "httpx-h2": lambda count: ask_httpx(count, http2=True),
    "requests": ask_requests,
    "openai": ask_openai,
    "websocket": ask_websocket,
}

for status, text, transformed in KINDS[KIND](int(COUNT)):
    print(json.dumps({"status": status, "text": text, "transformed": transformed}), flush=True)
