"""`Translation`: two formats as the codec of an upstream.

Where caller and provider speak the same format and dialect nothing is rewritten but the model:
the answer passes as it came, and is only read along for usage.

The parsed request is kept on the exchange (`AI_CALL`): a failover to a provider of another
format writes it anew, and does not parse it again. Writers therefore change nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from mitmproxy import http

from tidegate.api import Exchange, SseEvent, SseParser, StashKey, WsMessage
from tidegate.api.formats import AI_CALL, AiCall
from tidegate.api.upstream import BodyStream

from .format import Format, Framing, load_object
from .framing import CONTENT_TYPES, framing_of
from .framing.plain import LIMIT
from .losses import Failure, InvalidRequest, Losses, Policy, Untranslatable, kind_of
from .model import Json, Request, Response
from .responses.request import refuse_stateful
from .streaming import UNREAD, UNREADABLE, Passing, StreamTranslator, first_failure
from .wire import dumps, loads

WARNINGS: Final = "x-tidegate-warnings"
_WARNINGS: Final = WARNINGS.encode()
_OF_A_STREAM: Final = frozenset((b"content-type", b"content-length", b"etag"))
_OF_THE_BODY: Final = frozenset(
    (b"content-type", b"content-length", b"content-encoding", b"transfer-encoding", b"etag")
)
_OF_A_VENDOR: Final = _OF_THE_BODY | frozenset(
    (
        b"anthropic-beta",
        b"anthropic-dangerous-direct-browser-access",
        b"anthropic-version",
        b"openai-beta",
        b"x-goog-api-client",
    )
)
"""And fields of a request that mean something to the caller's kind of provider only."""


@dataclass(slots=True)
class _State:
    """What a translation remembers of the attempt that goes on."""

    call: AiCall
    request: Request
    losses: Losses
    passes: bool
    stream: StreamTranslator | None = None


_STATE: Final = StashKey[_State]("ai.translation")


