"""Heads first: who sees a body, when it is gathered, and up to which size."""

from __future__ import annotations

import pytest

from tidegate.api import AddonConfig, Body, Plugin, Principal, hook
from tidegate.testing import Harness, Use, make_answer, make_exchange
from tidegate.testing.faults import deny_plugin, plugin_with


def seeing(name: str, needs: Body | None, seen: list[bytes | None]) -> type[Plugin]:
    def act(_, exchange):
        message = exchange.response if name == "transform_response" else exchange.request
        seen.append(message.content)

    plugin = plugin_with(name, act)
    setattr(plugin, name, hook(needs=needs)(getattr(plugin, name)))
    return plugin


@pytest.mark.parametrize("name", ["authenticate", "authorize", "transform_request", "route"])
async def test_a_request_body_is_there_only_for_hooks_that_need_it(name):
    for needs, expected in ((None, None), (Body(request=True), b"body")):
        seen: list[bytes | None] = []
        harness = Harness(seeing(name, needs, seen), gateway={"anonymous": True})
        async with harness:
            await harness.send(make_exchange("POST", body=b"body"))
            assert seen == [expected]
            assert harness.sent[0].content == b"body"


async def test_a_caller_without_a_right_is_refused_before_the_body_is_read():
    seen: list[bytes | None] = []
    reader = Use(seeing("transform_request", Body(request=True, limit=1), seen), name="reader")
    async with Harness(deny_plugin(), reader) as harness:
        exchange = await harness.send(make_exchange("POST", body=b"x" * 100))
        assert exchange.response.status_code == 403
        assert seen == []


async def test_the_smallest_limit_counts_and_over_it_is_413():
    seen: list[bytes | None] = []
    uses = [
        Use(seeing("transform_request", Body(request=True, limit=10), seen), name="ten"),
        Use(seeing("transform_request", Body(request=True, limit=5), seen), name="five"),
    ]
    async with Harness(*uses) as harness:
        assert (await harness.send(make_exchange("POST", body=b"12345"))).outcome == "answered"
        exchange = await harness.send(make_exchange("POST", body=b"123456"))
        assert exchange.response.status_code == 413
        assert exchange.denial.code == "body_too_large"


@pytest.mark.parametrize("first_needs", [None, Body(request=True)])
async def test_the_first_authenticator_counts_also_where_another_reads_the_body(first_needs):
    """A jump over the rest of a phase must not lose its place where the body came."""
    asked = []

    class Signature(Plugin):
        @hook(needs=Body(request=True))
        def authenticate(self, exchange):
            asked.append("signature")
            return Principal("signed")

    class Key(Plugin):
        @hook(needs=first_needs)
        def authenticate(self, exchange):
            return Principal("keyed")

    async with Harness(Use(Key), Use(Signature)) as harness:
        exchange = await harness.send(make_exchange("POST", body=b"x"))
        assert exchange.principal == Principal("keyed")
        assert asked == []


async def test_the_first_route_counts_also_where_another_reads_the_body():
    from tidegate.api import upstream_from_url

    class Plain(Plugin):
        @hook
        def route(self, exchange):
            return upstream_from_url("http://127.0.0.1:1", name="plain")

    class ByBody(Plugin):
        @hook(needs=Body(request=True))
        def route(self, exchange):
            return upstream_from_url("http://127.0.0.1:2", name="by-body")

    async with Harness(Use(Plain), Use(ByBody), routed=False) as harness:
        exchange = await harness.send(make_exchange("POST", body=b"x"))
        assert exchange.upstream.name == "plain"


async def test_a_response_body_is_there_only_for_hooks_that_need_it():
    for needs, expected in ((None, None), (Body(response=True), b"answer")):
        seen: list[bytes | None] = []
        plugin = seeing("transform_response", needs, seen)
        async with Harness(plugin, answer=make_answer(200, "answer")) as harness:
            exchange = await harness.send(make_exchange())
            assert seen == [expected]
            assert exchange.response.content == b"answer"


