"""`tidegate keys …`, as a command line."""

import json
from pathlib import Path

import pytest
import typer
from tidegate_auth_key import AuthKey, AuthKeyConfig
from typer.testing import CliRunner

from tidegate.api import AddonContext
from tidegate.api.keys import well_formed


@pytest.fixture
def addon(tmp_path: Path) -> AuthKey:
    return AuthKey(AuthKeyConfig(), AddonContext("auth-key", tmp_path / "state"))


@pytest.fixture
def run(addon):
    app = typer.Typer()
    addon.cli_commands(app)

    def call(*arguments: str, stdin: str = ""):
        return CliRunner().invoke(app, ["keys", *arguments],
                                  input=stdin)  # fmt: skip

    return call


def test_create_prints_the_key_alone_on_standard_output(run, addon):
    result = run("create", "ci", "--team", "platform", "--expires", "2027-01-31")
    assert result.exit_code == 0
    assert well_formed(result.stdout.strip())
    assert [key.id for key in addon.file.read()] == ["platform/ci"]


def test_create_as_json(run):
    result = run("create", "ci", "--json")
    made = json.loads(result.stdout)
    assert well_formed(made.pop("key"))
    assert made == {"name": "ci", "team": "", "expires": None}


def test_list_shows_no_key_and_no_hash(run, addon):
    key = json.loads(run("create", "ci", "--json").stdout)["key"]
    for arguments in (["list"], ["list", "--json"]):
        out = run(*arguments).stdout
        assert "ci" in out
        assert key[:8] in out
        assert key not in out
        assert addon.file.read()[0].hash not in out


def test_revoke_takes_the_key_away(run, addon):
    run("create", "ci")
    assert run("revoke", "ci").exit_code == 0
    assert addon.file.read() == []


def test_revoking_an_unknown_key_fails_and_says_so(run):
    result = run("revoke", "nobody")
    assert result.exit_code == 1
    assert 'no key named "nobody"' in result.stderr


def test_a_wrong_date_is_told(run):
    result = run("create", "ci", "--expires", "tomorrow")
    assert result.exit_code == 1
    assert "2027-01-31" in result.stderr


def test_a_name_that_is_taken_is_told(run):
    run("create", "ci")
    assert "already" in run("create", "ci").stderr


def test_hash_reads_standard_input_and_matches_the_stored_hash(run, addon):
    key = json.loads(run("create", "ci", "--json").stdout)["key"]
    assert run("hash", stdin=key + "\n").stdout.strip() == addon.file.read()[0].hash


def test_a_new_key_is_well_formed_and_stored_nowhere(run, addon):
    assert well_formed(run("new").stdout.strip())
    assert addon.file.read() == []


def test_hash_of_nothing_fails(run):
    assert run("hash", stdin="").exit_code == 1


def test_a_second_addon_has_verbs_of_its_own(tmp_path):
    app = typer.Typer()
    AuthKey(AuthKeyConfig(), AddonContext("partners", tmp_path)).cli_commands(app)
    assert [group.name for group in app.registered_groups] == ["keys-partners"]
