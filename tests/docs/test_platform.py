"""The page on the platform, command by command, on a node of its own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.script import body

PAGE = (Path(__file__).parents[2] / "docs/platform.md").read_text()
FILES: dict[str, str] = dict(re.findall(r"```toml (\S+)\n(.*?)```", PAGE, re.DOTALL))


def commands() -> list[tuple[str, list[str]]]:
    """Each command with the lines that it prints, cut where the page has "…"."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            elif part := line.partition("…")[0].rstrip():
                found[-1][1].append(part)
    return found


async def run(command: str, folder: Path, env: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", command, cwd=folder, env=env, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="apt-get install curl")
async def test_the_page_leads_to_an_answer(tmp_path):
    async with ScriptedUpstream() as upstream:
        upstream.answer(*body(b'{"order": 7}'))
        async with Gateway(tmp_path, FILES["addons.toml"]) as gateway:
            platform = FILES["platform.toml"].replace("http://127.0.0.1:9000", upstream.url)
            (tmp_path / "platform.toml").write_text(platform)
            env = {
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "TIDEGATE_STATE": str(tmp_path / "state"),
                "COLUMNS": "80",
            }
            for command, expected in commands():
                if command == "tidegate up":
                    continue
                line = command.replace("http://127.0.0.1:8080", gateway.url)
                export = re.fullmatch(r"export (\w+)=\$\((.*)\)", line)
                if export is not None:
                    env[export[1]] = (await run(export[2], tmp_path, env)).strip()
                    continue
                async with asyncio.timeout(30):  # a change arrives soon, not at once
                    while True:
                        said = await run(line, tmp_path, env)
                        if all(part in said for part in expected):
                            break
                        await asyncio.sleep(0.1)
            assert env["SHOP_KEY"] not in gateway.logs + repr(upstream.requests)
