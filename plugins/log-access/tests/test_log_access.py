"""Lines, files, and what happens when there is no room for them."""

import asyncio
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError
from tidegate_log_access import LogAccess, LogAccessConfig
from tidegate_log_access import writer as writer_module

from tidegate.api import AddonContext, Attempt, Denial, Node, Principal, Shadow, upstream_from_url
from tidegate.api.platform import CONSUMER, SERVICE, Service, Team
from tidegate.testing import make_answer, make_consumer, make_exchange
from tidegate.testing.contracts import LogContract, PluginContract

CANARY = "canary-0b1e55ed"


class Running:
    """The addon, started, and what it has written."""

    def __init__(self, folder: Path, **options: object) -> None:
        config = LogAccessConfig.model_validate(options)
        self.addon = LogAccess(config, AddonContext("log-access", folder))
        self.file = folder / config.file

    async def __aenter__(self) -> "Running":
        await self.addon.startup(None)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.addon.shutdown()

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    @property
    def lost(self) -> int:
        return self.addon.context.counters.values.get("lines_lost_total", 0)

    async def settled(self, check, seconds: float = 15.0) -> None:
        for _ in range(int(seconds / 0.02)):
            if check():
                return
            await asyncio.sleep(0.02)
        raise AssertionError("it did not come to that")


async def test_a_line_says_what_happened(tmp_path):
    exchange = make_exchange("POST", "http://API.test/v1/chat?a=1&b=2", body={"x": 1})
    exchange.principal = Principal("ci", "platform")
    exchange.stash[CONSUMER] = make_consumer("ci", "platform")
    exchange.stash[SERVICE] = Service("s", "orders", Team("t", "core"))
    exchange.response = make_answer(201)
    exchange.upstream = upstream_from_url("http://127.0.0.1:1", name="blue")
    exchange.attempts = [Attempt(exchange.upstream, 1000.1, ended=1000.35, status=201)]
    exchange.shadows = [Shadow("limit", "authorize", "deny", "rate_limited")]
    exchange.notes["tokens"] = 7
    exchange.outcome, exchange.bytes_out = "answered", 2
    exchange.first_byte, exchange.ended = 1000.25, 1000.5
    async with Running(tmp_path) as running:
        running.addon.log(exchange)
    (line,) = running.lines
    assert line == {
        "time": "2025-06-15T15:06:40Z",
        "request_id": exchange.id,
        "listener": "gateway",
        "client": "192.0.2.1",
        "principal": "platform/ci",
        "team": "platform",
        "key": "tg_shop1",
        "service": "core/orders",
        "method": "POST",
        "host": "api.test",
        "path": "/v1/chat",
        "query": "a&b",
        "status": 201,
        "outcome": "answered",
        "code": None,
        "upstream": "blue",
        "attempts": 1,
        "duration_ms": 500.0,
        "first_byte_ms": 250.0,
        "upstream_ms": 250.0,
        "bytes_in": 7,
        "bytes_out": 2,
        "cache": None,
        "failed_addon": None,
        "notes": {"tokens": 7},
        "shadows": [
            {
                "addon": "limit",
                "phase": "authorize",
                "decision": "deny",
                "detail": "rate_limited",
            }
        ],
    }


async def test_a_denial_is_logged_with_its_code_and_status(tmp_path):
    exchange = make_exchange()
    exchange.denial = Denial(429, "rate_limited", "Too many requests.")
    async with Running(tmp_path, fields=["code", "status", "query", "upstream"]) as running:
        running.addon.log(exchange)
    assert running.lines == [
        {"code": "rate_limited", "status": 429, "query": None, "upstream": None}
    ]


async def test_fields_are_chosen_and_left_out(tmp_path):
    async with Running(tmp_path, fields=["host", "path"], exclude=["host"]) as running:
        running.addon.log(make_exchange())
    assert running.lines == [{"path": "/"}]


