"""`StreamTranslator`: one stream from a provider's format to a caller's, as events or as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tidegate.api import Denial, SseEvent
from tidegate.api.formats import AiCall

from .events import Delta, End, Event, Failed, Finished, PartStart, Start, UsageUpdate
from .format import Format, Framing, StreamParser, StreamWriter
from .framing import decoder, encoder
from .losses import Failure, Losses
from .model import Request, Response
from .order import Order
from .replay import spread

CUT: Final = Failure(502, "server", "The provider's stream ended before its end.")
UNREAD: Final = (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError)
"""What parsers and writers raise on values of shapes that no provider is known to send."""
UNREADABLE: Final = Failure(502, "server", "The provider's answer is not of its format.")


def first_failure(parser: StreamParser, events: Sequence[SseEvent]) -> Failure | None:
    """The failure that a stream begins with; None: content comes first, or neither."""
    try:
        for event in events:
            for one in parser.feed(event):
                if isinstance(one, Failed):
                    return one.failure
                if isinstance(one, PartStart | Delta | Finished):
                    return None
    except UNREAD:
        pass  # of no known shape: whoever translates it will say so
    return None


class StreamTranslator:
    """One stream: wire events or bytes of the provider in, those of the caller out.

    Where the provider's stream ends before its end, the caller's ends with a well-formed error
    event of its own format.
    """

    def __init__(
        self,
        client: Format,
        provider: Format,
        losses: Losses,
        call: AiCall | None = None,
        *,
        request: Request | None = None,
        framing: Framing | None = None,
        provider_framing: Framing | None = None,
        defaults: tuple[str, str, int] = ("", "", 0),
        request_id: str = "",
    ) -> None:
        self._client = client
        self._request_id = request_id
        self._parser: StreamParser = provider.stream_parser()
        self._order = Order(provider.family, losses)
        self._writer: StreamWriter = client.stream_writer(losses, request)
        self.provider_framing: Framing = provider_framing or provider.framing
        self._decoder = decoder(self.provider_framing)
        self.framing: Framing = framing or client.framing
        self._encoder = encoder(self.framing)
        self._call = call
        self._defaults = defaults
        self.started = False
        self.over = False

    def event(self, event: SseEvent) -> list[SseEvent]:
        """The caller's events for one of the provider's."""
        if self.over:
            return []
        try:
            return self._written(self._parser.feed(event))
        except UNREAD:
            return self.fail(UNREADABLE)

    def _written(self, events: list[Event]) -> list[SseEvent]:
        out: list[SseEvent] = []
        for one in self._order.put(events):
            if not self.over:
                out += self._write(one)
        return out

    def _write(self, event: Event) -> list[SseEvent]:
        self._note(event)
        return self._writer.write(event)

    def _note(self, event: Event) -> None:
        call = self._call
        match event:
            case Start():
                self.started = True
                id, model, created = self._defaults
                event.id = event.id or id
                event.model = event.model or model
                event.created = event.created or created
                if event.usage is not None and call is not None:
                    call.usage = event.usage
            case UsageUpdate(usage):
                if call is not None:
                    call.usage = usage
            case Finished(finish):
                if call is not None:
                    call.finish = finish.reason
            case End() | Failed():
                self.over = True

    def whole(self, answer: Response) -> bytes:
        """The caller's stream for an answer that came whole."""
        out = [self._bytes(self._write(event)) for event in spread(answer)]
        return b"".join(out) + self._encoder.end()

    def learn(self, event: SseEvent) -> None:
        """Read along: what the provider says of usage and end, with nothing written."""
        if self.over:
            return
        try:
            for one in self._parser.feed(event):
                self._note(one)
        except UNREAD:
            self.over = True  # not of its format: it passes, and nothing is known of it
        self.started = True

    def finish(self) -> list[SseEvent]:
        """The caller's events at the end of the provider's stream."""
        if self.over:
            return []
        try:
            out = self._written(self._parser.end())
        except UNREAD:
            out = []
        if not self.over:
            out += self.fail(CUT)
        return out

    def fail(self, failure: Failure) -> list[SseEvent]:
        """End the caller's stream with an error."""
        self.over = True
        return self._writer.fail(failure)

    def cut(self, denial: Denial) -> bytes:
        """The caller's bytes where the carrier ends the stream."""
        if self.over:
            return b""
        failure = self._client.failure_of(denial, self._request_id)
        return self._bytes(self.fail(failure)) + self._encoder.end()

    def feed(self, data: bytes) -> bytes:
        """The caller's bytes for some bytes of the provider's."""
        try:
            events = self._decoder.feed(data)
        except ValueError:
            return self._bytes(self.fail(UNREADABLE)) if not self.over else b""
        return b"".join([self._bytes(self.event(event)) for event in events])

    def end(self) -> bytes:
        """The caller's bytes at the end."""
        out = b""
        try:
            for event in self._decoder.end():
                out += self._bytes(self.event(event))
        except ValueError:
            pass  # cut within an event: `finish` says so
        return out + self._bytes(self.finish()) + self._encoder.end()

    def _bytes(self, events: Sequence[SseEvent]) -> bytes:
        return b"".join([self._encoder.feed(event) for event in events])


class Passing:
    """A stream that passes as it is, and is read along for usage."""

    def __init__(self, stream: StreamTranslator) -> None:
        self._stream = stream
        self._decoder = decoder(stream.provider_framing)

    def feed(self, data: bytes) -> bytes:
        """The same bytes."""
        if not self._stream.over:
            try:
                for event in self._decoder.feed(data):
                    self._stream.learn(event)
            except ValueError:
                self._stream.over = True
        return data

    def end(self) -> bytes:
        """Nothing more."""
        try:
            for event in self._decoder.end():
                self._stream.learn(event)
        except ValueError:
            pass  # cut within an event, and so it passes
        return b""
