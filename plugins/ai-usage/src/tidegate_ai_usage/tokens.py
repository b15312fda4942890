"""Counts tokens offline: vocabularies come inside the wheels, nothing is fetched at any time.

OpenAI's models: bpe-openai, exact. Claude: ctok, a reconstruction of its counts. Others are
estimated with OpenAI's vocabulary. All of it is slow to load and some of it slow to run, so it
belongs into a thread, but for short texts once it is loaded: see `quick`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from .figures import Json
from .texts import Prompt

QUICK: Final = 16 * 1024
"""Characters that OpenAI's tokenizer counts in less than half a millisecond."""
_PIECE: Final = 32 * 1024
"""Characters counted at a time: between two pieces a thread lets others run."""
_CHARACTERS: Final = 4
"""Characters of a token, where nothing better is known."""

_CLAUDE_TOOLS: Final = 496
"""Tokens of the instructions that Claude is given with tools (Anthropic, "Tool use", pricing)."""

_OLD: Final = re.compile(r"gpt-4(?!\.|o|-o)|gpt-3\.?5|text-embedding|ada-00")
_OPENAI: Final = re.compile(
    r"(?:^|/)(?:gpt-(?!oss)|chatgpt|o[134](?:-|$)|text-embedding|codex|ft:gpt)"
)
_CLAUDE: Final = re.compile(r"claude-(?:(\d)-(\d+)|[a-z]+-(\d)-?(\d{0,2})(?!\d)|(\d))")


def rough(characters: int) -> int:
    """Tokens of so many characters, roughly."""
    return -(-characters // _CHARACTERS)


@cache
def _bpe(encoding: str) -> Any:
    from bpe_openai import _bindings

    return _bindings.tokenizer_for_encoding(encoding)


def _count_bpe(encoding: str, text: str) -> int:
    count = _bpe(encoding).count
    if len(text) <= _PIECE:
        return int(count(text))
    pieces = [text[at : at + _PIECE] for at in range(0, len(text), _PIECE)]
    return sum(int(count(piece)) for piece in pieces)


def _count_claude(version: str, text: str) -> int:
    import ctok

    return int(ctok.token_count(text, version)) - _claude_frame(version)


@cache
def _claude_frame(version: str) -> int:
    """Tokens that ctok counts around a message."""
    import ctok

    return list(ctok.tokenize("a", version)).count("⟨pad⟩")


def claude_version(model: str) -> str | None:
    """The generation of a Claude model, as ctok wants it; None: it is no Claude.

    >>> claude_version("claude-3-5-haiku-20241022"), claude_version("claude-opus-4-7")
    ('3.5', '4.7')
    """
    found = _CLAUDE.search(model)
    if found is None:
        return "3.0" if "claude" in model else None
    major = found[1] or found[3] or found[5]
    minor = found[2] or found[4] or "0"
    return f"{major}.{minor}" if len(minor) <= 2 and int(major) >= 3 else "3.0"


class Tokenizer:
    """Counts as one family of models does. `exact`: it is that family's own.

    The numbers are tokens that frame what is said, found by comparing with what providers say:
    `frame` each message, `reply` besides one of the model's own, `call` one that calls a tool or
    answers so, `answer` what the model writes, `tools` the list of tools.
    """

    __slots__ = ("_answer", "_call", "_count", "_frame", "_reply", "_tools", "exact", "quick")

    def __init__(
        self,
        count: Callable[[str], int],
        *,
        exact: bool,
        quick: int,
        frame: int,
        answer: int,
        tools: int,
        call: int = 0,
        reply: int = 0,
    ) -> None:
        self._count = count
        self._frame = frame
        self._answer = answer
        self._tools = tools
        self._call = call
        self._reply = reply
        self.exact = exact
        self.quick = quick
        """Characters that may be counted on the loop."""

    def text(self, text: str) -> int:
        """Tokens of a text."""
        return self._count(text) if text else 0

    def answer(self, words: str) -> int:
        """Tokens of what a model wrote, and of what frames it."""
        return self.text(words) + self._answer if words else 0

    def prompt(self, prompt: Prompt) -> int:
        """Tokens of a request: its messages, what frames them, its tools."""
        total = sum(self.text(one) + self._frame for one in prompt.messages)
        if prompt.tools:
            total += self.text(rendered(prompt.tools)) + self._tools
        total += prompt.calls * self._call + prompt.replies * self._reply
        return total + (3 if prompt.messages else 0)


@cache
def _tokenizer(family: str) -> Tokenizer:
    if family.startswith("claude"):
        version = family.partition(" ")[2]
        return Tokenizer(
            lambda text: _count_claude(version, text),
            exact=True,
            quick=0,
            frame=4,
            answer=3,
            tools=_CLAUDE_TOOLS,
        )
    encoding = "cl100k_base" if family == "old" else "o200k_base"
    exact = family != "other"
    return Tokenizer(
        lambda text: _count_bpe(encoding, text),
        exact=exact,
        quick=QUICK,
        frame=3,
        answer=4 if family == "five" else 1,
        tools=3,
        call=6 if family == "five" else 3,
        reply=4 if family == "five" else 0,
    )


def tokenizer_for(model: str) -> Tokenizer:
    """The tokenizer of a model, or the one nearest to it. Nothing is loaded yet."""
    model = model.lower()
    version = claude_version(model)
    if version is not None:
        return _tokenizer(f"claude {version}")
    if _OPENAI.search(model):
        if "gpt-5" in model:
            return _tokenizer("five")
        return _tokenizer("old" if _OLD.search(model) else "new")
    return _tokenizer("other")


def quick(size: int, model: str) -> bool:
    """Whether so many characters may be counted on the loop: vocabulary loaded, and few enough."""
    return _bpe.cache_info().currsize > 0 and size <= tokenizer_for(model).quick


# -- tools, as OpenAI's models see them ------------------------------------------------------------


def rendered(tools: Sequence[Json]) -> str:
    """Tool definitions as the TypeScript that OpenAI's models are shown."""
    lines = ["# Tools", "", "## functions", "", "namespace functions {", ""]
    for tool in tools:
        function = tool.get("function")
        function = function if type(function) is dict else tool
        if type(function.get("functionDeclarations")) is list:
            return rendered(function["functionDeclarations"])
        schema = function.get("parameters") or function.get("input_schema") or {}
        if function.get("description"):
            lines.append(f"// {function['description']}")
        name = function.get("name") or function.get("type") or ""
        properties = schema.get("properties") if type(schema) is dict else None
        if properties:
            lines += [f"type {name} = (_: {{", *_properties(schema), "}) => any;", ""]
        else:
            lines += [f"type {name} = () => any;", ""]
    return "\n".join([*lines, "} // namespace functions"])


def _properties(schema: Json) -> list[str]:
    required = schema.get("required")
    required = required if type(required) is list else []
    lines = []
    for name, value in (schema.get("properties") or {}).items():
        value = value if type(value) is dict else {}
        if value.get("description"):
            lines.append(f"// {value['description']}")
        lines.append(f"{name}{'' if name in required else '?'}: {_type(value)},")
    return lines


def _type(value: Json) -> str:
    kind = value.get("type")
    if type(value.get("enum")) is list:
        return " | ".join(f'"{one}"' for one in value["enum"])
    if kind == "object" and value.get("properties"):
        return "\n".join(["{", *_properties(value), "}"])
    if kind == "array":
        items = value.get("items")
        return f"{_type(items if type(items) is dict else {})}[]"
    if kind in ("integer", "number"):
        return "number"
    return kind if type(kind) is str else "any"
