"""What plugins keep that change requests, responses or events."""

from __future__ import annotations

from mitmproxy import http

from tidegate.api import Exchange
from tidegate.api.sse import SseParser
from tidegate.runtime.messages import check_request, check_response
from tidegate.testing.exchanges import make_answer

from .base import Contract, on_the_wire

FRAMING = (b"transfer-encoding", b"connection", b"upgrade", b"te", b"trailer")


class TransformContract(Contract):
    """What comes out can be sent, and its framing is core's."""

    def answer(self) -> http.Response:
        """What upstream answers to `good_exchange()`."""
        return make_answer()

    async def test_what_it_leaves_can_be_sent(self) -> None:
        async with self.harness(answer=self.answer()) as harness:
            exchange = await harness.send(self.good_exchange())
            assert exchange.failed_addon == "", exchange.denial
            for request in harness.sent:
                check_request(request)
            check_response(exchange.response)

    async def test_framing_is_left_alone(self) -> None:
        original = self.good_exchange().request
        answer = self.answer()
        async with self.harness(answer=answer) as harness:
            exchange = await harness.send(self.good_exchange())
            pairs: list[tuple[http.Message, http.Message | None]] = [(answer, exchange.response)]
            pairs += [(original, request) for request in harness.sent]
            for before, after in pairs:
                assert after is not None
                assert _framing(before) == _framing(after)
                length = after.headers.get("content-length")
                assert length is None or int(length) == len(after.raw_content or b"")

    async def test_it_does_the_same_to_the_same_exchange(self) -> None:
        seen = []
        for _ in range(2):
            async with self.harness(answer=self.answer()) as harness:
                exchange = await harness.send(self.good_exchange())
                sent = [on_the_wire(request) for request in harness.sent]
                seen.append((sent, on_the_wire(exchange.response).replace(_id(exchange), b"")))
        assert seen[0] == seen[1]

    async def test_in_shadow_it_changes_nothing(self) -> None:
        original = on_the_wire(self.good_exchange().request)
        answer = self.answer()
        async with self.harness("shadow", answer=answer) as harness:
            exchange = await harness.send(self.good_exchange())
            assert [on_the_wire(request) for request in harness.sent] == [original]
            assert on_the_wire(exchange.response) == on_the_wire(answer)

    async def test_an_event_stream_stays_one(self) -> None:
        answer = self.answer()
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            answer = make_answer(200, b"data: 1\n\ndata: [DONE]\n\n", _SSE)
        async with self.harness(answer=answer) as harness:
            exchange = await harness.send(self.good_exchange())
            response = exchange.response
            assert response is not None
            assert exchange.failed_addon == "", exchange.denial
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                parser = SseParser()
                events = parser.feed(response.raw_content or b"")
                assert parser.end() == [], "the last event has its blank line"
                assert events


_SSE = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}


def _framing(message: http.Message) -> list[tuple[bytes, bytes]]:
    return [(n.lower(), v) for n, v in message.headers.fields if n.lower() in FRAMING]


def _id(exchange: Exchange) -> bytes:
    return exchange.id.encode()
