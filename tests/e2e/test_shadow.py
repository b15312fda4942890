"""Shadow mode changes nothing: raw traffic with it, beside raw traffic with the addon off."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import re
import sys
from pathlib import Path

import pytest

from tidegate.testing import Gateway, ScriptedUpstream, install_plugin
from tidegate.testing.script import Action, body, chunked, sse

from .raw import Raw

VANDAL = '''
from mitmproxy import http
from tidegate.api import Body, Denial, Plugin, Principal, hook, upstream_from_url

class Vandal(Plugin):
    """Spoils all that it can reach, in every hook, and decides what it may."""

    def spoil(self, exchange):
        for message in (exchange.request, exchange.response):
            if message is not None:
                message.headers["x-spoilt"] = "1"
                message.headers.pop("host", None)
                message.content = b"spoilt"
                message.trailers = http.Headers([(b"x-spoilt", b"1")])
        exchange.request.path = "/spoilt"
        exchange.request.method = "DELETE"
        exchange.principal = Principal("mallory")
        exchange.upstream = upstream_from_url("http://127.0.0.1:1")
        exchange.notes["spoilt"] = True
        if exchange.response is not None:
            exchange.response.status_code = 418

    @hook
    def authenticate(self, exchange):
        self.spoil(exchange)
        return Principal("mallory")

    @hook
    def authorize(self, exchange):
        self.spoil(exchange)
        return Denial(403, "spoilt", "Spoilt.")

    @hook
    def transform_request(self, exchange):
        self.spoil(exchange)
        if exchange.random.random() < 0.3:
            raise RuntimeError("spoilt")

    @hook
    def cache_lookup(self, exchange):
        self.spoil(exchange)
        return http.Response.make(200, b"spoilt")

    @hook
    def route(self, exchange):
        self.spoil(exchange)
        return upstream_from_url("http://127.0.0.1:1")

    @hook
    def cache_store(self, exchange):
        self.spoil(exchange)

    @hook
    def transform_response(self, exchange):
        self.spoil(exchange)

    @hook
    def transform_event(self, exchange, event):
        event.data = "spoilt"
        return []

    @hook
    def log(self, exchange):
        raise RuntimeError("not run in shadow mode")
'''
STREAM = [("content-type", "text/event-stream")]
ANSWERS: dict[str, tuple[Action, ...]] = {
    "/plain": body(b"hello", 200, [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("X-Case", "y")]),
    "/error": body(b"no", 500),
    "/empty": body(b"", 200),
    "/chunked": chunked(b"one", b"two", trailers={"x-sum": "6"}),
    "/events": sse("1", "2"),
    "/encoded": body(
        gzip.compress(b"data: 1\n\n", mtime=0), 200, [*STREAM, ("content-encoding", "gzip")]
    ),
    "/unknown": body(b"data: 1\n\n", 200, [*STREAM, ("content-encoding", "x-unheard-of")]),
    "/short": body(b": hi\r\n\r\ndata: 1\n\ndata: 2", 200, STREAM),
}


def config(origin: ScriptedUpstream, mode: str) -> str:
    return (
        "[gateway]\nworkers = 1\nanonymous = true\n\n"
        f'[[addon]]\nuse = "vandal"\nmode = "{mode}"\n\n'
        f'[[addon]]\nuse = "route-static"\nroutes = [{{ path = "/", upstream = "{origin.url}" }}]\n'
    )


def requests(seed: int, count: int) -> list[bytes]:
    """Requests of all kinds, by chance."""
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        method = chance.choice(["GET", "POST", "PUT", "HEAD", "OPTIONS"])
        path = chance.choice(list(ANSWERS)) + chance.choice(["", "?q=1&q=%20", "?"])
        fields = ["Host: api.test", f"X-{chance.choice('abc')}: {chance.random()}", "x-dup: 1"]
        if chance.random() < 0.5:
            fields += ["X-Dup: 2", "Accept-Encoding: gzip", "Cookie: a=b"]
        content = (
            chance.randbytes(chance.choice([0, 5, 3000])) if method in ("POST", "PUT") else b""
        )
        if content and chance.random() < 0.5:
            fields.append("Transfer-Encoding: chunked")
            content = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
        elif method in ("POST", "PUT"):
            fields.append(f"Content-Length: {len(content)}")
        head = "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "Connection: close"])
        made.append(head.encode() + b"\r\n\r\n" + content)
    return made


VARIES = re.compile(rb"(?i)(x-request-id: |127\.0\.0\.1:)[0-9a-f]+")


def unframed(message: bytes) -> bytes:
    """A message without what depends on how its bytes happened to come: lengths and chunks."""
    head, _, content = message.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    framing = (b"transfer-encoding:", b"content-length:")
    kept = [line for line in lines if not line.lower().startswith(framing)]
    if len(kept) < len(lines) and b"transfer-encoding: chunked" in head.lower():
        parts = []
        while not content.startswith(b"0\r\n"):
            size, _, rest = content.partition(b"\r\n")
            end = int(size, 16)
            parts.append(rest[:end])
            content = rest[end + 2 :]
        content = b"".join(parts) + content[3:].removesuffix(b"\r\n")
    return b"\r\n".join(kept) + b"\r\n\r\n" + content


async def traffic(gateway: Gateway, origin: ScriptedUpstream, sent: list[bytes]) -> list[bytes]:
    """What the upstream and the client got, byte for byte but for request ids and framing."""
    seen = []
    for request in sent:
        origin.requests.clear()
        async with Raw(gateway.url) as raw:
            await raw.send(request)
            answer = await asyncio.wait_for(raw.reader.read(), 20)
        seen.append(VARIES.sub(rb"\1", b"".join(unframed(r.raw) for r in origin.requests)))
        seen.append(VARIES.sub(rb"\1", unframed(answer)))
    return seen


NEEDS = "@hook(needs=Body(request=True, response=True, limit=2000))\n    "
GREEDY = VANDAL
for name in ("authorize", "transform_request", "transform_response"):
    GREEDY = GREEDY.replace(f"@hook\n    def {name}", f"{NEEDS}def {name}")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("code", [VANDAL, GREEDY], ids=["heads", "bodies"])
async def test_traffic_is_the_same_bytes_in_shadow_mode_and_off(
    tmp_path: Path, carrier: str, seed: int, code: str
) -> None:
    env = install_plugin(tmp_path / "site", "vandal", code)
    sent = requests(seed, 40)
    async with ScriptedUpstream() as origin:
        origin.handle(lambda request: ANSWERS[request.target.partition("?")[0]])
        async with Gateway(
            tmp_path / "gw", config(origin, "off"), carrier=carrier, env=env
        ) as gateway:
            off = await traffic(gateway, origin, sent)
            text = gateway.file.read_text().replace('mode = "off"', 'mode = "shadow"')
            await gateway.reload(text)
            shadow = await traffic(gateway, origin, sent)
            counters = await gateway.counters("vandal")
            report = await report_of(gateway)
    assert shadow == off
    assert b"spoilt" not in b"".join(shadow)
    rows = {(row["phase"], row["decision"]): row for row in report}
    assert rows["authorize", "deny"]["count"] == counters["shadow_deny_total"]
    unseen = 0 if code is VANDAL else len([r for r in sent if len(r) > 2000 or b"Transfer-" in r])
    assert rows["authorize", "deny"]["count"] == len(sent) - unseen
    assert rows["transform_request", "fail"]["count"] < len(sent)
    assert "#" in rows["transform_response", "change"]["examples"][0]["detail"]


WATCH = """
import asyncio
from tidegate.api import Body, Denial, Plugin, hook

