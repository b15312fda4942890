"""The wheels, installed with pip alone into an empty environment, run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIG = """
[gateway]
listen = ["127.0.0.1:0"]
workers = 1

[[addon]]
use = "demo-upstream"
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel of every member of the workspace."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is missing: pip install uv")
    out = tmp_path_factory.mktemp("wheels")
    subprocess.run(
        [uv, "build", "--quiet", "--all-packages", "--wheel", "--out-dir", str(out)],
        cwd=ROOT, check=True, timeout=300,
    )  # fmt: skip
    return out


def test_every_member_builds_a_wheel(wheels: Path) -> None:
    folders = [*ROOT.glob("plugins/*/pyproject.toml"), *ROOT.glob("contrib/*/pyproject.toml")]
    members = {"core", *(p.parent.name for p in folders)}
    built = {p.name.split("-")[0].removeprefix("tidegate_") for p in wheels.glob("*.whl")}
    assert built == {"tidegate", *(m.replace("-", "_") for m in members)}


@pytest.mark.timeout(600)
def test_core_and_one_plugin_run_in_an_empty_environment(wheels: Path, tmp_path: Path) -> None:
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("TIDEGATE_", "PYTHON", "VIRTUAL"))
    }
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True, timeout=120)
    python = tmp_path / "env/bin/python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--find-links", str(wheels), "tidegate-core", "tidegate-demo-upstream"],
        check=True, timeout=500, env=env,
    )  # fmt: skip
    config = tmp_path / "addons.toml"
    config.write_text(CONFIG)
    command = [tmp_path / "env/bin/tidegate", "up", "--json", "--config", str(config)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            url = f"{ready['gateway'][0]}/v1/models"
            with urllib.request.urlopen(url, timeout=30) as answer:
                assert json.load(answer)["object"] == "list"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
