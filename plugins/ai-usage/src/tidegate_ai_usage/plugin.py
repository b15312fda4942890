"""The addon: sees calls to models, settles them at their end, and says what they cost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from mitmproxy import http

from tidegate.api import AddonContext, Body, BodySink, Exchange, Plugin, hook
from tidegate.api.coding import coding_of
from tidegate.api.formats import AI_CALL, AI_SPENT, AiSpent

from . import counting
from .account import ACCOUNT, Account
from .config import AiUsageConfig
from .keys import swap
from .prices import FEMTO, Prices, dollars
from .providers import PROVIDERS, Api, Provider, api_of, provider_of
from .reader import Reader
from .tokens import quick

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a body that is gathered, where an option asks for that."""
HELD: Final = 64 * 1024 * 1024
"""Bytes and characters that may wait to be counted; what is beyond stays estimated."""
MICRO: Final = FEMTO // 1_000_000
CLOSING: Final = 5.0
"""Seconds that shutdown waits for what is still being counted."""
COST: Final = b"x-tidegate-cost"
_HEAD: Final = {
    b"x-amzn-bedrock-input-token-count": "inputTokenCount",
    b"x-amzn-bedrock-output-token-count": "outputTokenCount",
}
"""Bedrock says what was used in the head of InvokeModel's answers."""
_BY_MODEL: Final = ("calls_total", "input_tokens_total", "output_tokens_total")
TOKENS: Final = b"x-tidegate-tokens"


def _request_needs(config: AiUsageConfig) -> Body | None:
    return Body(request=True, limit=LARGEST) if config.count_prompts else None


def _response_needs(config: AiUsageConfig) -> Body | None:
    return Body(response=True, limit=LARGEST, streams=False) if config.headers else None


