r"""The text of a cassette: one recorded exchange, made to be read, edited and diffed.

    # tidegate cassette 1
    # id: 3f2a…
    # now: 1750000000.25

    > POST http://api.example.com/v1/chat/completions
    > content-type: application/json

    json compact
    {
      "model": "demo",
      "stream": true
    }

    < 200 OK
    < content-type: text/event-stream

    events
    +0.212 data: {"choices":[…]}
    +0.015 data: [DONE]

`#` lines say what is known about it, `>` lines are the request's head, `<` lines the answer's. A
body has one of four forms, and each gives back the very bytes:

| form | |
| --- | --- |
| `json STYLE` | pretty; STYLE says how it is written on the wire |
| `text` | lines after `\|`, joined by line feeds |
| `base64` | |
| `events` | `+SECONDS` and the event's lines, the further ones after `       \|` |

An event that is not lines of text stands as `=SECONDS` and its base64.

`loads(dumps(recording))` is the recording.
"""

from __future__ import annotations

import base64
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from .recording import Answer, Chunk, Fields, Recording, media_type
from .types import Principal

__all__ = ["CassetteError", "dumps", "json_style", "loads", "to_json", "write_json"]

FIRST: Final = "# tidegate cassette 1"
_MORE: Final = "       |"
_STYLES: Final[dict[str, dict[str, Any]]] = {
    "compact": {"separators": (",", ":"), "ensure_ascii": False},
    "spaced": {"ensure_ascii": False},
    "pretty": {"indent": 2, "ensure_ascii": False},
    "compact-ascii": {"separators": (",", ":")},
    "spaced-ascii": {},
    "pretty-ascii": {"indent": 2},
}
_EVENT: Final = re.compile(r"([+=])(\d+(?:\.\d+)?) ?(.*)")


class CassetteError(ValueError):
    """A text that is not a cassette: says the line."""


# -- JSON that gives back its bytes -----------------------------------------------------------


def to_json(content: bytes) -> Any:
    """The value of a JSON body. Raises ValueError."""
    return json.loads(content)


def json_style(content: bytes, value: Any) -> str | None:
    """How `content` writes `value`: a name for `write_json`; None where it is no usual way."""
    try:
        return next((name for name in _STYLES if write_json(value, name) == content), None)
    except (ValueError, RecursionError):
        return None


def write_json(value: Any, style: str) -> bytes:
    """A JSON value in a style that `json_style` gave."""
    return json.dumps(value, **_STYLES[style]).encode()


# -- writing ----------------------------------------------------------------------------------