async def test_a_response_over_the_limit_is_502():
    plugin = seeing("transform_response", Body(response=True, limit=3), [])
    async with Harness(plugin, answer=make_answer(200, "answer")) as harness:
        exchange = await harness.send(make_exchange())
        assert exchange.response.status_code == 502
        assert exchange.denial.code == "upstream_body_too_large"


async def test_a_stream_is_gathered_for_what_may_be_a_redactor():
    answer = make_answer(200, b"data: secret\n\n", {"content-type": "text/event-stream"})

    class Redactor(Plugin):
        @hook(needs=Body(response=True))
        def transform_response(self, exchange):
            exchange.response.content = exchange.response.content.replace(b"secret", b"******")

    class WithEvents(Redactor):
        @hook
        def transform_event(self, exchange, event):
            event.data = event.data.replace("secret", "------")

    for plugin, expected in ((Redactor, b"data: ******\n\n"), (WithEvents, b"data: ------\n\n")):
        if plugin is WithEvents:
            plugin = plugin_with_events(WithEvents)
        async with Harness(plugin, answer=answer) as harness:
            exchange = await harness.send(make_exchange())
            assert exchange.response.content == expected


def plugin_with_events(cls: type[Plugin]) -> type[Plugin]:
    """Its `transform_response` minds that a stream has no body to see."""

    class Minds(cls):
        @hook(needs=Body(response=True))
        def transform_response(self, exchange):
            if exchange.response.content is not None:
                super().transform_response(exchange)

    return Minds


async def test_a_stream_passes_a_hook_that_says_that_it_redacts_nothing():
    seen: list[bytes | None] = []
    plugin = seeing("transform_response", Body(response=True, streams=False), seen)
    answer = make_answer(200, b"data: 1\n\n", {"content-type": "text/event-stream"})
    async with Harness(plugin, answer=answer) as harness:
        await harness.send(make_exchange())
        harness.answer = make_answer(200, b"whole")
        await harness.send(make_exchange())
    assert seen == [None, b"whole"]


async def test_a_need_may_depend_on_the_options():
    class DeepConfig(AddonConfig):
        deep: bool = False

    seen = []

    class Deep(Plugin[DeepConfig]):
        Config = DeepConfig

        @hook(needs=lambda config: Body(request=True) if config.deep else None)
        def authorize(self, exchange):
            seen.append(exchange.request.content)

    for deep in (False, True):
        async with Harness(Use(Deep, {"deep": deep})) as harness:
            await harness.send(make_exchange("POST", body=b"x"))
    assert seen == [None, b"x"]


@pytest.mark.parametrize("mode", ["enforce", "shadow"])
async def test_a_need_may_depend_on_the_exchange(mode):
    def wanted(exchange):
        return exchange.path == "/call"

    seen: list[bytes | None] = []
    plugin = seeing("authorize", Body(request=True, limit=4, when=wanted), seen)
    async with Harness(Use(plugin, mode=mode)) as harness:
        for path, content in (("/call", b"body"), ("/file", b"a long body")):
            url = f"http://api.test{path}"
            exchange = await harness.send(make_exchange("POST", url, body=content))
            assert (exchange.outcome, exchange.shadows) == ("answered", [])
            assert harness.sent[-1].content == content
    assert seen == [b"body", None]


async def test_where_another_needs_every_body_each_is_there():
    seen: list[bytes | None] = []
    some = Use(seeing("authorize", Body(request=True, when=lambda _: False), seen), name="some")
    every = Use(seeing("authorize", Body(request=True), seen), name="every")
    async with Harness(some, every) as harness:
        await harness.send(make_exchange("POST", body=b"body"))
    assert seen == [b"body", b"body"]


async def test_a_json_body_is_parsed_once_for_all():
    values = []

    class Reads(Plugin):
        @hook(needs=Body(request=True))
        def authorize(self, exchange):
            values.append(exchange.request_json())

    async with Harness(Use(Reads, name="a"), Use(Reads, name="b")) as harness:
        await harness.send(make_exchange("POST", body={"a": 1}))
    assert values[0] is values[1]
    assert values[0] == {"a": 1}
