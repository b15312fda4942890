"""Counting offline: which tokenizer a model has, what it makes of words, prompts and tools."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tidegate_ai_usage.texts import prompt_of, words
from tidegate_ai_usage.tokens import claude_version, quick, rendered, tokenizer_for

TOOL = {
    "name": "get_weather",
    "description": "Weather at a place.",
    "parameters": {
        "type": "object",
        "required": ["city"],
        "properties": {
            "city": {"type": "string", "description": "Name."},
            "unit": {"enum": ["c", "f"]},
            "days": {"type": "array", "items": {"type": "integer"}},
            "at": {"type": "object", "properties": {"lat": {"type": "number"}}},
        },
    },
}
SHOWN = """# Tools

## functions

namespace functions {

// Weather at a place.
type get_weather = (_: {
// Name.
city: string,
unit?: "c" | "f",
days?: number[],
at?: {
lat?: number,
},
}) => any;

} // namespace functions"""


@pytest.mark.parametrize(
    ("model", "exact", "tokens"),
    [
        ("gpt-4o", True, 3),
        ("gpt-4.1-mini", True, 3),
        ("openai/gpt-5.2", True, 3),
        ("o3-mini", True, 3),
        ("gpt-4", True, 3),
        ("gpt-3.5-turbo", True, 3),
        ("claude-3-5-haiku-latest", True, 3),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", True, 3),
        ("mistral-large", False, 3),
    ],
)
def test_a_model_has_the_tokenizer_of_its_family(model, exact, tokens):
    tokenizer = tokenizer_for(model)
    assert (tokenizer.exact, tokenizer.text("Hello there.")) == (exact, tokens)
    assert tokenizer.text("") == tokenizer.answer("") == 0


def test_generations_of_a_family_differ():
    text = "ありがとうございます" * 20
    assert tokenizer_for("gpt-4").text(text) > tokenizer_for("gpt-4o").text(text)


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("claude-3-5-sonnet-20241022", "3.5"),
        ("claude-3-opus-20240229", "3.0"),
        ("claude-sonnet-4-20250514", "4.0"),
        ("claude-opus-4-1-20250805", "4.1"),
        ("claude-opus-4-8", "4.8"),
        ("claude-fable-5", "5.0"),
        ("claude-2.1", "3.0"),
        ("anthropic.claude-haiku-4-5-20251001-v1:0", "4.5"),
        ("gpt-4o", None),
    ],
)
def test_the_generation_of_a_claude_is_in_its_name(model, version):
    assert claude_version(model) == version


def test_tools_are_counted_as_openais_models_see_them():
    assert rendered([{"type": "function", "function": TOOL}]) == SHOWN
    assert rendered([{"functionDeclarations": [TOOL]}]) == SHOWN


def test_a_long_text_is_counted_in_pieces():
    tokenizer = tokenizer_for("gpt-4o")
    text = "All work and no play makes Jack a dull boy. " * 5000
    assert abs(tokenizer.text(text) - 5000 * 11) < 20
    assert not quick(len(text), "gpt-4o")
    assert quick(100, "gpt-4o")
    assert not quick(100, "claude-3-5-haiku-latest")


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        (
            {
                "messages": [
                    {"role": "system", "content": "Be kind."},
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "Look:"},
                            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
                        ],
                    },
                ]
            },
            ["Be kind.", "Look:"],
        ),
        ({"input": "Hi", "instructions": "Be kind."}, ["Be kind.", "Hi"]),
        ({"system": [{"text": "Be kind."}], "messages": []}, ["Be kind."]),
        (
            {
                "systemInstruction": {"parts": [{"text": "Be kind."}]},
                "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
            },
            ["Be kind.", "Hi"],
        ),
        ({"input": ["one", "two"]}, ["one", "two"]),
        ({"requests": [{"content": {"parts": [{"text": "one"}]}}]}, ["one"]),
        ({"messages": [{"role": "user", "content": None}]}, [""]),
        ("no object", []),
        ({"messages": {"no": "list"}, "tools": {"a": 1}, "toolConfig": None}, []),
    ],
)
def test_the_words_of_a_request(body, messages):
    assert [one for one in prompt_of(body).messages if one or messages == [""]] == messages


def test_what_is_no_text_is_known_to_be_missing():
    source = {"type": "base64", "media_type": "image/png", "data": "AA=="}
    image = {"type": "image", "source": source}
    prompt = prompt_of({"messages": [{"role": "user", "content": [image]}]})
    assert prompt.media
    assert "AA==" not in "".join(prompt.messages)


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        (
            {
                "type": "message",
                "content": [
                    {"type": "thinking", "thinking": "Hm."},
                    {"type": "text", "text": "Hi."},
                    {"type": "tool_use", "name": "f", "input": {"a": 1}},
                ],
            },
            ["Hm.", "Hi.", "f", '{"a":1}'],
        ),
        ({"output": {"message": {"content": [{"text": "Hi."}]}}}, ["Hi."]),
        ({"message": {"content": "Hi.", "thinking": "Hm."}}, ["Hi.", "Hm."]),
        ({"choices": [{"message": {"content": "all"}, "delta": {"content": "new"}}]}, ["new"]),
        ({"type": "response.output_text.done", "text": "again"}, []),
    ],
)
def test_the_words_of_an_answer(answer, written):
    assert list(words(answer)) == written


OFFLINE = """
import sys
def deny(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise SystemExit(f"the network was used: {event} {args}")
sys.addaudithook(deny)
import tidegate_ai_usage
early = [m for m in ("genai_prices", "bpe_openai", "ctok") if m in sys.modules]
from tidegate_ai_usage.figures import Usage
from tidegate_ai_usage.prices import Prices
from tidegate_ai_usage.tokens import tokenizer_for
prices = Prices()
prices.load()
print(prices.cost("openai", "gpt-4o", Usage(1), 0.0), early)
print(*[tokenizer_for(m).text("Hello there.") for m in ("gpt-4o", "gpt-4", "claude-opus-4-8")])
"""


def test_nothing_needs_the_network_and_nothing_heavy_is_imported_early():
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout.splitlines() == ["2500000000 []", "3 3 5"], done.stderr
