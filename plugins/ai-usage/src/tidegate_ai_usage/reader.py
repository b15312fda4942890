"""`Reader`: watches the bytes of an answer pass, and knows at its end what was used.

While bytes pass, they are only kept (a list's append per chunk). They are looked at in batches of
`BATCH`, or at the end: where the provider says what it used, only the few events that say so are
parsed; where it does not, all are, for their words. Memory is bounded by `BATCH` and `WORDS` for a
stream, and by `WHOLE` for an answer that is one JSON text.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from typing import Any, Final

import orjson
from mitmproxy import http

from tidegate.api.coding import Decoder, Undecodable

from .figures import COUNTS, Json, Usage, find, usage_of
from .framing import CUTTERS, Framing, framing_of
from .texts import words

BATCH: Final = 64 * 1024
"""Bytes of a stream that are kept before they are looked at."""
WHOLE: Final = 2 * 1024 * 1024
"""Bytes of a whole answer that are kept. Of a longer one (images) the last `TAIL` are searched."""
TAIL: Final = 64 * 1024
_START: Final = 16
"""Bytes by which a framing is told."""
WORDS: Final = 1024 * 1024
"""Characters of a stream's words that are kept for counting; what is beyond is only measured."""

_SAYS: Final = (
    b'"usage":{', b'"usage": {', b'"usageMetadata"', b'"eval_count"',
    b'_reason":"', b'_reason": "', b'Reason":"', b'Reason": "',
)  # fmt: skip
"""What stands in events that say something. A needle is found ten times faster than a pattern."""
_FIRST: Final = 2 * 1024
_LAST: Final = 8 * 1024
_TAIL_USAGE: Final = re.compile(rb'(?<!\\)"(?:usage|usageMetadata)"\s*:\s*(?=\{)')
_DECODE: Final = json.JSONDecoder().raw_decode
_ANSWERS: Final = frozenset(("choices", "candidates", "stop_reason", "stopReason", "done_reason"))
_FINISHES: Final = ("finish_reason", "finishReason", "stop_reason", "stopReason", "done_reason")


class Reader:
    """One answer. A `BodySink`; `settle` may be asked at any time after the last byte.

    `raw` is what the answer's head says of usage already.

    Attributes:
        usage: what the provider said, or None.
        words: what the model wrote, where `usage` is not known to be final.
        more: characters of words beyond those that are kept.
        model, finish: as the answer names them; "" where it does not.
        complete: whether the body has come to its end.
        streamed: whether it is a stream of events.
        final: whether the answer has said how it ended.
        alike: whether it is the answer of a model at all.
    """

    __slots__ = (
        "_content_type", "_decoder", "_framing", "_kept", "_pieces", "_raw", "_rest", "_size",
        "alike", "complete", "final", "finish", "model", "more", "settled", "tier", "usage",
        "words",
    )  # fmt: skip

    def __init__(self, content_type: str = "", coding: str = "", raw: Json | None = None) -> None:
        self._content_type = content_type
        self._decoder: Decoder | None = None
        self._framing: Framing | None = None
        if coding:
            try:
                self._decoder = Decoder(coding)
            except Undecodable:
                self._framing = "other"
        self._pieces: list[bytes] = []
        self._size = 0
        self._rest = b""
        self._raw = raw
        self.usage: Usage | None = None
        self.words: list[str] = []
        self.more = 0
        self._kept = 0
        self.model = ""
        self.finish = ""
        self.tier = ""
        self.complete = False
        self.final = False
        self.alike = False
        self.settled = False

    @property
    def streamed(self) -> bool:
        return self._framing not in (None, "whole", "other")

    # -- a `BodySink` ---------------------------------------------------------------------------

    def write(self, chunk: bytes) -> None:
        self._pieces.append(chunk)
        self._size += len(chunk)
        if self._size > BATCH:
            self._batch()

    def close(self, *, complete: bool, trailers: http.Headers | None) -> None:
        self.complete = complete

    # -- what it says ---------------------------------------------------------------------------

    def settle(self) -> None:
        """Look at what is left. Afterwards the attributes hold."""
        if self.settled:
            return
        self.settled = True
        unread = self._rest == b"" and self._raw is None and not self.words
        data = self._take()
        if self._framing is None:
            self._framing = framing_of(data, self._content_type)
        if self._framing == "whole":
            self._settle_whole(data)
        elif self._framing != "other":
            lines = self._framing in ("sse", "lines")
            if not (lines and unread and self.complete and self._say(data)):
                texts, _ = CUTTERS[self._framing](data + b"\n" if lines else data)
                for text in texts:
                    self._event(text, read=True)
        if self._raw is not None:
            self.usage = usage_of(self._raw)
            self.usage.tier = self.usage.tier or self.tier
        self._pieces, self._rest = [], b""

    def _say(self, data: bytes) -> bool:
        """Parse only the events of a complete stream that say something; True: they said all.

        They stand at its beginning and at its end. Where they do not, all events are parsed.
        """
        first, size = data.find(b"{"), len(data)
        lines = {data.rfind(b"\n", 0, first) + 1: first} if first >= 0 else {}
        for low, high in ((0, _FIRST), (max(_FIRST, size - _LAST), size)):
            for needle in _SAYS:
                at = data.find(needle, low, high)
                while at >= 0:
                    lines[data.rfind(b"\n", 0, at) + 1] = at
                    end = data.find(b"\n", at)
                    at = -1 if end < 0 else data.find(needle, end, high)
        for start, inside in sorted(lines.items()):
            end = data.find(b"\n", inside)
            line = data[start:end] if end >= 0 else data[start:]
            self._event(line.removeprefix(b"data:"), read=False)
        return self._raw is not None and self.final

    def _take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._decoder is not None:
            try:
                data = b"".join(self._decoder.feed(data))
            except Undecodable:
                self._framing, data = "other", b""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        return data

    def _batch(self) -> None:
        """Look at what has come; keep what begins an event."""
        self._size = 0
        data = self._take()
        if self._framing is None and len(data) < _START:
            self._rest = data
            return
        if self._framing is None:
            self._framing = framing_of(data, self._content_type)
        if self._framing == "whole":
            self._rest = data if len(data) <= WHOLE else data[:1024] + data[1024:][-TAIL:]
        elif self._framing != "other":
            texts, self._rest = CUTTERS[self._framing](data)
            if len(self._rest) > WHOLE:
                self._framing, self._rest = "other", b""
            for text in texts:
                self._event(text, read=True)

    def _settle_whole(self, data: bytes) -> None:
        try:
            value = orjson.loads(data)
        except ValueError:
            if _is_object(data.partition(b"\n")[0]):  # lines that do not say that they are such
                self._framing = "lines"
                for line in data.split(b"\n"):
                    self._event(line, read=True)
            else:
                self._search(data)
            return
        if type(value) is dict:
            self._note(value)
            self.final = self.complete
            if self._raw is None:
                self._keep(value)

    def _search(self, data: bytes) -> None:
        """The usage in the last bytes of an answer that is not here as a whole."""
        for found in reversed(list(_TAIL_USAGE.finditer(data))):
            text = data[found.end() :].decode("utf-8", "replace")
            try:
                value, _ = _DECODE(text)
            except ValueError:
                continue
            self._raw, self.alike, self.final = value, True, self.complete
            return
        self.more += len(data)

    def _event(self, text: bytes, *, read: bool) -> None:
        try:
            value = orjson.loads(text)
        except ValueError:
            return  # `[DONE]`, or the last event of a stream that was cut
        if type(value) is not dict:
            return
        inner = value.get("bytes")
        if type(inner) is str:  # Bedrock's InvokeModelWithResponseStream
            try:
                value = orjson.loads(b64decode(inner))
            except ValueError:
                return
            if type(value) is not dict:
                return
        if read and self.model:
            word = _usual(value)
            if word is not None:
                self._put(word)
                return
        self._note(value)
        if read:
            self._keep(value)

    def _keep(self, value: Json) -> None:
        for word in words(value):
            self._put(word)

    def _put(self, word: str) -> None:
        self._kept += len(word)
        if self._kept > WORDS:
            self.more += len(word)
        else:
            self.words.append(word)

    def _note(self, value: Json) -> None:
        """Model, finish and usage, where one answer or event says them."""
        usage = find(value)
        if usage is not None and not COUNTS.isdisjoint(usage):
            said = {key: one for key, one in usage.items() if one is not None}
            self._raw = said if self._raw is None else {**self._raw, **said}
            if "completion_tokens" in said and self.complete:
                self.final = True  # of this API it comes last, and not all say how they ended
        if not self.model:
            self.model = _text(value, "model") or _text(value, "modelVersion")
        tier = value.get("service_tier")
        if type(tier) is str and tier not in ("default", "auto", "standard"):
            self.tier = tier
        finish = _finish_of(value)
        if finish:
            self.finish, self.final = finish, True
        self.alike = self.alike or self._raw is not None or _is_answer(value)


