"""What an author does wrong is told with file, line and what to write instead."""

from __future__ import annotations

import logging

import pytest

from tidegate.runtime import settings
from tidegate.runtime.lifecycle import Host, Runtime
from tidegate.runtime.problems import ConfigError
from tidegate.testing import Harness, Use, make_exchange

HEAD = "import json\n\nfrom tidegate.api import *\n\n\n"
CONFIG = '[gateway]\n[[addon]]\nfile = "mine.py"\n'

MISTAKES = [
    (
        "class P(Plugin):\n    @hook\n    def authorise(self, exchange): ...\n",
        '{py}:8: plugin "P": P.authorise is not a hook (did you mean "authorize"?) [hook_unknown]',
    ),
    (
        "class P(Plugin):\n    def log(self, exchange): ...\n",
        '{py}:7: plugin "P": P.log is named like a hook but has no @hook mark '
        "(write @hook above it, or call it _log if it is none) [hook_unmarked]",
    ),
    (
        "class P(Plugin):\n    @hook\n    async def log(self, flow): ...\n",
        '{py}:8: plugin "P": P.log takes (self, exchange) '
        "(write `async def log(self, exchange):`) [hook_signature]",
    ),
    (
        "class P(Plugin):\n    @hook\n    async def transform_event(self, exchange, event): ...\n",
        '{py}:8: plugin "P": P.transform_event must be a plain def '
        "(write `def transform_event(self, exchange, event):`) [hook_signature]",
    ),
    (
        "class C(AddonConfig):\n    limit: int\n\n\nclass P(Plugin[C]): ...\n",
        '{toml}:2: addon "mine": `limit` is missing (add `limit = …`) [missing_key]',
    ),
    (
        "class C(AddonConfig):\n    limit: int\n\n\nclass P(Plugin[C]):\n    Config = C\n",
        '{toml}:2: addon "mine": `limit` is missing (add `limit = …`) [missing_key]',
    ),
    (
        "class P(Plugin):\n    def __init__(self): ...\n",
        '{toml}:2: addon "mine": TypeError: P.__init__() takes 1 positional argument but 3 were '
        "given at {py}:7 [plugin_invalid]",
    ),
    (
        "class P(Plugin):\n    @hook\n    def startup(self, previous):\n        json.loads('')\n",
        '{toml}:2: addon "mine": JSONDecodeError: Expecting value: line 1 column 1 (char 0) '
        "at {py}:9 [startup_failed]",
    ),
    (
        "class P(Plugin):\n    @hook\n    def startup(self, previous):\n"
        "        raise ValueError('the file of keys is empty')\n",
        '{toml}:2: addon "mine": the file of keys is empty [startup_failed]',
    ),
]


async def refusal(tmp_path, code: str, options: str = "") -> str:
    file = tmp_path / "mine.py"
    file.write_text(HEAD + code)
    runtime = Runtime(Host(tmp_path / "state"))
    with pytest.raises(ConfigError) as refused:
        await runtime.prepare(settings.parse(CONFIG + options, file="a.toml", base=tmp_path))
    return str(refused.value)


@pytest.mark.parametrize(("code", "told"), MISTAKES)
async def test_a_mistake_is_told_with_its_place_and_the_remedy(code, told, tmp_path):
    wanted = told.format(py=tmp_path / "mine.py", toml="a.toml")
    assert await refusal(tmp_path, code) == wanted


async def test_options_of_a_class_without_a_config_are_told_to_its_author(tmp_path):
    text = await refusal(tmp_path, "class P(Plugin): ...\n", "limit = 3\n")
    assert "unknown key `limit` (P takes no options: it has no `Config = …`)" in text


RAISES = """
class P(Plugin):
    @hook
    def authorize(self, exchange):
        return json.loads("")
"""
RETURNS = """
class P(Plugin):
    @hook
    def authorize(self, exchange):
        return False
"""


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (RAISES, "JSONDecodeError: Expecting value: line 1 column 1 (char 0) at {py}:10"),
        (RETURNS, "returned bool; authorize returns Denial or Response or None at {py}:9"),
    ],
)
async def test_a_hook_that_fails_is_logged_with_the_line_of_its_author(
    code, told, tmp_path, caplog
):
    file = tmp_path / "mine.py"
    file.write_text(HEAD + code)
    module: dict[str, object] = {}
    exec(compile(file.read_text(), str(file), "exec"), module)
    with caplog.at_level(logging.ERROR):
        async with Harness(Use(module["P"], {})) as harness:
            await harness.send(make_exchange())
    assert told.format(py=file) in caplog.text
