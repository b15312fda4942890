"""Puts the events of a stream in order where a provider's are not, so that writers may rely on it.

Writers follow the grammar of `events`. Servers repeat heads, stop what never began, say more after
the end, or leave the reason out: here such events are dropped or completed, once for all formats.
"""

from __future__ import annotations

from typing import Final

from .events import Cited, Delta, End, Event, Failed, Finished, PartStart, PartStop, Start
from .losses import Losses
from .model import Finish, Media, Part, Reasoning, Refusal, Text, ToolCall

_TAKES: Final[dict[type, tuple[str, ...]]] = {
    Text: ("text", "signature"),
    Refusal: ("text",),
    Reasoning: ("text", "signature", "encrypted"),
    ToolCall: ("arguments", "signature"),
    Media: ("data", "transcript"),
}

type _Key = tuple[int, int]


class Order:
    """One stream. `family` is that of its provider."""

    __slots__ = ("_closed", "_family", "_finished", "_losses", "_open", "_started")

    def __init__(self, family: str, losses: Losses) -> None:
        self._family = family
        self._losses = losses
        self._started = False
        self._open: dict[_Key, type[Part]] = {}
        self._closed: set[_Key] = set()
        self._finished: dict[int, bool] = {}
        """Whether a candidate that has begun has ended."""

    def put(self, events: list[Event]) -> list[Event]:
        """The events that are written instead of these."""
        for event in events:
            if not (type(event) is Delta and self._fits(event)):
                break
        else:
            return events  # the usual case: more of a part that is open
        out: list[Event] = []
        for event in events:
            self._one(event, out)
        return out

    def _fits(self, delta: Delta) -> bool:
        kind = self._open.get((delta.candidate, delta.index))
        return kind is not None and type(delta.text) is str and delta.kind in _TAKES.get(kind, ())

    def _one(self, event: Event, out: list[Event]) -> None:
        match event:
            case Start():
                if self._started:
                    return  # a head that is repeated says nothing new
                self._started = True
            case Failed():
                pass
            case _ if not self._started:
                self._started = True
                out.append(Start(self._family, "", ""))
                self._placed(event, out)
                return
            case _:
                self._placed(event, out)
                return
        out.append(event)

    def _placed(self, event: Event, out: list[Event]) -> None:
        match event:
            case PartStart(index, part, candidate):
                if self._begin((candidate, index), part):
                    out.append(event)
            case Delta():
                self._delta(event, out)
            case PartStop(index, candidate):
                if self._open.pop((candidate, index), None) is not None:
                    self._closed.add((candidate, index))
                    out.append(event)
            case Cited(index, _, candidate):
                if self._open.get((candidate, index)) is Text:
                    out.append(event)
            case Finished(candidate=candidate):
                if not self._finished.get(candidate):
                    self._close(candidate, out)
                    self._finished[candidate] = True
                    out.append(event)
            case End():
                for candidate, finished in list(self._finished.items()):
                    if not finished:
                        self._close(candidate, out)
                        out.append(Finished(Finish("stop"), candidate))
                out.append(event)
            case _:
                out.append(event)

    def _begin(self, key: _Key, part: Part) -> bool:
        if type(key[1]) is not int or key in self._open or key in self._closed:
            return False
        if self._finished.setdefault(key[0], False):
            self._losses.note(f"choices[{key[0]}]", "it went on after its end")
            return False
        self._open[key] = type(part)
        return True

    def _delta(self, delta: Delta, out: list[Event]) -> None:
        key = (delta.candidate, delta.index)
        if type(delta.text) is not str or type(delta.index) is not int:
            return
        if key not in self._open and delta.kind == "text" and self._begin(key, Text("")):
            out.append(PartStart(delta.index, Text(""), delta.candidate))
        if self._fits(delta):
            out.append(delta)

    def _close(self, candidate: int, out: list[Event]) -> None:
        for key in [key for key in self._open if key[0] == candidate]:
            del self._open[key]
            self._closed.add(key)
            out.append(PartStop(key[1], candidate))