class Translation:
    """The codec for callers of `client` and a provider of `provider`. Holds no state of calls."""

    limit: Final = LIMIT
    """Bytes of a body: images come in one."""

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

    def encode(self, exchange: Exchange, request: http.Request) -> http.Request | http.Response:
        """The provider's request, or what refuses one that can't be sent."""
        data = request.data
        path = data.path.decode("latin-1")
        try:
            data.content, target = self._encode(exchange, data.content or b"", path)
        except (InvalidRequest, Untranslatable) as error:
            return self._refused(error)
        data.path = target.encode("latin-1")
        gone = _OF_THE_BODY if self._same else _OF_A_VENDOR
        data.headers.fields = put_body(data.headers.fields, b"application/json", gone)
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
        said, asked.model = asked.model, call.model  # a copy of the request would cost more
        try:
            target = self.provider.path(asked)
            if self._same:
                if said != call.model:
                    content = _renamed(content, call.model)
                target = target.partition("?")[0]
                target = f"{target}?{query}" if query else target
            else:
                refuse_stateful(asked, losses)
                content = orjson_bytes(self.provider.write_request(asked, losses))
        finally:
            asked.model = said
        call.warnings = [str(warning) for warning in losses.warnings]
        losses.turn(self.client.name)
        call.cut = None
        if asked.stream:
            state.stream = self._translator(exchange, state, framing)
            if not state.passes:
                call.cut = state.stream.cut
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
            request_id=exchange.id,
        )

    def refusal(self, exchange: Exchange, request: http.Request) -> http.Response | None:
        """The answer to a request that can't be sent, in the caller's shape; None if it can be.

        For `route` and `transform_request` hooks, which may answer before anything is tried.
        """
        data = request.data
        try:
            self._encode(exchange, data.content or b"", data.path.decode("latin-1"))
        except (InvalidRequest, Untranslatable) as error:
            return self._refused(error)
        return None

    def _refused(self, error: InvalidRequest | Untranslatable) -> http.Response:
        return self.denial(Failure(400, "invalid_request", str(error), param=error.field))

    def denial(self, failure: Failure) -> http.Response:
        """`failure` as a response of the caller's format."""
        status, body = self.client.write_error(failure)
        headers = {"content-type": "application/json"}
        return http.Response.make(status, dumps(body), headers)

    # -- answers --------------------------------------------------------------------------------

    def decode_head(self, exchange: Exchange, response: http.Response) -> BodyStream | None:
        """What a stream passes through that is not server-sent events on both sides."""
        state = exchange.stash[_STATE]
        stream = state.stream
        if stream is None or not self._is_stream(response, stream):
            return None
        events = stream.framing == "sse" and stream.provider_framing == "sse"
        if state.passes:
            return None if events else Passing(stream)
        _warn(response, state)  # what the answer will lose is not known yet
        if events:
            return None
        fields = response.data.headers.fields
        kept = [field for field in fields if field[0].lower() not in _OF_A_STREAM]
        kind = CONTENT_TYPES[stream.framing].encode()
        response.data.headers.fields = (*kept, (b"content-type", kind))
        return stream

    def decode_first(self, exchange: Exchange, data: bytes) -> http.Response | bool:
        """Whether a stream has begun, or with which error (see `StreamCodec`)."""
        stream = exchange.stash[_STATE].stream
        if stream is None or stream.provider_framing != "sse":
            return True
        events = [event for event in SseParser().feed(data) if isinstance(event, SseEvent)]
        if not any('"error"' in event.data for event in events):
            return bool(events)
        failure = first_failure(self.provider.stream_parser(), events)
        return True if failure is None else self.denial(failure)

    def decode(self, exchange: Exchange, response: http.Response) -> http.Response:
        """The caller's answer for a whole one of the provider's."""
        state = exchange.stash[_STATE]
        data = response.data
        content = data.content or b""
        for name, _ in data.headers.fields:
            if len(name) == 16 and name.lower() == b"content-encoding":
                content = response.content or b""
                break
        if data.status_code >= 400:
            return self._error(response, content, data.status_code, state)
        if state.stream is not None and self._is_stream(response, state.stream):
            return self._decode_stream(response, content, state)
        try:
            body = load_object(content, "the answer")
            failure = failure_in(self.provider.parse_error, body)
            if failure is not None:
                return response if state.passes else self._put_failure(response, failure, state)
            answer = self.provider.parse_response(body)
            self._learn(answer, state)
            return response if state.passes else self._written(exchange, response, answer, state)
        except UNREAD:
            return response if state.passes else self._put_failure(response, UNREADABLE, state)

    def _written(
        self, exchange: Exchange, response: http.Response, answer: Response, state: _State
    ) -> http.Response:
        answer.id = answer.id or f"tg-{exchange.id}"
        answer.model = answer.model or state.call.model
        answer.created = answer.created or int(exchange.now)
        stream = state.stream
        if stream is not None:  # the provider does not stream: the caller gets a stream still
            self._put(response, stream.whole(answer), CONTENT_TYPES[stream.framing].encode(), state)
            return response
        out = self.client.write_response(answer, state.losses, state.request)
        self._put(response, orjson_bytes(out), b"application/json", state)
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
        """A stream that the carrier gathered, because a hook must see it whole."""
        stream = state.stream
        assert stream is not None
        through = Passing(stream) if state.passes else stream
        body = through.feed(content) + through.end()
        if not state.passes:
            self._put(response, body, CONTENT_TYPES[stream.framing].encode(), state)
        return response

    def _error(
        self, response: http.Response, content: bytes, status: int, state: _State
    ) -> http.Response:
        if state.passes:
            return response
        return self._put_failure(
            response, read_error(self.provider.parse_error, status, content), state
        )

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
        data.headers.fields = put_body(data.headers.fields, kind)
        _warn(response, state)

    def decode_event(
        self, exchange: Exchange, event: SseEvent | WsMessage
    ) -> SseEvent | WsMessage | list[SseEvent]:
        """The caller's events for one of the provider's."""
        state = exchange.stash[_STATE]
        stream = state.stream
        if stream is None or not isinstance(event, SseEvent):
            return event
        if state.passes:
            stream.learn(event)
            return event
        return stream.event(event)

    def decode_end(self, exchange: Exchange) -> list[SseEvent] | None:
        """The caller's events at the end: an error event where the stream was cut."""
        state = exchange.stash[_STATE]
        stream = state.stream
        if stream is None:
            return None
        ended = [] if state.passes and stream.started else stream.finish()
        if state.losses.warnings:
            state.call.warnings = [str(warning) for warning in state.losses.warnings]
        return ended


def read_error(parse_error: Callable[[int, Any], Failure], status: int, content: bytes) -> Failure:
    """The error in a body of a status of 400 and up, whatever it is."""
    text = content.decode("utf-8", "replace")
    try:
        body = loads(content.removeprefix(b"data:"))  # some say errors as an event
    except ValueError:
        return parse_error(status, text)
    try:
        return parse_error(status, body)
    except UNREAD:
        return Failure(status, kind_of(status, text), text)


def _warn(response: http.Response, state: _State) -> None:
    """Say in the head of an answer what was lost up to now."""
    warnings = state.losses.warnings
    if warnings:
        state.call.warnings = [str(warning) for warning in warnings]
        headers = response.data.headers
        kept = [field for field in headers.fields if field[0] != _WARNINGS]
        headers.fields = (*kept, (_WARNINGS, state.losses.header().encode()))


def failure_in(parse_error: Callable[[int, Any], Failure], body: Json) -> Failure | None:
    """The error that an answer with status 200 holds in place of one: some providers send such."""
    error = body.get("error")
    if not error:
        return None
    code = error.get("code") if isinstance(error, dict) else None
    status = code if isinstance(code, int) and 400 <= code <= 599 else 500
    return parse_error(status, body)


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


def put_body(
    fields: tuple[tuple[bytes, bytes], ...], kind: bytes, gone: frozenset[bytes] = _OF_THE_BODY
) -> tuple[tuple[bytes, bytes], ...]:
    """Fields of a message whose body is another now, of the content type `kind`."""
    kept = [field for field in fields if field[0].lower() not in gone]
    kept.append((b"content-type", kind))
    return tuple(kept)
