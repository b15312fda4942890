"""Prompts in files: what refuses to load, and edits while the gateway runs."""

from __future__ import annotations

import asyncio

import pytest
from tidegate_ai_prompts import AiPrompts, AiPromptsConfig
from tidegate_ai_prompts.book import Book

GOOD = """\
description = "Greets."
model = "m"
user = "Greet {{ who }}."
variables.who = { type = "string" }
"""


def load(folder):
    return Book(AiPromptsConfig(folder=str(folder)), folder.parent)


def test_a_file_is_a_prompt_with_the_files_name(kit, tmp_path):
    kit.write(tmp_path / "prompts", "greet", GOOD)
    book = load(tmp_path / "prompts")
    assert list(book.entries) == ["/prompts/greet/v1", "/prompts/greet"]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (GOOD.replace("{{ who }}", "{{ who }"), 3, "unexpected"),
        (GOOD.replace("{{ who }}", "{{ whom }}"), 3, "'whom' is not a variable"),
        (GOOD.replace("model", "modell"), 2, "did you mean `model`"),
        (GOOD + 'latest = "x"\n', 5, "integer"),
        ("model = m\n", 0, "line 1"),
        (GOOD + 'output.schema = { type = "strin" }\n', 0, "schema is not valid"),
        (GOOD + 'examples = [{ variables = {}, output = "x" }]\n', 0, "example can't be used"),
        (GOOD + "parameters = { stream = true }\n", 5, "set by the prompt itself"),
        (GOOD.replace("variables.who", "variables.stream"), 4, "can't be called 'stream'"),
    ],
)
def test_what_is_wrong_with_a_prompt_is_told_with_its_place(kit, tmp_path, text, line, reason):
    file = kit.write(tmp_path / "prompts", "greet", text)
    with pytest.raises(ValueError, match=reason) as caught:
        load(tmp_path / "prompts")
    where = f"{file}:{line}: " if line else f"{file}: "
    assert str(caught.value).startswith(where), str(caught.value)


def test_two_prompts_of_one_name_and_a_missing_folder_are_refused(kit, tmp_path):
    kit.write(tmp_path / "prompts", "one", GOOD)
    kit.write(tmp_path / "prompts", "two", 'name = "one"\n' + GOOD)
    with pytest.raises(ValueError, match="two prompts called 'one'"):
        load(tmp_path / "prompts")
    with pytest.raises(ValueError, match="no folder"):
        load(tmp_path / "nowhere")


async def test_an_edit_is_taken_up_and_a_broken_one_is_not(kit, tmp_path, upstream):
    folder = tmp_path / "prompts"
    kit.write(folder, "greet", GOOD)
    upstream.answer(*kit.answer("Hi"))
    async with kit.running(upstream, {"folder": str(folder)}) as running:

        async def until(counter):
            async with asyncio.timeout(20):
                while not running.counters().get(counter):
                    await asyncio.sleep(0.05)

        async def said():
            await running.http.post("/prompts/greet", json={"who": "Ada"})
            return upstream.requests[-1].json()["messages"][0]["content"]

        assert await said() == "Greet Ada."
        kit.write(folder, "greet", GOOD.replace("Greet {{", "Welcome, {{"))
        await until("prompt_reloads_total")
        assert await said() == "Welcome, Ada."
        kit.write(folder, "greet", GOOD.replace("{{ who }}", "{{ who"))
        await until("prompt_errors_total")
        assert await said() == "Welcome, Ada."


def test_a_configuration_without_prompts_is_refused():
    with pytest.raises(ValueError, match="give a `folder`"):
        AiPrompts.Config.model_validate({})
