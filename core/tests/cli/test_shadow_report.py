"""`tidegate shadow report`: rows from a log, and merged rows of workers."""

from __future__ import annotations

import json

import pytest

from tidegate.api import Denial, Principal, Shadow
from tidegate.cli.shadow_report import merged
from tidegate.runtime.settings import parse
from tidegate.runtime.tally import EXAMPLES, OTHERS, ROWS, ShadowTally
from tidegate.testing import make_exchange

CONFIG = """
[[addon]]
use = "limit-rate"
rate = "1/min"
mode = "shadow"
scope = { paths = ["/v1/*"] }
"""


def line(id, principal, *shadows):
    told = [
        {"addon": addon, "phase": phase, "decision": decision, "detail": detail}
        for addon, phase, decision, detail in shadows
    ]
    record = {"request_id": id, "principal": principal, "method": "GET", "path": "/v1/x"}
    return json.dumps({**record, "status": 200, "shadows": told or None})


DENY = ("limit-rate", "authorize", "deny", "rate_limited")
CHANGE = ("mask", "transform_request", "change", "request: body 10 B #0123→12 B #4567")
HALF = '{"half'
LOG = [
    line("r1", "blue/ada", DENY),
    line("r2", "blue/ada", DENY, CHANGE),
    line("r3", None, DENY),
    line("r4", "blue/bob"),
]


@pytest.fixture
def report(tmp_path, tidegate):
    (tmp_path / "addons.toml").write_text(CONFIG)
    (tmp_path / "access.jsonl").write_text("\n".join([*LOG, HALF]))

    def run(*argv):
        result = tidegate("shadow", "report", "--log", "access.jsonl", *argv)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def test_a_log_is_counted_by_addon_scope_principal_and_decision(report):
    rows = json.loads(report("--json"))["shadows"]
    found = [(r["addon"], r["scope"], r["principal"], r["decision"], r["count"]) for r in rows]
    assert found == [
        ("limit-rate", "paths=/v1/*", "blue/ada", "deny", 2),
        ("limit-rate", "paths=/v1/*", "(anonymous)", "deny", 1),
        ("mask", "", "blue/ada", "change", 1),
    ]
    assert [e["request_id"] for e in rows[0]["examples"]] == ["r1", "r2"]


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        (("--addon", "limit-*"), 2),
        (("--principal", "blue/*"), 2),
        (("--scope", "paths=/v1/*"), 2),
        (("--addon", "mask", "--principal", "(anonymous)"), 0),
    ],
)
def test_rows_are_filtered(report, argv, count):
    assert len(json.loads(report("--json", *argv))["shadows"]) == count


def test_a_person_reads_what_would_have_been_and_for_whom(report):
    shown = report()
    assert "limit-rate  scope: paths=/v1/*" in shown
    row = next(line for line in shown.splitlines() if "blue/ada" in line)
    assert row.split()[:2] == ["2", "denied"]
    assert "r1" in shown
    assert "body 10 B #0123→12 B #4567" in shown
    assert "GET /v1/x 200  request: body 10 B #0123→12 B #4567  r2" in shown, "80 columns do"
    assert "would have changed nothing" in report("--addon", "none")


def test_without_a_log_and_a_node_the_error_says_where_to_look(tidegate):
    result = tidegate("shadow", "report")
    assert result.returncode == 2
    assert "[no_node]" in result.stderr
    assert "--status" in result.stderr


def test_rows_of_workers_are_added_up():
    row = {"addon": "a", "scope": "", "principal": "p", "phase": "route", "decision": "route"}
    rows = [{**row, "count": n, "examples": [{"request_id": str(n)}] * n} for n in (1, 3, 9)]
    (found,) = merged(rows)
    assert found["count"] == 13
    assert [e["request_id"] for e in found["examples"]] == ["1", "3", "3", "3", "9"]


def test_a_tally_is_bounded_and_keeps_the_first_examples():
    tally = ShadowTally()
    addons = parse(CONFIG).addons
    for number in range(ROWS + 50):
        exchange = make_exchange(principal=Principal(f"p{number}"))
        exchange.shadows.append(Shadow("limit-rate", "authorize", "deny", "rate_limited"))
        tally.add(exchange, addons)
    rows = tally.to_json()
    assert len(rows) == ROWS + 1
    assert (rows[0]["principal"], rows[0]["count"]) == (OTHERS, 50)
    assert len(rows[0]["examples"]) == EXAMPLES
    assert rows[0]["scope"] == "paths=/v1/*"


def test_an_example_tells_the_status_that_was_given():
    tally = ShadowTally()
    exchange = make_exchange("POST", "http://h.test/x?key=s3cr3t")
    exchange.denial = Denial(503, "x", "")
    exchange.shadows.append(Shadow("a", "route", "route", lambda: "told late"))
    tally.add(exchange, ())
    example = tally.to_json()[0]["examples"][0]
    expected = {"request_id": exchange.id, "method": "POST", "path": "/x"}
    assert example == {**expected, "status": 503, "detail": "told late"}
