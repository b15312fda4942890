"""`addons.toml`: what is wrong is told with file, line and the nearest right name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.runtime.problems import ConfigError
from tidegate.runtime.settings import Settings, load, parse, split_address

BAD = [
    # (what, text, code, line, part of the message, part of the hint)
    ("syntax", '[gateway]\nlisten = "', "config_syntax", 2, "", ""),
    ("top level", "[gatway]\n", "unknown_key", 1, "gatway", "gateway"),
    ("gateway key", "[gateway]\nstatus = \":0\"\nworker = 2", "unknown_key", 3, "worker",
     "workers"),
    ("value", '[gateway]\n\nworkers = "two"', "invalid_value", 3, "workers", ""),
    ("range", "[gateway]\nworkers = 0", "invalid_value", 2, "workers", ""),
    ("address", '[gateway]\nlisten = ["here"]', "invalid_value", 2, "address", ""),
    ("IPv6", '[gateway]\nlisten = ["::1:80"]', "invalid_value", 2, "brackets", ""),
    ("no listener", "[gateway]\nlisten = []", "invalid_value", 2, "at least one", ""),
    ("half a pair", '[gateway]\nlisten = [{ address = ":1", cert = "c" }]', "invalid_value", 2,
     "come together", ""),
    ("nested", '[gateway.deadlines]\nhead = "10s"\nboddy = 1', "unknown_key", 3, "boddy", "body"),
    ("duration", '[gateway.deadlines]\nhead = "10 parsecs"', "invalid_value", 2, "duration", ""),
    ("size", '[gateway.limits]\nhead = "much"', "invalid_value", 2, "size", ""),
    ("no use", '[[addon]]\nname = "x"', "missing_key", 1, "use", ""),
    ("mode", '[[addon]]\nuse = "x"\nmode = "on"', "invalid_value", 3, "mode", ""),
    ("on_error", '[[addon]]\nuse = "x"\non_error = "stop"', "invalid_value", 3, "on_error", ""),
    ("scope key", '[[addon]]\nuse = "x"\nscope = { path = ["/"] }', "unknown_key", 3, "path",
     "paths"),
    ("scope path", '[[addon]]\nuse = "x"\nscope = { paths = ["v1"] }', "invalid_value", 3,
     "starts with", ""),
    ("twice", '[[addon]]\nuse = "x"\n\n[[addon]]\nuse = "x"', "duplicate_addon", 4, '"x"', "name"),
    ("a table", '[addon]\nuse = "x"', "invalid_value", 1, "[[addon]]", ""),
    ("variable", '[[addon]]\nuse = "x"\nkey = "${TG_NOT_SET}"', "unset_variable", 3, "TG_NOT_SET",
     ""),
    ("overlay key", '[deployments.staging]\ngatway = {}', "unknown_key", 2, "gatway", "gateway"),
    ("overlay addon", '[[addon]]\nuse = "auth-key"\n[deployments.staging.addons.auth-kye]\n'
     'mode = "off"', "unknown_addon", 3, "auth-kye", "auth-key"),
    ("after", '[[deployments.staging.addon]]\nuse = "x"\nafter = "y"', "unknown_addon", 3, '"y"',
     ""),
]  # fmt: skip


@pytest.mark.parametrize("row", BAD, ids=[row[0] for row in BAD])
def test_what_is_wrong_is_told_with_its_line_and_the_nearest_name(row):
    _, text, code, line, message, hint = row
    deployment = "staging" if "deployments.staging" in text else ""
    with pytest.raises(ConfigError) as refused:
        parse(text, file="addons.toml", deployment=deployment, env={})
    (problem,) = refused.value.problems
    assert (problem.code, problem.line, problem.file) == (code, line, "addons.toml")
    assert message in problem.message
    assert hint in problem.hint
    assert str(problem).startswith(f"addons.toml:{line}: ")


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as refused:
        parse('[gateway]\nworkers = 0\nlistn = 1\n[[addon]]\nmode = "x"\n')
    assert len(refused.value.problems) >= 3


def test_a_value_is_never_repeated_in_a_problem():
    with pytest.raises(ConfigError) as refused:
        parse('[gateway]\nworkers = "tg_live_secret"')
    assert "tg_live_secret" not in str(refused.value)


def test_an_unreadable_file_is_a_problem(tmp_path):
    with pytest.raises(ConfigError) as refused:
        load(tmp_path / "none.toml")
    assert refused.value.problems[0].code == "config_unreadable"
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(ConfigError) as refused:
        load(tmp_path / "latin.toml")
    assert refused.value.problems[0].code == "config_unreadable"


def test_an_unknown_deployment_is_told_with_the_nearest():
    with pytest.raises(ConfigError) as refused:
        parse("[deployments.staging]\n", deployment="stagin")
    (problem,) = refused.value.problems
    assert problem.code == "unknown_deployment"
    assert problem.hint == 'did you mean "staging"?'


# -- overlays ---------------------------------------------------------------------------------

BASE = """
[gateway]
workers = 2
deadlines = { head = "5s", body = "6s" }

