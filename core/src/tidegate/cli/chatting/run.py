"""Runs `tidegate chat`: one question, or a conversation in the terminal."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
import typer
from rich.console import Console

from tidegate.runtime.problems import ConfigError, Problem

from .find import find_gateway
from .talk import Answer, Talk, TalkError

HELP: Final = """\
/model NAME   ask another model from now on; without a name: which one it is
/models       the models that the gateway lists
/system TEXT  instructions for the model; without text: none
/clear        forget what was said
/exit         end (or Ctrl-D); Ctrl-C stops an answer"""
KEY_HINT: Final = "give a key with --key or TIDEGATE_API_KEY; `tidegate keys create NAME` makes one"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    question: str
    model: str
    system: str
    url: str
    key: str
    state: Path | None
    json: bool


def run(options: Options) -> None:
    """Ask once where there is a question or piped input, else hold a conversation."""
    question = options.question
    if not sys.stdin.isatty():
        piped = sys.stdin.read().strip()
        question = "\n\n".join(filter(None, (question, piped)))
        if not question:
            raise usage("there is no question: give one, or pipe one in")
    if options.json and not question:
        raise usage("--json needs a question")
    talk = Talk(
        find_gateway(options.url, options.state), options.key, options.model, options.system
    )
    screen = Console(highlight=False, markup=False, soft_wrap=True)
    notes = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    choose_model(talk, interactive=not question)
    if question:
        once(talk, question, screen, notes, as_json=options.json)
    else:
        Conversation(talk, screen).hold()


def usage(message: str) -> ConfigError:
    """What is wrong with the command line."""
    return ConfigError(Problem("invalid_value", message))


def failed(error: TalkError) -> ConfigError:
    """What the gateway said, with what can be done about it."""
    hint = KEY_HINT if error.status == 401 else ""
    if error.status == 0 and not error.code:
        hint = "is it running? `tidegate up` starts one"
    return ConfigError(Problem(error.code or "chat_failed", str(error), hint=hint))


def choose_model(talk: Talk, *, interactive: bool) -> None:
    """The first model that is listed, unless one was named. Asks for a key that is missing."""
    if talk.model and not interactive:
        return
    try:
        names = talk.models()
    except TalkError as error:
        if error.status == 401 and interactive and not talk.key:
            talk.key = typer.prompt("A key of the gateway", hide_input=True)
            choose_model(talk, interactive=False)
            return
        if error.status in (401, 403, 429) or not error.status:
            raise failed(error) from None
        names = []
    if not talk.model:
        if not names:
            raise usage("the gateway lists no models: name one with --model")
        talk.model = names[0]


def once(talk: Talk, question: str, screen: Console, notes: Console, *, as_json: bool) -> None:
    """Print the answer to one question."""
    answer = Answer()
    try:
        for piece in talk.ask(question, answer):
            if not as_json:
                screen.print(piece, end="")
    except TalkError as error:
        if answer.text and not as_json:
            screen.print()
        raise failed(error) from None
    if as_json:
        print(orjson.dumps(facts(talk, answer)).decode())
        return
    screen.print()
    notes.print(summary(talk, answer), style="dim")


class Conversation:
    """Question by question, until its end."""

    def __init__(self, talk: Talk, screen: Console) -> None:
        self._talk = talk
        self._screen = screen
        self._over = False

    def hold(self) -> None:
        """Read lines until /exit or the end of input."""
        with suppress(ImportError):
            import readline  # noqa: F401, editing and history of lines
        self._note(f"{self._talk.model} at {self._talk.url}. /help says what else; Ctrl-D ends.")
        while not self._over:
            try:
                line = input("> ").strip()
            except EOFError:
                self._screen.print()
                return
            except KeyboardInterrupt:
                self._screen.print()
                continue
            try:
                if line.startswith("/"):
                    self._command(line)
                elif line:
                    self._ask(line)
            except TalkError as error:
                code = f" [{error.code}]" if error.code else ""
                self._screen.print(f"error: {error}{code}", style="red")

    def _note(self, text: str) -> None:
        self._screen.print(text, style="dim")

    def _ask(self, question: str) -> None:
        answer = Answer()
        pieces = self._talk.ask(question, answer)
        try:
            with self._screen.status("…"):
                first = next(pieces, "")
            self._screen.print(first, end="")
            for piece in pieces:
                self._screen.print(piece, end="")
        except KeyboardInterrupt:
            answer.finish = "stopped"
        finally:
            pieces.close()
            self._screen.print()
        self._note(summary(self._talk, answer))

    def _command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        match name:
            case "/exit" | "/quit":
                self._over = True
            case "/model":
                self._talk.model = rest or self._talk.model
                self._note(f"model: {self._talk.model}")
            case "/models":
                self._screen.print("\n".join(self._talk.models()))
            case "/system":
                self._talk.system = rest
                self._note(f"instructions: {rest or 'none'}")
            case "/clear":
                self._talk.turns.clear()
                self._note("forgotten")
            case "/help":
                self._screen.print(HELP)
            case _:
                self._note(f"there is no {name}: /help says what there is")


def facts(talk: Talk, answer: Answer) -> dict[str, object]:
    """An answer for programs."""
    return {
        "answer": answer.text,
        "model": answer.model or talk.model,
        "finish": answer.finish,
        "usage": {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens},
        "cost": answer.cost or None,
    }


def summary(talk: Talk, answer: Answer) -> str:
    """The line after an answer: model, tokens, cost."""
    parts = [answer.model or talk.model]
    if answer.input_tokens is not None:
        parts.append(f"{answer.input_tokens} tokens in, {answer.output_tokens} out")
    if answer.cost:
        parts.append(f"${answer.cost}")
    if answer.finish not in ("", "stop"):
        parts.append(answer.finish)
    return " · ".join(parts)