def dumps(recording: Recording) -> str:
    """The text of a recording."""
    lines = [FIRST]
    facts = {
        "id": recording.id,
        "now": repr(recording.now),
        "seed": str(recording.seed),
        "client": recording.client,
        "listener": recording.listener,
        "principal": recording.principal.id if recording.principal else "",
    }
    lines += [f"# {name}: {value}" for name, value in facts.items() if value]
    lines += ["", f"> {recording.method} {recording.url}", *_fields(">", recording.headers), ""]
    lines += _body(recording.body, recording.media_type)
    answer = recording.answer
    if answer is not None:
        lines += [f"< {answer.status} {answer.reason}".rstrip(), *_fields("<", answer.headers), ""]
        if answer.chunks is None:
            lines += _body(answer.content, media_type(answer.headers))
        else:
            lines += ["events", *(_event(chunk) for chunk in answer.chunks), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _fields(mark: str, fields: Fields) -> list[str]:
    return [f"{mark} {name}: {value}".rstrip() for name, value in fields]


def _body(content: bytes, kind: str) -> list[str]:
    if not content:
        return []
    if "json" in kind or content[:1] in b"{[":
        try:
            value = to_json(content)
        except (ValueError, RecursionError):
            value = None
        style = None if value is None else json_style(content, value)
        if style is not None:
            return [f"json {style}", *_pretty(value).split("\n"), ""]
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\r"
    if "\r" in text or not _plain(text):
        return ["base64", *textwrap.wrap(base64.b64encode(content).decode(), 96), ""]
    return ["text", *(f"|{line}" for line in text.split("\n")), ""]


def _pretty(value: Any) -> str:
    """JSON for people; escaped where its characters would not survive an editor or UTF-8."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return text if _plain(text) else json.dumps(value, indent=2)


def _event(chunk: Chunk) -> str:
    try:
        text = chunk.data.decode()
    except UnicodeDecodeError:
        text = ""
    body = text.removesuffix("\n\n")
    if not body or body == text or "\r" in body or body.endswith("\n") or not _plain(body):
        return f"={chunk.delay:.3f} {base64.b64encode(chunk.data).decode()}"
    first, *more = body.split("\n")
    return "\n".join([f"+{chunk.delay:.3f} {first}", *(_MORE + line for line in more)])


def _plain(text: str) -> bool:
    """Whether `str.splitlines`, editors and git see the same lines as we do."""
    return not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029\ufeff\ud800-\udfff]", text)


# -- reading ----------------------------------------------------------------------------------


class _Lines:
    """The lines of a text, with the number of the one that is read."""

    def __init__(self, text: str) -> None:
        self._lines = [*text.replace("\r\n", "\n").split("\n"), ""]
        self.at = 0

    @property
    def ended(self) -> bool:
        return self.at >= len(self._lines) - 1

    def peek(self) -> str:
        """The next line; "" at the end."""
        return self._lines[self.at]

    def take(self) -> str:
        self.at += 1
        return self._lines[self.at - 1]

    def skip_blank(self) -> None:
        while not self.ended and not self.peek().strip():
            self.at += 1

    def block(self) -> Iterator[str]:
        """The lines up to a blank one."""
        while self.peek():
            yield self.take()

    def marked(self, mark: str) -> Iterator[str]:
        """What follows `mark` in the lines that begin with it."""
        while self.peek().startswith(mark):
            yield self.take()[len(mark) :].removeprefix(" ")

    def wrong(self, what: str) -> CassetteError:
        return CassetteError(f"line {max(self.at, 1)}: {what}")


def loads(text: str, name: str = "") -> Recording:
    """The recording that a text holds. Raises CassetteError."""
    lines = _Lines(text)
    if lines.take().strip() != FIRST:
        raise lines.wrong(f"a cassette begins with `{FIRST}`")
    facts = dict(_pair(lines, line) for line in lines.marked("#"))
    try:
        return _recording(lines, facts, name)
    except CassetteError:
        raise
    except ValueError as error:
        raise lines.wrong(str(error)) from None


def _recording(lines: _Lines, facts: dict[str, str], name: str) -> Recording:
    lines.skip_blank()
    head = list(lines.marked(">"))
    if not head:
        raise lines.wrong("`> METHOD URL` is missing")
    method, _, url = head[0].partition(" ")
    recording = Recording(
        method=method,
        url=url,
        headers=tuple(_pair(lines, line) for line in head[1:]),
        body=_read_body(lines),
        id=facts.get("id", ""),
        now=float(facts.get("now", 0)),
        seed=int(facts.get("seed", 0)),
        client=facts.get("client", ""),
        listener=facts.get("listener", "gateway"),
        principal=principal_of(facts.get("principal", "")),
        name=name,
    )
    lines.skip_blank()
    head = list(lines.marked("<"))
    if not head:
        if not lines.ended:
            raise lines.wrong("`< STATUS` is missing")
        return recording
    status, _, reason = head[0].partition(" ")
    answer = Answer(int(status), reason, tuple(_pair(lines, line) for line in head[1:]))
    lines.skip_blank()
    if lines.peek() == "events":
        lines.take()
        answer = replace(answer, chunks=tuple(_read_events(lines)))
    else:
        answer = replace(answer, content=_read_body(lines))
    lines.skip_blank()
    if not lines.ended:
        lines.take()
        raise lines.wrong("more than one exchange")
    return replace(recording, answer=answer)


def principal_of(id: str) -> Principal | None:
    """A principal by its `team/name`; None for ""."""
    team, _, name = id.rpartition("/")
    return Principal(name, team) if name else None


def _pair(lines: _Lines, line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise lines.wrong(f"{line!r} is not `name: value`")
    return name, value.removeprefix(" ")


def _read_body(lines: _Lines) -> bytes:
    lines.skip_blank()
    if lines.ended or lines.peek().startswith("<"):
        return b""
    form, _, style = lines.take().partition(" ")
    match form:
        case "json" if style in _STYLES:
            return write_json(json.loads("\n".join(lines.block())), style)
        case "text":
            return "\n".join(_text_lines(lines)).encode()
        case "base64":
            return base64.b64decode("".join(lines.block()), validate=True)
    raise lines.wrong(f"{form!r} is no form of a body: json STYLE, text, base64, events")


def _text_lines(lines: _Lines) -> Iterator[str]:
    while lines.peek().startswith("|"):
        yield lines.take()[1:]


def _read_events(lines: _Lines) -> Iterator[Chunk]:
    while lines.peek():
        found = _EVENT.fullmatch(lines.take())
        if found is None:
            raise lines.wrong("an event is `+SECONDS …` or `=SECONDS BASE64`")
        mark, delay, text = found.groups()
        if mark == "=":
            yield Chunk(float(delay), base64.b64decode(text, validate=True))
            continue
        parts = [text]
        while lines.peek().startswith(_MORE):
            parts.append(lines.take()[len(_MORE) :])
        yield Chunk(float(delay), ("\n".join(parts) + "\n\n").encode())