async def test_listed_headers_are_logged_and_missing_ones_left_out(tmp_path):
    options = {"fields": ["host"], "headers": ["User-Agent", "accept"]}
    async with Running(tmp_path, **options) as running:
        running.addon.log(make_exchange(headers={"user-agent": "curl/8"}))
    assert running.lines == [{"host": "api.test", "headers": {"user-agent": "curl/8"}}]


@pytest.mark.parametrize("query", ["names", "masked"])
async def test_no_credential_is_written(tmp_path, query):
    exchange = make_exchange(
        url=f"http://api.test/v1?key={CANARY}&api_key={CANARY}&access_token={CANARY}"
        f"&X-Amz-Signature={CANARY}&page=2",
        headers={
            "authorization": f"Bearer {CANARY}",
            "x-api-key": CANARY,
            "cookie": f"session={CANARY}",
            "user-agent": "curl",
        },
    )
    async with Running(tmp_path, query=query, headers=["user-agent"]) as running:
        running.addon.log(exchange)
    assert CANARY not in running.file.read_text()
    assert ("page=2" in running.lines[0]["query"]) == (query == "masked")


async def test_a_bare_key_in_place_of_a_parameter_is_not_taken_for_a_name(tmp_path):
    key = "tg_" + "a" * 49
    async with Running(tmp_path) as running:
        running.addon.log(make_exchange(url=f"http://api.test/?{key}"))
    assert key not in running.file.read_text()


@pytest.mark.parametrize(
    "name", ["authorization", "Cookie", "x-api-key", "x-auth-token", "x-client-secret"]
)
def test_headers_that_may_hold_a_credential_are_refused(name):
    with pytest.raises(ValidationError, match="never logged"):
        LogAccessConfig(headers=(name,))


def test_unknown_fields_are_refused():
    with pytest.raises(ValidationError, match='no field "statsu"'):
        LogAccessConfig(fields=("statsu",))


async def test_odd_values_still_make_one_line_of_json(tmp_path):
    exchange = make_exchange(url="http://api.test/")
    exchange.path = b"/\xff\n".decode("utf-8", "surrogateescape")
    exchange.notes = {"when": Path("/x"), 3: b"\x00"}
    async with Running(tmp_path) as running:
        running.addon.log(exchange)
    (line,) = running.lines
    assert line["path"] == exchange.path


async def test_lines_are_there_soon_without_a_shutdown(tmp_path):
    async with Running(tmp_path) as running:
        for _ in range(3):
            running.addon.log(make_exchange())
        await running.settled(lambda: len(running.lines) == 3)


async def test_a_full_batch_does_not_wait_for_the_timer(tmp_path):
    async with Running(tmp_path, every="1h") as running:
        for _ in range(400):
            running.addon.log(make_exchange())
        await running.settled(lambda: running.file.stat().st_size >= 64 * 1024)


# -- rotation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["rename", "remove", "replace"])
async def test_a_rotated_file_is_opened_anew_and_no_line_is_lost(tmp_path, how):
    async with Running(tmp_path, every="10ms") as running:
        running.addon.log(make_exchange())
        await running.settled(lambda: running.file.stat().st_size)
        first = running.lines
        if how == "remove":
            running.file.unlink()
        else:
            running.file.rename(tmp_path / "access.jsonl.1")
        if how == "replace":
            running.file.touch()
        running.addon.log(make_exchange())
    assert len(running.lines) == 1
    assert running.lines != first
    assert running.lost == 0


async def test_copy_and_truncate_leaves_no_hole(tmp_path):
    async with Running(tmp_path, every="10ms") as running:
        running.addon.log(make_exchange())
        await running.settled(lambda: running.file.stat().st_size)
        os.truncate(running.file, 0)
        running.addon.log(make_exchange())
    assert len(running.lines) == 1


