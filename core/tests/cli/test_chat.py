"""`tidegate chat`: against real gateways, with a real terminal where it needs one."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate.cli.chatting.talk import Answer, Talk, TalkError
from tidegate.testing import ScriptedUpstream
from tidegate.testing import script as scripts

CONFIG = """
[gateway]
listen = ["127.0.0.1:0"]
workers = 1

[[addon]]
use = "auth-key"

[[addon]]
use = "demo-upstream"
pace = "1ms"
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def gateway(up: Any) -> Any:
    """A gateway with the demo model; its state is found in `.tidegate`."""
    return up(config=CONFIG)


def test_a_question_is_answered_by_the_gateway_that_runs_here(gateway: Any, tidegate: Run) -> None:
    done = tidegate("chat", "Is", "it", "you?", TIDEGATE_API_KEY=gateway.started["api_key"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "tokens in" in done.stderr


def test_the_answer_as_json(gateway: Any, tidegate: Run) -> None:
    key = gateway.started["api_key"]
    done = tidegate("chat", "--json", "--url", gateway.url, "--key", key, "Hello")
    told = json.loads(done.stdout)
    assert told["answer"]
    assert told["finish"] == "stop"
    assert told["usage"]["output_tokens"] > 0


def test_without_a_key_it_says_how_to_get_one(gateway: Any, tidegate: Run) -> None:
    done = tidegate("chat", "Hello")
    assert done.returncode == 2
    assert "--key" in done.stderr
    assert "tidegate keys" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_gateway_it_says_what_to_do(tidegate: Run) -> None:
    done = tidegate("chat", "--url", "http://127.0.0.1:9", "Hello")
    assert done.returncode == 2
    assert "no gateway answers at http://127.0.0.1:9" in done.stderr
    assert "tidegate up" in done.stderr
    done = tidegate("chat", "--state", "nowhere", "Hello")
    assert done.returncode == 2
    assert "no running node" in done.stderr


def test_what_is_piped_in_is_asked(gateway: Any, env: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tidegate.cli.main", "chat", "--json"]
    key = {"TIDEGATE_API_KEY": gateway.started["api_key"]}
    done = subprocess.run(
        command, input="Hello from a pipe", env=env | key, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answer"]
    done = subprocess.run(
        command, input="", env=env | key, cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "there is no question" in done.stderr


class Terminal:
    """`tidegate chat` on a pseudo-terminal."""

    def __init__(self, env: dict[str, str], folder: Path, *argv: str) -> None:
        self.fd, inner = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tidegate.cli.main", "chat", *argv],
            stdin=inner, stdout=inner, stderr=inner, env={**env, "TERM": "dumb"}, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        self.seen = ""

    def until(self, text: str, seconds: float = 30.0) -> str:
        """All that was shown up to `text`."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} was not shown: {self.seen!r}"
            try:
                self.seen += os.read(self.fd, 4096).decode(errors="replace")
            except OSError:
                raise AssertionError(f"it ended: {self.seen!r}") from None
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def interrupt(self, until: str) -> None:
        """Press Ctrl-C until that is shown: Python misses one just before it waits for a line."""
        for _ in range(30):
            os.killpg(self.process.pid, signal.SIGINT)
            if select.select([self.fd], [], [], 1.0)[0]:
                break
        self.until(until)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        os.close(self.fd)


@pytest.fixture
def terminal(gateway: Any, env: dict[str, str], tmp_path: Path) -> Iterator[Terminal]:
    key = gateway.started["api_key"]
    terminal = Terminal(env | {"TIDEGATE_API_KEY": key}, tmp_path)
    yield terminal
    terminal.close()


def test_a_conversation_in_a_terminal(terminal: Terminal) -> None:
    terminal.until("Ctrl-D ends.")
    terminal.until("> ")
    terminal.type("Hello there\n")
    terminal.until("tokens in")
    terminal.until("> ")
    terminal.type("/system Be brief.\n")
    terminal.until("instructions: Be brief.")
    terminal.until("> ")
    terminal.type("/nothing\n")
    terminal.until("there is no /nothing")
    terminal.until("> ")
    terminal.type("/model no-such-model\n")
    terminal.until("model: no-such-model")
    terminal.until("> ")
    terminal.type("/clear\n")
    terminal.until("forgotten")
    terminal.until("> ")
    terminal.interrupt("> ")  # Ctrl-C at the prompt ends nothing
    terminal.type("/exit\n")
    assert terminal.process.wait(20) == 0


def test_ctrl_c_stops_an_answer_and_not_the_conversation(
    up: Any, env: dict[str, str], tmp_path: Path
) -> None:
    node = up(config=CONFIG.replace('"1ms"', '"400ms"'))
    terminal = Terminal(env | {"TIDEGATE_API_KEY": node.started["api_key"]}, tmp_path)
    try:
        terminal.until("> ")
        terminal.type("Tell me a story\n")
        terminal.until("story\r\n")
        terminal.until(" ")  # the first word of the answer
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.until("stopped")
        terminal.until("> ")
        terminal.type("\x04")
        assert terminal.process.wait(20) == 0
    finally:
        terminal.close()


async def test_turns_are_kept_and_a_question_without_an_answer_is_not(
    upstream: ScriptedUpstream,
) -> None:
    delta = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}]}
    talk = Talk(upstream.url, model="m", system="Be kind.")

    def ask(question: str) -> str:
        return "".join(talk.ask(question, Answer()))

    upstream.answer(*scripts.sse(json.dumps(delta)))
    assert await asyncio.to_thread(ask, "One") == "Hi"
    upstream.answer(*scripts.json({"error": {"message": "No.", "code": "c"}}, 429))
    with pytest.raises(TalkError, match="No") as caught:
        await asyncio.to_thread(ask, "Two")
    assert (caught.value.status, caught.value.code) == (429, "c")
    upstream.answer(*scripts.sse(json.dumps(delta), done=False))
    with pytest.raises(TalkError, match="broke off"):
        await asyncio.to_thread(ask, "Three")
    sent = upstream.requests[-1].json()["messages"]
    assert [message["content"] for message in sent] == ["Be kind.", "One", "Hi", "Three"]
    assert [turn["content"] for turn in talk.turns] == ["One", "Hi", "Three", "Hi"]
