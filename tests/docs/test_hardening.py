"""The page on what the engine withstands names tests that there are, for each of its lines."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hardening.md").read_text()
LINK = re.compile(r"\[`(test_\w+)`\]\(\.\./([\w/]+\.py)\)")
LINES = [
    line for line in PAGE.split("## Figures")[0].splitlines() if line.startswith("| ")
    and not line.startswith(("| --- ", "| # ", "| what "))
]  # fmt: skip


def test_every_gap_has_its_line() -> None:
    assert re.findall(r"^\| (G\d+) ", PAGE, re.M) == [f"G{number}" for number in range(1, 21)]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[:40])
def test_the_tests_of_a_line_are_there(line: str) -> None:
    named = LINK.findall(line)
    assert named
    for name, file in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.M), name


def test_the_figures_are_those_of_the_results() -> None:
    results = ROOT / "bench" / "results"
    slope = json.loads((results / "h2_slope.json").read_text())
    resets = json.loads((results / "h2_resets.json").read_text())
    day = json.loads((results / "day.json").read_text())
    assert f"{slope['mib_per_10k']:.2f} MiB per 10,000" in PAGE
    assert resets["at once"]["upstream_dials"] == 0
    for way in ("later", "by the server"):
        assert str(resets[way]["upstream_dials"]) in PAGE
    assert f"{day['exchanges']:,} exchanges, addons.toml edited {day['reloads']} times" in PAGE
    assert day["lost"] == day["failed"] == day["requests_to_other_hosts_touched"] == 0
