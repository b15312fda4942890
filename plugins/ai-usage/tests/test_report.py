"""`tidegate usage` reads what log-access wrote."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import typer
from tidegate_ai_usage.report import parse_since, register
from typer.testing import CliRunner


def line(hour: int, model: str, cost: float | None, principal: str | None = None, **more) -> str:
    said = {"provider": "openai", "model": model, "input": 100, "cache_read": 10, "output": 5}
    said |= {"cost_usd": cost, "estimated": False, "cached": False, "finish": "stop", **more}
    when = f"2026-11-24T{hour:02}:00:00.000000Z"
    return json.dumps(
        {"time": when, "principal": principal, "notes": {"ai": said}}, separators=(",", ":")
    )


LINES = [
    line(8, "gpt-4o", 0.1, "red/ada"),
    line(9, "gpt-4o", 0.2, "blue/bob"),
    line(10, "gpt-4o-mini", 0.7, "red/ada", cached=True),
    line(11, "own", None),
    line(12, "gpt-4o", 0.0, finish="error"),
    '{"time":"2026-11-24T08:00:00Z","notes":null}',
    '{"time":"2026-11-24T08:00:00Z","notes":{"ai":{"pro',
]


@pytest.fixture
def run(tmp_path: Path):
    log = tmp_path / "access.jsonl"
    log.write_text("\n".join(LINES) + "\n")
    app = typer.Typer()
    app.command("other")(lambda: None)
    register(app, log)
    return lambda *argv: CliRunner().invoke(app, ["usage", *argv])


def rows(result) -> dict[str, dict[str, object]]:
    assert result.exit_code == 0, result.output
    return {row["name"]: row for row in json.loads(result.output)["usage"]}


def test_the_dearest_model_comes_first_and_nothing_is_lost(run):
    found = rows(run("--json"))
    assert list(found) == ["openai/gpt-4o-mini", "openai/gpt-4o", "openai/own"]
    one = found["openai/gpt-4o"]
    assert (one["calls"], one["failed"], one["input"], one["cost_usd"]) == (2, 1, 200, 0.3)
    assert found["openai/own"]["unpriced"] == 1
    assert found["openai/gpt-4o-mini"]["input"] == 0  # it came from a cache


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("principal", {"red/ada", "blue/bob", "-"}),
        ("team", {"red", "blue", "-"}),
        ("provider", {"openai"}),
        ("day", {"2026-11-24"}),
    ],
)
def test_it_sums_by(run, by, names):
    assert set(rows(run("--json", "--by", by))) == names


def test_since_leaves_out_what_was_before(run):
    assert set(rows(run("--json", "--since", "2026-11-24T09:30"))) == {
        "openai/gpt-4o-mini",
        "openai/own",
        "openai/gpt-4o",
    }
    assert rows(run("--json", "--since", "2026-11-25")) == {}


def test_people_get_a_table_with_a_total(run):
    shown = run().output
    assert "gpt-4o-mini" in shown
    assert "0.300000" in shown
    assert shown.splitlines()[-1].split()[0] == "total"


@pytest.mark.parametrize("argv", [["--by", "color"], ["--since", "soon"], ["/no/such/file"]])
def test_what_makes_no_sense_is_told(run, argv):
    result = run(*argv)
    assert result.exit_code == 1
    assert "error: " in result.output


def test_times_are_ago_or_absolute():
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert parse_since("24h", now) == datetime(2026, 11, 23, 12, tzinfo=UTC)
    assert parse_since("2026-11-24T10:00+02:00", now) == datetime(2026, 11, 24, 8, tzinfo=UTC)