def _is_object(text: bytes) -> bool:
    try:
        return type(orjson.loads(text)) is dict
    except ValueError:
        return False


def _usual(value: Json) -> str | None:
    """The word of an event that says nothing else, as most do; None: look closer."""
    delta = value.get("delta")
    if type(delta) is dict:  # Anthropic Messages
        word = delta.get("text")
        usual = value.get("type") == "content_block_delta" and "usage" not in value
        return word if usual and type(word) is str else None
    choices = value.get("choices")
    if type(choices) is not list or len(choices) != 1 or value.get("usage") is not None:
        return None
    choice = choices[0]
    delta = choice.get("delta") if type(choice) is dict else None
    if type(delta) is not dict or choice.get("finish_reason") is not None or len(delta) > 2:
        return None
    word = delta.get("content")
    return word if type(word) is str and (len(delta) == 1 or "role" in delta) else None


def _is_answer(value: Json) -> bool:
    """Whether it has the shape of a model's answer, or of an event of one."""
    kind = value.get("type")
    if type(kind) is str and kind.startswith(("response.", "content_block", "message_")):
        return True
    return not _ANSWERS.isdisjoint(value)


def _text(value: Json, key: str) -> str:
    found = value.get(key)
    if type(found) is str:
        return found
    for wrapper in ("response", "message"):
        inner = value.get(wrapper)
        if type(inner) is dict and type(inner.get(key)) is str:
            return str(inner[key])
    return ""


def _finish_of(value: Json) -> str:
    """Why the answer ended, in the provider's own word; "": it has not said."""
    choices = value.get("choices")
    if type(choices) is list and choices and type(choices[0]) is dict:
        word = choices[0].get("finish_reason")
        if type(word) is str and word:
            return word
    holders: list[Any] = [value, value.get("delta"), value.get("response"), value.get("message")]
    for name in ("choices", "candidates"):
        held = value.get(name)
        if type(held) is list:
            holders += held
    for holder in holders:
        if type(holder) is dict:
            for key in _FINISHES:
                word = holder.get(key)
                if type(word) is str and word:
                    return word
    status = value.get("status")
    inner = value.get("response")
    if type(inner) is dict:
        status = inner.get("status", status)
    return status if status in ("completed", "incomplete", "failed", "cancelled") else ""
