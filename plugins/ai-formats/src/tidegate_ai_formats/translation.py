"""`Translation`: two formats as the codec of an upstream, and of streams as plain bytes.

Where caller and provider speak the same format and dialect nothing is rewritten but the model:
the answer passes as it came, and is only read along for usage.

The parsed request is kept on the exchange (`AI_CALL`): a failover to a provider of another
format writes it anew, and does not parse it again. Writers therefore change nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import orjson
from mitmproxy import http

from tidegate.api import Exchange, SseEvent, StashKey, WsMessage
from tidegate.api.formats import AI_CALL, AiCall

from .events import End, Event, Failed, Finished, Start, UsageUpdate
from .format import Format, Framing, StreamParser, StreamWriter, load_object
from .framing import CONTENT_TYPES, decoder, encoder, framing_of
from .losses import Failure, InvalidRequest, Losses, Policy, Untranslatable
from .model import Request, Response
from .responses.request import refuse_stateful
from .wire import dumps, loads

WARNINGS: Final = "x-tidegate-warnings"
CUT: Final = Failure(502, "server", "The provider's stream ended before its end.")
_UNREADABLE: Final = Failure(502, "server", "The provider's answer is not of its format.")
_OF_THE_BODY: Final = frozenset(
    (b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"etag")
)


@dataclass(slots=True)
class _State:
    """What a translation remembers of the attempt that goes on."""

    call: AiCall
    request: Request
    losses: Losses
    passes: bool
    stream: StreamTranslator | None = None


_STATE: Final = StashKey[_State]("ai.translation")


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
    ) -> None:
        self._parser: StreamParser = provider.stream_parser()
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
            events = self._parser.feed(event)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return self.fail(_UNREADABLE)
        out: list[SseEvent] = []
        for one in events:
            out += self._write(one)
        return out

    def _write(self, event: Event) -> list[SseEvent]:
        match event:
            case Start():
                self.started = True
                id, model, created = self._defaults
                event.id = event.id or id
                event.model = event.model or model
                event.created = event.created or created
                if event.usage is not None and self._call is not None:
                    self._call.usage = event.usage
            case UsageUpdate(usage):
                if self._call is not None:
                    self._call.usage = usage
            case Finished(finish):
                if self._call is not None:
                    self._call.finish = finish.reason
            case End() | Failed():
                self.over = True
        return self._writer.write(event)

    def finish(self) -> list[SseEvent]:
        """The caller's events at the end of the provider's stream."""
        if self.over:
            return []
        out: list[SseEvent] = []
        for event in self._parser.end():
            out += self._write(event)
        if not self.over:
            out += self.fail(CUT)
        return out

    def fail(self, failure: Failure) -> list[SseEvent]:
        """End the caller's stream with an error."""
        self.over = True
        return self._writer.fail(failure)

    def feed(self, data: bytes) -> bytes:
        """The caller's bytes for some bytes of the provider's."""
        try:
            events = self._decoder.feed(data)
        except ValueError:
            return self._bytes(self.fail(_UNREADABLE)) if not self.over else b""
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


