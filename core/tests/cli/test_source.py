"""Where a configuration comes from, and what of it can change while a node runs."""

from pathlib import Path

import pytest

from tidegate.cli.source import DEFAULT, Source, find, pinned
from tidegate.runtime.problems import ConfigError
from tidegate.runtime.settings import Settings

BASE = """
[[addon]]
use = "log-access"
[[addon]]
use = "route-static"
name = "openai"
if_env = "NO_SUCH_VARIABLE"
[[addon]]
use = "demo-upstream"
"""


def source(text: str = BASE, **flags: object) -> Source:
    return Source(text, "addons.toml", "/", **flags)  # type: ignore[arg-type]


def settings(text: str) -> Settings:
    return source(text).settings()


def test_without_a_file_the_packaged_default_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    found = find(None)
    assert (found.file, found.watched, found.base) == (DEFAULT, None, str(tmp_path))
    active = [entry.name for entry in found.settings().addons if entry.active]
    assert active[-1] == "demo-upstream"
    assert "openai" not in active
    (tmp_path / "addons.toml").write_text(BASE)
    assert find(None).text == BASE


def test_the_default_routes_to_the_provider_where_its_key_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-something")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    entry = next(e for e in find(None).settings().addons if e.name == "openai")
    assert entry.active
    (route,) = entry.options["routes"]
    assert route["upstream"] == "https://api.openai.com/v1"
    assert route["headers"] == {"authorization": "Bearer sk-something"}


def test_a_production_deployment_of_the_default_has_no_demo() -> None:
    made = find(None, deployment="production").settings()
    assert made.production
    assert next(e for e in made.addons if e.use == "demo-upstream").mode == "off"


def test_a_local_model_answers_before_every_route() -> None:
    made = source(local_model=True).settings()
    assert [e.name for e in made.addons] == ["log-access", "local-model", "openai", "demo-upstream"]
    assert len(made.paths) == 4


def test_a_local_model_of_the_file_is_switched_on_and_keeps_its_options() -> None:
    text = BASE + '[[addon]]\nuse = "local-model"\nmode = "off"\nthreads = 2\n'
    made = source(text, local_model=True).settings()
    assert [e.name for e in made.addons][1] == "local-model"
    assert made.addons[1].mode == "enforce"
    assert made.addons[1].options == {"threads": 2}


def test_flags_go_over_the_file() -> None:
    made = source(listen=("127.0.0.1:1", "[::1]:2"), workers=3).settings().gateway
    assert [x.address for x in made.listen] == ["127.0.0.1:1", "[::1]:2"]
    assert [x.name for x in made.listen] == ["gateway", "gateway-2"]
    assert made.workers == 3


def test_a_wrong_address_is_one_problem() -> None:
    with pytest.raises(ConfigError) as caught:
        source(listen=("nonsense",)).settings()
    assert str(caught.value).startswith("--listen: 'nonsense' is not an address")


def test_a_source_survives_the_wire() -> None:
    sent = source(listen=("127.0.0.1:1",), workers=2, local_model=True)
    assert Source.from_wire(sent.to_wire()) == sent
    assert Source.from_wire(sent.to_wire()).digest == sent.digest
    assert source(BASE + "\n").digest != sent.digest


def test_addresses_stay_while_limits_and_certificates_change() -> None:
    old = settings('[gateway]\nlisten = ["127.0.0.1:1"]\nstatus = "127.0.0.1:0"\n')
    new = settings(
        '[gateway]\nlisten = ["127.0.0.1:2"]\nworkers = 7\n[gateway.limits]\nbody = "1KiB"\n'
    )
    made, needs = pinned(new, old)
    assert made.gateway.listen == old.gateway.listen
    assert made.gateway.workers is None
    assert made.limits.body == 1024
    assert sorted(needs) == ["gateway.listen", "gateway.workers"]
    table = '[gateway]\nlisten = [{ address = "127.0.0.1:1", cert = "b.pem", key = "b.key" }]\n'
    made, needs = pinned(settings(table), old)
    assert made.gateway.listen[0].cert == "b.pem"
    assert needs == []
