"""The neutral events of a stream, and how they add up to a whole answer.

Grammar, per candidate: `Start (PartStart Delta* PartStop)* Finish`, with `Start` once per
stream, `UsageUpdate` and `Extra` anywhere after it, and `End` last. Parts may overlap (parallel
tool calls of formats that interleave them); `sequence.Sequencer` makes them follow each other
for formats that can't. A stream that fails ends with `Failed` instead of `End`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .losses import Failure
from .model import (
    Candidate,
    Citation,
    Finish,
    Json,
    Media,
    Opaque,
    Part,
    Reasoning,
    Refusal,
    Response,
    Text,
    ToolCall,
    Usage,
)

type DeltaKind = Literal["text", "arguments", "signature", "encrypted", "data", "transcript"]


@dataclass(slots=True)
class Start:
    """The stream begins. `id` and `model` are "" where the format does not say them."""

    family: str
    id: str
    model: str
    created: int = 0
    usage: Usage | None = None
    extras: Json | None = None


@dataclass(slots=True)
class PartStart:
    """Part number `index` begins; `part` is its beginning, not shared with anyone."""

    index: int
    part: Part
    candidate: int = 0


@dataclass(slots=True)
class Delta:
    """More of a part. `text` and `arguments` are its main text, by its kind."""

    index: int
    text: str
    kind: DeltaKind = "text"
    candidate: int = 0
    logprobs: list[Json] | None = None
    origin: str = ""
    """Of a signature: the family that made it."""


@dataclass(slots=True)
class Cited:
    """A citation of part `index`."""

    index: int
    citation: Citation
    candidate: int = 0


@dataclass(slots=True)
class PartStop:
    """Part `index` is whole. `extras` became known only now and belong to it.

    `part` is the whole part where the provider repeats it at its end.
    """

    index: int
    candidate: int = 0
    extras: Json | None = None
    part: Part | None = None


@dataclass(slots=True)
class Finished:
    """A candidate is whole."""

    finish: Finish
    candidate: int = 0
    extras: Json | None = None


@dataclass(slots=True)
class UsageUpdate:
    """Usage up to now; the last one holds."""

    usage: Usage


@dataclass(slots=True)
class Extra:
    """Fields of the answer that only its own family can say."""

    values: Json


@dataclass(slots=True)
class Failed:
    """The provider says that the stream failed."""

    failure: Failure


@dataclass(slots=True)
class End:
    """The stream is whole."""


type Event = (
    Start | PartStart | Delta | Cited | PartStop | Finished | UsageUpdate | Extra | Failed | End
)


class Collector:
    """Adds events up to the answer that the same provider would have given whole."""

    def __init__(self) -> None:
        self.response: Response | None = None
        self.failure: Failure | None = None
        self.ended = False
        self._parts: dict[tuple[int, int], Part] = {}

    def add(self, event: Event) -> None:
        """Take the next event. ValueError: it has no place here."""
        if isinstance(event, Start):
            self.response = Response(
                event.family,
                event.id,
                event.model,
                [],
                event.usage,
                event.created,
                dict(event.extras) if event.extras else None,
            )
        elif isinstance(event, Failed):
            self.failure = event.failure
        else:
            self._add(event)

    def _add(self, event: Event) -> None:
        response = self.response
        if response is None:
            raise ValueError(f"{type(event).__name__} before Start")
        match event:
            case Delta():
                extend(self._parts[event.candidate, event.index], event)
            case PartStart(index, part, candidate):
                self._parts[candidate, index] = part
                self._candidate(candidate).parts.append(part)
            case Cited(index, citation, candidate):
                text_part = self._parts[candidate, index]
                assert isinstance(text_part, Text)
                text_part.citations = [*(text_part.citations or ()), citation]
            case PartStop(index, candidate, extras, part):
                if part is not None:
                    parts = self._candidate(candidate).parts
                    parts[_place(parts, self._parts[candidate, index])] = part
                elif extras:
                    put_extras(self._parts[candidate, index], extras)
            case Finished(finish, candidate, extras):
                one = self._candidate(candidate)
                one.finish = finish
                if extras:
                    one.extras = {**(one.extras or {}), **extras}
            case UsageUpdate(usage):
                response.usage = usage
            case Extra(values):
                response.extras = {**(response.extras or {}), **values}
            case _:
                self.ended = True

    def _candidate(self, index: int) -> Candidate:
        assert self.response is not None
        for candidate in self.response.candidates:
            if candidate.index == index:
                return candidate
        candidate = Candidate([], None, index)
        self.response.candidates.append(candidate)
        return candidate


def _place(parts: list[Part], part: Part) -> int:
    return next(n for n, one in enumerate(parts) if one is part)


def extend(part: Part, delta: Delta) -> None:
    """Add a delta to the part that it belongs to. ValueError: that part has no such thing."""
    text = delta.text
    match part, delta.kind:
        case ((Text() | Refusal() | Reasoning()), "text"):
            part.text += text
            if delta.logprobs and isinstance(part, Text):
                part.logprobs = [*(part.logprobs or ()), *delta.logprobs]
        case ToolCall(), "arguments":
            part.arguments += text
        case ((Reasoning() | Text() | ToolCall()), "signature"):
            part.signature += text
            part.origin = delta.origin or part.origin
        case Reasoning(), "encrypted":
            part.encrypted += text
            part.origin = delta.origin or part.origin
        case Media(), "data":
            part.data += text
        case Media(), "transcript":
            part.transcript += text
        case _:
            raise ValueError(f"a {type(part).__name__} has no {delta.kind}")


def put_extras(part: Part, extras: Json) -> None:
    """Give a part the extras that became known at its end."""
    if isinstance(part, Opaque):
        part.value.update(extras)
    else:
        part.extras = {**(part.extras or {}), **extras}


def collect(events: Iterable[Event]) -> Response:
    """The whole answer of a stream. ValueError where it is none."""
    collector = Collector()
    for event in events:
        collector.add(event)
    if collector.response is None:
        raise ValueError("the stream never started")
    return collector.response
