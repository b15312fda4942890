"""An addon that serves by itself beside the workers, on a socket that the node keeps."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx

from .conftest import Node, eventually

Up = Callable[..., Node]

POLICY = '''
"""Says which process and configuration answers, and which addons it knows."""
import asyncio, json, os
from contextlib import asynccontextmanager
from mitmproxy import http
from tidegate.api import AddonConfig, Plugin, hook

class Config(AddonConfig):
    text: str = ""

class Desk(Plugin[Config]):
    @hook
    def bootstrap(self, node):
        node.announce("desk", node.serve("127.0.0.1:0"))

    @asynccontextmanager
    async def serve(self, listener):
        if self.config.text == "ill":
            raise RuntimeError("told to fail")
        server = await asyncio.start_server(self.answer, sock=listener)
        yield
        server.close()

    async def answer(self, reader, writer):
        await reader.readuntil(b"\\r\\n\\r\\n")
        known = sorted(self.context.addons())
        body = json.dumps([os.getpid(), self.config.text, known]).encode()
        writer.write(b"HTTP/1.1 200 OK\\r\\nconnection: close\\r\\n\\r\\n" + body)
        writer.close()
'''
CONFIG = """
[gateway]
listen = ["127.0.0.1:0"]
workers = 1

[[addon]]
use = "answer"
"""
DESK = """
[[addon]]
file = "desk.py"
text = "{text}"
"""


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def ask(desk: str) -> tuple[int, str, list[str]]:
    """Process, option and addons of whoever answers."""
    pid, text, known = httpx.get(f"http://{desk}/", timeout=20.0).json()
    return pid, text, known


def test_a_companion_comes_restarts_follows_the_file_and_ends_with_the_node(
    up: Up, tmp_path: Path
) -> None:
    (tmp_path / "desk.py").write_text(POLICY)
    node = up(config=CONFIG)
    node.file.write_text(CONFIG + DESK.format(text="old"))
    desk = node.event("announced")["desk"]
    assert node.event("reload")["ok"]
    first, text, known = ask(desk)
    assert text == "old"
    assert known == ["answer", "desk"]

    os.kill(first, signal.SIGKILL)
    second = ask(desk)[0]  # it waits in the queue of the socket until one is there
    assert second != first

    node.file.write_text(CONFIG + DESK.format(text="ill"))
    refused = node.event("reload")
    assert not refused["ok"]
    assert "told to fail" in refused["problems"][0]["message"]
    assert ask(desk)[:2] == (second, "old")

    node.file.write_text(CONFIG + DESK.format(text="new"))
    assert node.event("reload")["ok"]
    eventually(lambda: not exists(second))
    third, text, _ = ask(desk)
    assert text == "new"

    assert node.stop() == 0
    assert not exists(third)
