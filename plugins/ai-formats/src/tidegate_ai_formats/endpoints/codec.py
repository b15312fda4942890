"""The codec of calls besides chat: one JSON object there, one back; or both as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from mitmproxy import http

from tidegate.api import Exchange, SseEvent, StashKey, WsMessage
from tidegate.api.formats import AI_CALL, AiCall
from tidegate.api.upstream import BodyStream
from tidegate_ai_formats.format import load_object
from tidegate_ai_formats.framing.plain import LIMIT
from tidegate_ai_formats.losses import Failure, InvalidRequest, Losses, Policy, Untranslatable
from tidegate_ai_formats.streaming import UNREADABLE
from tidegate_ai_formats.translation import WARNINGS, failure_in, orjson_bytes, put_body, read_error

from .base import Endpoint, EndpointRequest
from .form import is_form, model_span, renamed

_UNREAD: Final = (ValueError, KeyError, TypeError, AttributeError, IndexError)


@dataclass(slots=True)
class _State:
    call: AiCall
    asked: EndpointRequest
    losses: Losses


_STATE: Final = StashKey[_State]("ai.endpoint")


class _Unchanged:
    """A body that passes."""

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


class EndpointTranslation:
    """For callers of `client` and a provider of `provider`, two formats of one kind."""

    limit: Final = LIMIT
    """Bytes of a body: images come in one."""

    def __init__(
        self, client: Endpoint, provider: Endpoint, policy: Policy, *, model: str | None = None
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
        path, _, query = data.path.decode("latin-1").partition("?")
        kind = request.headers.get("content-type", "")
        content = data.content or b""
        losses = Losses(self.provider.name, self.policy)
        try:
            call, asked = self._asked(exchange, content, kind, path)
            sent = replace(asked, model=call.model)
            if not self._same:
                data.content = orjson_bytes(self.provider.write_request(sent, losses))
                data.headers.fields = put_body(data.headers.fields, b"application/json")
                query = ""
            elif call.model != asked.model:
                data.content = self._renamed(content, kind, call.model)
        except (InvalidRequest, Untranslatable) as error:
            return self._refused(error)
        target = self.provider.path(sent)
        data.path = (f"{target}?{query}" if query else target).encode("latin-1")
        call.warnings = [str(warning) for warning in losses.warnings]
        losses.turn(self.client.name)
        exchange.stash[_STATE] = _State(call, asked, losses)
        return request

    def _asked(
        self, exchange: Exchange, content: bytes, kind: str, path: str
    ) -> tuple[AiCall, EndpointRequest]:
        call = exchange.stash.get(AI_CALL)
        if call is None or not isinstance(call.request, EndpointRequest):
            if is_form(kind):
                asked = EndpointRequest(self.client.family, _model_of(content, kind))
            else:
                asked = self.client.parse_request(load_object(content), path)
            call = exchange.stash[AI_CALL] = AiCall(self.client.name, asked)
        else:
            asked = call.request
        call.provider_format = self.provider.name
        call.model = self.model or asked.model
        call.usage, call.finish, call.cut = None, "", None
        return call, asked

    @staticmethod
    def _renamed(content: bytes, kind: str, model: str) -> bytes:
        if is_form(kind):
            return renamed(content, kind, model)
        body = load_object(content)
        if "model" in body:
            body["model"] = model
        return orjson_bytes(body)

    def _refused(self, error: InvalidRequest | Untranslatable) -> http.Response:
        failure = Failure(400, "invalid_request", str(error), param=error.field)
        status, body = self.client.write_error(failure)
        return http.Response.make(status, orjson_bytes(body), {"content-type": "application/json"})

    # -- answers --------------------------------------------------------------------------------

    def decode_head(self, exchange: Exchange, response: http.Response) -> BodyStream | None:
        """What is not JSON passes: sound, and streams of events."""
        kind = response.headers.get("content-type", "")
        return None if kind[:16].lower() == "application/json" else _Unchanged()

    def decode(self, exchange: Exchange, response: http.Response) -> http.Response:
        """The caller's answer for the provider's."""
        state = exchange.stash[_STATE]
        content = response.data.content or b""
        if response.headers.get("content-encoding"):
            content = response.content or b""
        if response.data.status_code >= 400:
            return response if self._same else self._failed(response, content, state)
        try:
            body = load_object(content, "the answer")
            failure = failure_in(self.provider.parse_error, body)
            if failure is not None:
                return response if self._same else self._put_failure(response, failure, state)
            answer = self.provider.parse_answer(body)
        except _UNREAD:
            return response if self._same else self._put_failure(response, UNREADABLE, state)
        state.call.usage = answer.usage
        if self._same:
            return response
        answer.model = answer.model or state.call.model
        answer.id = answer.id or f"tg-{exchange.id}"
        written = self.client.write_answer_of(answer, state.asked, state.losses)
        self._put(response, orjson_bytes(written), state)
        return response

    def _failed(self, response: http.Response, content: bytes, state: _State) -> http.Response:
        failure = read_error(self.provider.parse_error, response.data.status_code, content)
        return self._put_failure(response, failure, state)

    def _put_failure(
        self, response: http.Response, failure: Failure, state: _State
    ) -> http.Response:
        response.data.status_code, body = self.client.write_error(failure)
        response.data.reason = b""
        self._put(response, orjson_bytes(body), state)
        return response

    @staticmethod
    def _put(response: http.Response, content: bytes, state: _State) -> None:
        data = response.data
        data.content = content
        data.headers.fields = put_body(data.headers.fields, b"application/json")
        if state.losses.warnings:
            state.call.warnings = [str(warning) for warning in state.losses.warnings]
            said = (WARNINGS.encode(), state.losses.header().encode())
            data.headers.fields += (said,)

    def decode_event(self, exchange: Exchange, event: SseEvent | WsMessage) -> SseEvent | WsMessage:
        """Streams of these kinds pass."""
        return event

    def decode_end(self, exchange: Exchange) -> None:
        """Nothing more."""


def _model_of(content: bytes, kind: str) -> str:
    try:
        start, end = model_span(content, kind)
    except ValueError as error:
        raise InvalidRequest("model", str(error)) from None
    return content[start:end].decode("utf-8", "replace")