class AiUsage(Plugin[AiUsageConfig]):
    """Tokens and cost of every call to a model."""

    Config = AiUsageConfig

    def __init__(self, config: AiUsageConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self.prices = Prices([entry.override for entry in config.prices])
        self._hosts = {host.lower(): PROVIDERS[name] for host, name in config.hosts.items()}
        self._keys = {entry.provider: entry.key.get_secret_value() for entry in config.keys}
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="ai-usage")
        self._counting: set[asyncio.Future[Any]] = set()
        self._held = 0
        self._names: dict[tuple[str, str], tuple[str, ...]] = {}
        self._spent = 0
        """Femto-dollars that are no whole micro-dollar yet."""

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Read the price table. It comes with genai-prices; nothing is fetched."""
        await asyncio.to_thread(self.prices.load)

    @hook
    async def shutdown(self) -> None:
        """Wait for what is still being counted."""
        if self._counting:
            await asyncio.wait(self._counting, timeout=CLOSING)
        self._threads.shutdown(wait=False, cancel_futures=True)

    @hook
    def cli_commands(self, app: Any) -> None:
        """`tidegate usage`."""
        from .report import register

        if self.context.name == "ai-usage":
            register(app, self.context.state.parent / "log-access" / "access.jsonl")

    # -- an exchange ----------------------------------------------------------------------------

    @hook(needs=_request_needs)
    def transform_request(self, exchange: Exchange) -> None:
        """Recognise a call to a model."""
        if self._keys and swap(exchange, self._keys, self._provider):
            self.context.counters.add("keys_swapped_total")
        if exchange.request.data.method == b"POST":
            api = api_of(exchange.path)
            if api is not None:
                self._open(exchange, api)

    @hook(needs=Body(request=True, limit=LARGEST, when=counting.asks))
    def route(self, exchange: Exchange) -> Coroutine[Any, Any, http.Response] | None:
        """Count the tokens of a prompt, where its provider does not."""
        if not counting.asks(exchange):
            return None
        model = counting.model_to_count_for(exchange)
        return None if model is None else self._answer_count(exchange, model)

    async def _answer_count(self, exchange: Exchange, model: str) -> http.Response:
        content = exchange.request.content or b""
        loop = asyncio.get_running_loop()
        tokens, exact = await loop.run_in_executor(self._threads, counting.count, content, model)
        self.context.counters.add("prompts_counted_total")
        return counting.answer(exchange, tokens, exact=exact)

    def _open(self, exchange: Exchange, api: Api) -> Account:
        account = exchange.stash[ACCOUNT] = Account(api)
        exchange.at_end(self._end)
        return account

    @hook
    def cache_store(self, exchange: Exchange) -> BodySink | None:
        """Watch the answer pass."""
        stash = exchange.stash
        account, call = stash.get(ACCOUNT), stash.get(AI_CALL)
        if account is None:
            if call is None:
                return None
            account = self._open(exchange, Api(call.format, "chat"))
        assert exchange.response is not None
        data = exchange.response.data
        if data.status_code >= 400:
            return None
        if call is not None and call.usage is not None and data.content is not None:
            account.told = not call.request.stream
            if account.told:
                return None
        fields = data.headers.fields
        kind, raw = b"", {}
        for name, value in fields:
            if len(name) == 12 and name.lower() == b"content-type":
                kind = value
            elif len(name) in (32, 33) and name.lower() in _HEAD and value.isdigit():
                raw[_HEAD[name.lower()]] = int(value)
        content_type = kind.decode("latin-1").lower()
        reader = account.reader = Reader(content_type, coding_of(fields), raw or None)
        return reader

    @hook(needs=_response_needs)
    def transform_response(self, exchange: Exchange) -> None:
        """Tell the caller what a whole answer used. Of a stream it is not known yet."""
        if not self.config.headers:
            return
        account = exchange.stash.get(ACCOUNT)
        response = exchange.response
        assert response is not None
        if account is None or response.data.content is None or response.data.status_code >= 400:
            return
        if not self._settle(exchange, account):
            return
        usage = account.usage
        told = b"input=%d, output=%d, cached=%d" % (usage.input, usage.output, usage.cache_read)
        if account.estimated:
            told += b", estimated"
        headers = response.data.headers
        headers.fields += ((TOKENS, told),)
        if account.cost is not None:
            headers.fields += ((COST, f"{dollars(account.cost).normalize():f}".encode()),)

    @hook
    def log(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """Let addons listed later wait until all is counted."""
        if "ai" not in exchange.notes:
            return None
        account = exchange.stash.get(ACCOUNT)
        waiting = None if account is None else account.waiting
        return None if waiting is None else _done(waiting)

    # -- settling -------------------------------------------------------------------------------

    def _settle(self, exchange: Exchange, account: Account) -> bool:
        """Figures and cost. False: this was no call to a model."""
        account.cached = exchange.from_cache
        if not account.settle(exchange, self._asked(exchange)):
            return False
        uncounted = account.uncounted
        if uncounted is not None and quick(uncounted.size, account.model):
            self._counted(account, uncounted.count())
        self._price(exchange, account)
        return True

    def _price(self, exchange: Exchange, account: Account) -> None:
        if account.cached or account.failed:
            account.cost = 0
            return
        team = exchange.principal.team if exchange.principal is not None else ""
        seller = account.asked.prices if account.asked is not None else ""
        account.cost = self.prices.cost(
            account.provider, account.model, account.usage, exchange.now, team=team, seller=seller
        )

    @staticmethod
    def _counted(account: Account, found: tuple[int, int, bool, str]) -> None:
        """Put what was counted in the place of what was estimated."""
        input, output, exact, model = found
        account.usage.input = input or account.usage.input
        account.usage.output = output
        account.estimated = not exact
        account.model = account.model or model
        account.uncounted = None

    def _end(self, exchange: Exchange) -> None:
        """The exchange is over: settle, tell, and count the words off the loop if need be."""
        account = exchange.stash[ACCOUNT]
        sent = exchange.attempts or account.reader is not None or exchange.from_cache
        if not sent:
            return
        early = account.settled and account.finish and exchange.outcome == "answered"
        if not early and not self._settle(exchange, account):
            return
        self._tell(exchange, account)
        uncounted = account.uncounted
        if uncounted is None:
            self._add_up(account)
            return
        if self._held + uncounted.size > HELD:
            self.context.counters.add("not_counted_total")
            self._add_up(account)
            return
        self._held += uncounted.size
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, uncounted.count)
        account.waiting = future
        self._counting.add(future)

        def done(future: asyncio.Future[tuple[int, int, bool, str]]) -> None:
            self._counting.discard(future)
            self._held -= uncounted.size
            if not future.cancelled() and future.exception() is None:
                self._counted(account, future.result())
                self._price(exchange, account)
                self._tell(exchange, account)
            else:
                self.context.counters.add("counting_failures_total")
            self._add_up(account)

        future.add_done_callback(done)

    def _tell(self, exchange: Exchange, account: Account) -> None:
        """Put the result where log and limits find it."""
        usage, cost = account.usage, account.cost
        exchange.stash[AI_SPENT] = AiSpent(
            account.provider,
            account.model,
            account.api.format,
            usage,
            None if cost is None else dollars(cost),
            account.estimated,
            account.finish,
        )
        first, started = exchange.first_byte, exchange.started
        exchange.notes["ai"] = {
            "provider": account.provider,
            "model": account.model,
            "format": account.api.format,
            "kind": account.api.kind,
            "input": usage.input,
            "output": usage.output,
            "cache_read": usage.cache_read,
            "cache_write": usage.cache_write,
            "reasoning": usage.reasoning,
            "cost_usd": None if cost is None else cost / FEMTO,
            "estimated": account.estimated,
            "cached": account.cached,
            "streamed": account.reader is not None and account.reader.streamed,
            "finish": account.finish or None,
            "ttft_ms": int((first - started) * 1e6) / 1000 if first and started else None,
        }

    def _add_up(self, account: Account) -> None:
        """The counters. Those by model are bounded: beyond `models` they are `other`."""
        counters, usage = self.context.counters, account.usage
        if account.failed:
            counters.add("failed_calls_total")
            return
        if account.cached:
            counters.add("cached_calls_total")
            return
        calls, input, output = self._named(account.provider, account.model)
        values = counters.values
        for name, n in (
            ("calls_total", 1),
            (calls, 1),
            ("input_tokens_total", usage.input),
            (input, usage.input),
            ("output_tokens_total", usage.output),
            (output, usage.output),
        ):
            values[name] = values.get(name, 0) + n
        if account.estimated:
            counters.add("estimated_calls_total")
        if account.cost is None:
            counters.add("unpriced_calls_total")
            return
        micro, self._spent = divmod(self._spent + account.cost, MICRO)
        counters.add("cost_microdollars_total", micro)

    def _named(self, provider: str, model: str) -> tuple[str, ...]:
        """The counters of one model."""
        names = self._names.get((provider, model))
        if names is None:
            label = f"{provider or 'unknown'}/{model or 'unknown'}"
            full = len(self._names) >= self.config.models
            names = tuple(f"{kind}:{'other' if full else label}" for kind in _BY_MODEL)
            if not full:
                self._names[provider, model] = names
        return names

    # -- whose it is ----------------------------------------------------------------------------

    def _provider(self, host: str) -> Provider | None:
        return self._hosts.get(host) or provider_of(host)

    def _asked(self, exchange: Exchange) -> Provider | None:
        """The provider that was asked, by its host."""
        attempts = exchange.attempts
        upstream = attempts[-1].upstream if attempts else exchange.upstream
        if upstream is not None:
            found = self._provider((upstream.tls.sni or upstream.host).lower())
            if found is not None:
                return found
            named = PROVIDERS.get(upstream.name.partition("/")[0])
            if named is not None:
                return named
        return self._provider(exchange.host)


async def _done(waiting: asyncio.Future[Any]) -> None:
    await asyncio.wait((waiting,))