[[addon]]
use = "one"
limits = { a = 1, b = 2 }

[[addon]]
use = "two"

[deployments.staging.gateway]
anonymous = true
deadlines = { head = "7s" }

[deployments.staging.addons.one]
mode = "shadow"
limits = { b = 3 }

[[deployments.staging.addon]]
use = "between"
after = "one"

[[deployments.staging.addon]]
use = "last"

[deployments.production.gateway]
environment = "production"
"""


def staged(deployment: str = "") -> Settings:
    return parse(BASE, deployment=deployment, env={})


def test_the_base_is_as_written_without_a_deployment():
    settings = staged()
    assert [a.use for a in settings.addons] == ["one", "two"]
    assert not settings.anonymous


def test_an_overlay_says_only_what_differs():
    settings = staged("staging")
    assert [a.use for a in settings.addons] == ["one", "between", "two", "last"]
    one = settings.addons[0]
    assert one.mode == "shadow"
    assert one.options == {"limits": {"a": 1, "b": 3}}
    assert settings.anonymous
    assert settings.gateway.workers == 2
    assert (settings.gateway.deadlines.head, settings.gateway.deadlines.body) == (7.0, 6.0)


def test_another_deployment_is_not_touched_by_it():
    settings = staged("production")
    assert settings.production
    assert not settings.anonymous
    assert [a.mode for a in settings.addons] == ["enforce", "enforce"]


# -- variables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "env", "expected"),
    [
        ("${A}", {"A": "1"}, "1"),
        ("x-${A}-${B}", {"A": "1", "B": "2"}, "x-1-2"),
        ("${A:-default}", {}, "default"),
        ("${A:-default}", {"A": ""}, "default"),
        ("${A:-}", {}, ""),
        ("$${A}", {}, "${A}"),
        ("$A costs $5", {}, "$A costs $5"),
        ("${A}", {"A": "${B}"}, "${B}"),
    ],
)
def test_variables_are_put_in(written, env, expected):
    settings = parse(f"[[addon]]\nuse = 'x'\nkey = ['{written}']", env=env)
    assert settings.addons[0].options == {"key": [expected]}


def test_an_addon_that_if_env_switches_off_needs_no_variables(monkeypatch):
    text = '[[addon]]\nuse = "x"\nif_env = "TG_KEY"\nkey = "${TG_KEY}"'
    monkeypatch.delenv("TG_KEY", raising=False)
    assert not parse(text, env={}).addons[0].active
    monkeypatch.setenv("TG_KEY", "k")
    entry = parse(text).addons[0]
    assert entry.active
    assert entry.options == {"key": "k"}


# -- small things -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("[::1]:0", ("::1", 0)),
        (":80", ("127.0.0.1", 80)),
        ("example.test:443", ("example.test", 443)),
    ],
)
def test_addresses(text, expected):
    assert split_address(text) == expected


@pytest.mark.parametrize("text", ["", "8080", "a:b", "1.2.3.4:65536", "::1:80"])
def test_what_is_no_address(text):
    with pytest.raises(ValueError, match="address"):
        split_address(text)


def test_listeners_have_names_of_their_own():
    settings = parse(
        '[gateway]\nlisten = [":1", { address = ":2" }, { name = "x", address = ":3" }]'
    )
    assert [x.name for x in settings.gateway.listen] == ["gateway", "gateway-2", "x"]


def test_a_file_knows_its_folder(tmp_path):
    file: Path = tmp_path / "addons.toml"
    file.write_text("")
    settings = load(file)
    assert settings.base == tmp_path.resolve()
    assert settings.gateway.listen[0].address == "127.0.0.1:8080"
