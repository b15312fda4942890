"""`tidegate quota` shows what the broker knows."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import pytest
import typer
from rich.console import Console
from tidegate_limit_quota.broker import Broker
from tidegate_limit_quota.config import LimitConfig
from tidegate_limit_quota.protocol import SOCKET, Ask
from tidegate_limit_quota.verbs import register
from typer.testing import CliRunner

SPEND = LimitConfig(name="spend", unit="usd", amount="25.00", window="day")
PARALLEL = LimitConfig(name="parallel", unit="concurrency", amount=20)


@pytest.fixture
async def folder(tmp_path, monkeypatch):
    """The state of a node whose broker runs, in a folder with a long name, here."""
    monkeypatch.chdir(tmp_path)  # the broker changes it
    made = tmp_path / ("long" * 40) / "addons" / "limit-quota"
    made.mkdir(parents=True)
    broker = Broker(made)
    serving = asyncio.create_task(broker.serve())
    broker._lender.greet("w", [SPEND.wire(), PARALLEL.wire()])
    broker._lender.ask("w", [
        Ask(0, "red/ada", "w:1", False, 0, 0, 0, need=10**9),
        Ask(0, "red/ada", "w:1", True, 10**9, 0, 24_180_000_000),
        Ask(1, "red/bob", "w:2", False, 0, 0, 0, need=20),
    ])  # fmt: skip
    await asyncio.sleep(0.05)
    yield made
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def run(folder: Path, *arguments: str):
    app = typer.Typer()
    app.command("other")(lambda: None)
    register(app, "limit-quota", folder)
    register(app, "limit-quota", folder)  # two addons of this kind have one command
    return await asyncio.to_thread(CliRunner().invoke, app, ["quota", *arguments])


async def test_status_is_a_table_with_a_bar_for_each_account(folder):
    result = await run(folder, "status")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    (spend,) = [line for line in lines if line[:1] == ["spend"]]
    (parallel,) = [line for line in lines if line[:1] == ["parallel"]]
    assert spend[1:3] == ["red/ada", "$24.1800"]
    assert parallel[1:3] == ["red/bob", "0"]
    assert "100%" in parallel


async def test_status_in_json_is_exact_and_of_one_limit_where_it_is_named(folder):
    result = await run(folder, "status", "spend", "--json")
    (found,) = json.loads(result.output)["accounts"]
    assert (found["used"], found["lent"], found["amount"]) == (24_180_000_000, 0, 25_000_000_000)
    assert found["resets"] > json.loads(result.output)["now"]


async def test_a_reset_of_nothing_is_a_failure(folder):
    done = await run(folder, "reset", "spend", "red/ada")
    assert (done.exit_code, done.output) == (0, "1 accounts begin anew\n")
    assert (await run(folder, "reset", "spend", "red/eve")).exit_code == 1
    again = await run(folder, "status", "spend", "--json")
    assert json.loads(again.output)["accounts"][0]["used"] == 0


async def test_without_a_broker_it_says_so(tmp_path):
    result = await run(tmp_path, "status")
    assert result.exit_code == 1
    assert "is the node running?" in result.output


async def test_only_the_owner_may_ask_the_broker(folder):
    assert stat.S_IMODE((folder / SOCKET).stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "journal").stat().st_mode) == 0o600


def test_the_table_marks_what_is_used_up():
    from tidegate_limit_quota.verbs import table

    account = {"limit": "calls", "key": "", "per": "gateway", "unit": "requests", "amount": 10,
               "used": 12, "lent": 0, "window": "day", "resets": 1_750_000_000}  # fmt: skip
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table([account]))
    shown = console.export_text()
    assert "gateway" in shown
    assert "█" * 10 in shown
    assert "2025-06-15 15:06:40" in shown
