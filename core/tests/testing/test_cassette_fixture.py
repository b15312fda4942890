"""The fixture for other people's projects, in a project of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tidegate.testing import ScriptedUpstream, script
from tidegate.testing.cassettes import action_of, folder_for

INSTALLED = {point.name for point in entry_points(group="tidegate.plugins")}
needs_plugins = pytest.mark.skipif(
    not {"record-cassette", "route-static"} <= INSTALLED,
    reason="plugins are missing: pip install tidegate-record-cassette tidegate-route-static",
)

TEST = """
import urllib.request

def get(url):
    return urllib.request.urlopen(url, timeout=20).read()

def test_one(cassette):
    base = cassette("{url}")
    assert get(base + "/a") == b"answer"
    assert get(base + "/a") == b"answer"
"""

OTHER = """\
# tidegate cassette 1
# now: 1795528615.295

> GET http://127.0.0.1/b

< 200 OK

text
| answer
"""


async def run(folder: Path, action: str | None, *flags: str) -> tuple[int, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("TIDEGATE_", "PYTEST_"))}
    if action:
        env["TIDEGATE_CASSETTES"] = action
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *flags, str(folder)],
        cwd=folder, env=env, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@needs_plugins
@pytest.mark.timeout(240)
async def test_a_project_records_once_and_plays_ever_after(
    tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    upstream.answer(*script.body(b"answer"))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_mine.py").write_text(TEST.replace("{url}", upstream.url))

    code, said = await run(tmp_path, None)
    assert code == 0, said
    assert len(upstream.requests) == 1
    folder = folder_for(tmp_path / "test_mine.py", "test_one")
    (file,) = folder.glob("*.cassette")

    (folder / "stale.cassette").write_text(file.read_text().replace("/a", "/b"))
    code, said = await run(tmp_path, "replay", "-n", "1")
    assert code == 0, said
    assert len(upstream.requests) == 1
    assert "unused cassettes" in said
    assert "cassettes/test_mine/test_one/stale.cassette" in said
    assert file.name not in said


@needs_plugins
@pytest.mark.timeout(120)
async def test_a_test_that_asks_in_vain_is_told_the_nearest_cassette(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_mine.py").write_text(TEST.replace("{url}", "http://127.0.0.1:9"))
    folder = folder_for(tmp_path / "test_mine.py", "test_one")
    folder.mkdir(parents=True)
    (folder / "other.cassette").write_text(OTHER)

    code, said = await run(tmp_path, "replay")
    assert code == 1, said
    (section,) = said.split("requests without a cassette")[1:]
    assert "No cassette in" in section
    assert '-  "path": "/b"' in section
    assert '+  "path": "/a"' in section


async def test_another_word_in_the_variable_is_refused_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_mine.py").write_text(TEST)
    code, said = await run(tmp_path, "once")
    assert code == 1, said
    assert "TIDEGATE_CASSETTES=once: choose from record-missing" in said
    assert "Traceback" not in said
    assert "cassettes.py" not in said


def test_the_variable_takes_four_words() -> None:
    assert action_of(None) == action_of("") == "record-missing"
    assert action_of("replay") == "replay"
    with pytest.raises(ValueError, match="choose from record-missing, record, replay, passthrough"):
        action_of("once")