class Translation:
    """The codec for callers of `client` and a provider of `provider`. Holds no state of calls."""

    def __init__(
        self,
        client: Format,
        provider: Format,
        policy: Policy = "drop-and-warn",
        *,
        model: str | None = None,
    ) -> None:
        self.client = client
        self.provider = provider
        self.policy: Policy = policy
        self.model = model
        self._same = client is provider

    # -- requests -------------------------------------------------------------------------------

    def encode(self, exchange: Exchange, request: http.Request) -> http.Request:
        """The provider's request. Raises InvalidRequest and Untranslatable: see `refusal`."""
        data = request.data
        path = data.path.decode("latin-1")
        data.content, target = self._encode(exchange, data.content or b"", path)
        data.path = target.encode("latin-1")
        data.headers.fields = _fields(data.headers.fields, b"application/json")
        return request

    def _encode(self, exchange: Exchange, content: bytes, path: str) -> tuple[bytes, str]:
        """(content, path) of the provider's request; what the answer needs goes on the exchange."""
        call = exchange.stash.get(AI_CALL)
        bare, _, query = path.partition("?")
        if call is None or not isinstance(call.request, Request):
            parsed = self.client.parse_request(load_object(content), bare)
            call = exchange.stash[AI_CALL] = AiCall(self.client.name, parsed)
        asked = call.request
        assert isinstance(asked, Request)
        call.provider_format = self.provider.name
        call.usage, call.finish = None, ""
        call.model = self.model or asked.model
        losses = Losses(self.provider.name, self.policy)
        framing = self.client.response_framing(bare, query)
        alike = self.client.family == self.provider.family and framing == self.provider.framing
        state = exchange.stash[_STATE] = _State(call, asked, losses, self._same or alike)
        sent = asked if asked.model == call.model else replace(asked, model=call.model)
        target = self.provider.path(sent)
        if self._same:
            if sent is not asked:
                content = _renamed(content, call.model)
            target = target.partition("?")[0]
            target = f"{target}?{query}" if query else target
        else:
            refuse_stateful(asked, losses)
            content = orjson_bytes(self.provider.write_request(sent, losses))
        call.warnings = [str(warning) for warning in losses.warnings]
        losses.strict = False  # an answer is not refused for what it can't say: it is reported
        losses.target = self.client.name
        if asked.stream:
            state.stream = self._translator(exchange, state, framing)
        return content, target

    def _translator(self, exchange: Exchange, state: _State, framing: Framing) -> StreamTranslator:
        return StreamTranslator(
            self.client,
            self.provider,
            state.losses,
            state.call,
            request=state.request,
            framing=framing,
            provider_framing=framing if self._same else None,
            defaults=(f"tg-{exchange.id}", state.call.model, int(exchange.now)),
        )

    def refusal(self, exchange: Exchange, request: http.Request) -> http.Response | None:
        """The answer to a request that can't be sent, in the caller's shape; None if it can be.

        For `route` and `transform_request` hooks, which may answer; `encode` may only raise.
        """
        data = request.data
        try:
            self._encode(exchange, data.content or b"", data.path.decode("latin-1"))
        except (InvalidRequest, Untranslatable) as error:
            return self.denial(Failure(400, "invalid_request", str(error), param=error.field))
        return None

    def denial(self, failure: Failure) -> http.Response:
        """`failure` as a response of the caller's format."""
        status, body = self.client.write_error(failure)
        headers = {"content-type": "application/json"}
        return http.Response.make(status, dumps(body), headers)

    # -- answers --------------------------------------------------------------------------------

    def decode(self, exchange: Exchange, response: http.Response) -> http.Response:
        """The caller's answer for a whole one of the provider's."""
        state = exchange.stash[_STATE]
        data = response.data
        content = data.content or b""
        if any(name.lower() == b"content-encoding" for name, _ in data.headers.fields):
            content = response.content or b""
        if data.status_code >= 400:
            return self._error(response, content, data.status_code, state)
        if state.stream is not None and self._is_stream(response, state.stream):
            return self._decode_stream(response, content, state)
        try:
            answer = self.provider.parse_response(load_object(content, "the answer"))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return response if state.passes else self._put_failure(response, _UNREADABLE, state)
        self._learn(answer, state)
        if state.passes:
            return response
        answer.id = answer.id or f"tg-{exchange.id}"
        answer.model = answer.model or state.call.model
        answer.created = answer.created or int(exchange.now)
        body = self.client.write_response(answer, state.losses, state.request)
        self._put(response, orjson_bytes(body), b"application/json", state)
        return response

    @staticmethod
    def _is_stream(response: http.Response, stream: StreamTranslator) -> bool:
        framing = framing_of(response.headers.get("content-type", ""))
        return framing is not None or stream.provider_framing != "sse"

    @staticmethod
    def _learn(answer: Response, state: _State) -> None:
        state.call.usage = answer.usage
        if answer.candidates and answer.candidates[0].finish is not None:
            state.call.finish = answer.candidates[0].finish.reason

    def _decode_stream(
        self, response: http.Response, content: bytes, state: _State
    ) -> http.Response:
        """A stream that the carrier gathered, because it is not made of server-sent events."""
        stream = state.stream
        assert stream is not None
        body = stream.feed(content) + stream.end()
        if not state.passes:
            self._put(response, body, CONTENT_TYPES[stream.framing].encode(), state)
        return response

    def _error(
        self, response: http.Response, content: bytes, status: int, state: _State
    ) -> http.Response:
        if state.passes:
            return response
        try:
            body = loads(content)
        except ValueError:
            body = content.decode("utf-8", "replace")
        return self._put_failure(response, self.provider.parse_error(status, body), state)

    def _put_failure(
        self, response: http.Response, failure: Failure, state: _State
    ) -> http.Response:
        status, body = self.client.write_error(failure)
        response.data.status_code = status
        response.data.reason = b""
        self._put(response, orjson_bytes(body), b"application/json", state)
        return response

    @staticmethod
    def _put(response: http.Response, content: bytes, kind: bytes, state: _State) -> None:
        data = response.data
        data.content = content
        data.headers.fields = _fields(data.headers.fields, kind)
        if state.losses.warnings:
            state.call.warnings = [str(warning) for warning in state.losses.warnings]
            header = (WARNINGS.encode(), state.losses.header().encode())
            data.headers.fields += (header,)

    def decode_event(
        self, exchange: Exchange, event: SseEvent | WsMessage
    ) -> SseEvent | WsMessage | list[SseEvent]:
        """The caller's events for one of the provider's."""
        state = exchange.stash[_STATE]
        stream = state.stream
        if stream is None or not isinstance(event, SseEvent):
            return event
        if state.passes:
            if not stream.over:
                stream.event(event)
            return event
        return stream.event(event)

    def decode_end(self, exchange: Exchange) -> list[SseEvent] | None:
        """The caller's events at the end: an error event where the stream was cut."""
        state = exchange.stash[_STATE]
        stream = state.stream
        if stream is None:
            return None
        ended = stream.finish()
        if state.losses.warnings:
            state.call.warnings = [str(warning) for warning in state.losses.warnings]
        return None if state.passes and not _failed(stream) else ended


def _failed(stream: StreamTranslator) -> bool:
    return not stream.started


def orjson_bytes(value: object) -> bytes:
    """JSON, in UTF-8 where it can be."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return dumps(value).encode()


def _renamed(content: bytes, model: str) -> bytes:
    """A body with the provider's name of the model, where the body names one."""
    body = load_object(content)
    if "model" not in body:
        return content
    body["model"] = model
    return orjson_bytes(body)


def _fields(
    fields: tuple[tuple[bytes, bytes], ...], kind: bytes
) -> tuple[tuple[bytes, bytes], ...]:
    kept = [field for field in fields if field[0].lower() not in _OF_THE_BODY]
    kept.append((b"content-type", kind))
    return tuple(kept)