class Watch(Plugin):
    @hook(needs=Body(response=True, limit=1000))
    HOW transform_response(self, exchange):
        self.context.counters.add(f"seen_{len(exchange.response.content)}_total")
        WAIT
        if b"2" in exchange.response.content:
            return Denial(403, "two", "No twos.")
"""


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_an_addon_that_needs_answers_whole_does_not_hold_a_stream_back(
    tmp_path: Path, carrier: str, kind: str
) -> None:
    """Each event comes when the upstream sends it; the addon decides at the end."""
    how, wait = ("def", "pass") if kind == "plain" else ("async def", "await asyncio.sleep(0.01)")
    code = WATCH.replace("HOW", how).replace("WAIT", wait)
    env = install_plugin(tmp_path / "site", "watch", code)
    more = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n")
        await more.wait()
        writer.write(b"data: 2\n\n")
        writer.close()

    server = await asyncio.start_server(stream, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    text = (
        "[gateway]\nworkers = 1\n\n"
        '[[addon]]\nuse = "watch"\nmode = "shadow"\n\n'
        f'[[addon]]\nuse = "route-static"\nroutes = [{{ path = "/", upstream = "{url}" }}]\n'
    )
    async with Gateway(tmp_path / "gw", text, carrier=carrier, env=env) as gateway:
        async with Raw(gateway.url) as raw, asyncio.timeout(20):
            await raw.send(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
            await raw.reader.readuntil(b"data: 1\n\n")
            more.set()
            assert b"data: 2\n\n" in await raw.reader.read()
        async with asyncio.timeout(20):
            while not (rows := await report_of(gateway)):
                await asyncio.sleep(0.05)
    server.close()
    assert [(row["decision"], row["count"]) for row in rows] == [("deny", 1)]


async def report_of(gateway: Gateway) -> list[dict[str, object]]:
    """What `tidegate shadow report` says of a running node."""
    argv = ("shadow", "report", "--status", gateway.status_url, "--json")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidegate.cli.main", *argv), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    rows: list[dict[str, object]] = json.loads(out)["shadows"]
    return rows
