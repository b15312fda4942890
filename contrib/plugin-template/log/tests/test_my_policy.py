"""The addon in a real pipeline: what every plugin keeps, and what this one does."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tidegate.api import Principal
from tidegate.testing import LogContract, PluginContract, make_exchange


class TestMyPolicy(LogContract, PluginContract):
    """The contract suites; a file that can't be opened is the backend that is down."""

    name = "my-policy"
    file: Path

    @pytest.fixture(autouse=True)
    def _in_a_folder_of_its_own(self, tmp_path: Path) -> None:
        self.file = tmp_path / "lines.jsonl"

    def options(self) -> Mapping[str, Any]:
        return {"file": str(self.file)}

    def broken_options(self) -> Mapping[str, Any]:
        return {"file": "/dev/null/lines.jsonl"}

    def written(self) -> str:
        return self.file.read_text(encoding="utf-8")

    async def test_a_line_says_who_called_and_what_came_of_it(self) -> None:
        async with self.harness() as harness:
            await harness.send(
                make_exchange("PUT", "http://api.test/x", principal=Principal("ada"))
            )
        line = json.loads(self.written())
        expected = {"caller": "ada", "method": "PUT", "path": "/x", "status": 200, "code": None}
        assert line.items() >= expected.items()

    async def test_what_finds_no_room_is_dropped_and_counted(self) -> None:
        async with self.harness() as harness:
            await harness.reload(self.use(queue=1))
            plugin = harness.plugin()
            for _ in range(3):  # without a pause: the writer has no chance to run
                plugin.log(make_exchange())
            assert harness.counters() == {"lines_dropped_total": 2}