WRITE_MANY = """
import asyncio, sys
from pathlib import Path
from tidegate_log_access import LogAccess, LogAccessConfig
from tidegate.api import AddonContext
from tidegate.testing import make_exchange

async def main(folder, name):
    addon = LogAccess(LogAccessConfig(), AddonContext("log-access", Path(folder)))
    await addon.startup(None)
    for number in range(5000):
        exchange = make_exchange()
        exchange.id = f"{name}-{number}"
        exchange.notes = {"filler": "x" * (number % 997)}
        addon.log(exchange)
        if number % 100 == 0:
            await asyncio.sleep(0)
    await addon.shutdown()

asyncio.run(main(*sys.argv[1:]))
"""


def test_two_processes_share_a_file_without_torn_or_lost_lines(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITE_MANY, str(tmp_path), name])
        for name in ("a", "b")
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    lines = (tmp_path / "access.jsonl").read_text().splitlines()
    ids = [json.loads(line)["request_id"] for line in lines]
    assert sorted(ids) == sorted(f"{name}-{n}" for name in ("a", "b") for n in range(5000))


async def test_standard_output_gets_whole_lines():
    program = WRITE_MANY.replace("LogAccessConfig()", 'LogAccessConfig(file="-")')
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, "/nonexistent", "a", stdout=subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert [json.loads(line)["request_id"] for line in out.splitlines()] == [
        f"a-{n}" for n in range(5000)
    ]


# -- no room ----------------------------------------------------------------------------------


async def test_a_file_that_cannot_be_opened_costs_lines_and_one_warning(tmp_path, caplog):
    (tmp_path / "access.jsonl").mkdir()
    async with Running(tmp_path) as running:
        for _ in range(5):
            running.addon.log(make_exchange())
        assert running.lost == 5
        warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "access.jsonl can't be written" in warnings[0].getMessage()


async def test_it_goes_on_when_the_file_can_be_opened_again(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "RETRY_EVERY", 0.05)
    (tmp_path / "access.jsonl").mkdir()
    async with Running(tmp_path, every="10ms") as running:
        running.addon.log(make_exchange())
        running.file.rmdir()

        def written() -> bool:
            running.addon.log(make_exchange())
            return running.file.exists() and running.file.stat().st_size > 0

        await running.settled(written)
    assert running.lost >= 1


async def test_a_full_disk_costs_lines_and_leaves_no_torn_line_behind(tmp_path):
    async with Running(tmp_path, every="10ms") as running:
        running.addon.log(make_exchange())
        await running.settled(lambda: running.file.stat().st_size)
        limit = running.file.stat().st_size + 100  # room for a part of the next line
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            running.addon.log(make_exchange())
            await running.settled(lambda: running.lost == 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
        running.addon.log(make_exchange())
    first, torn, last = running.file.read_text().splitlines()
    assert json.loads(first)["request_id"] != json.loads(last)["request_id"]
    assert len(torn) == 100


async def test_a_reader_that_does_not_read_holds_nobody_up(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "PENDING", 256 * 1024)
    monkeypatch.setattr("tidegate_log_access.plugin.CLOSING", 0.2)
    os.mkfifo(tmp_path / "access.jsonl")
    reader = os.open(tmp_path / "access.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    try:
        running = Running(tmp_path)
        await running.addon.startup(None)
        before = time.monotonic()
        for _ in range(3000):
            running.addon.log(make_exchange())
        assert time.monotonic() - before < 5
        assert running.lost > 0
        await running.addon.shutdown()
    finally:
        os.close(reader)


class TestPlugin(PluginContract):
    name = "log-access"


class TestLog(LogContract):
    name = "log-access"

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def options(self):
        return {"file": str(self.folder / "access.jsonl")}

    def broken_options(self):
        return {"file": str(self.folder)}

    def written(self):
        return (self.folder / "access.jsonl").read_text()


@pytest.mark.parametrize(("file", "place"), [("a.jsonl", "{}/a.jsonl"), ("-", "standard output")])
def test_the_welcome_says_where_the_lines_go(tmp_path, file, place):
    node = Node(tmp_path, tmp_path, "development")
    addon = LogAccess(LogAccessConfig(file=file), AddonContext("log-access", tmp_path))
    addon.bootstrap(node)
    assert node.announcements == {"access_log": place.format(tmp_path)}
