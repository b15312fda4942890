"""The addon: looks calls up, and keeps what models answered."""

from __future__ import annotations

import asyncio
import logging
from decimal import Decimal
from typing import Any, Final

import orjson
from mitmproxy import http

from tidegate.api import Body, BodySink, ErrorCode, Exchange, Plugin, hook
from tidegate.api.caching import CACHE_HINTS
from tidegate.api.coding import coding_of
from tidegate.api.formats import AI_SPENT, AiUsage, error_body
from tidegate.api.messages import Fields, make_response
from tidegate.api.tiers import Kept, Tier, open_tier

from . import cli
from .answers import Unfit, load_formats, plain, replayed, to_keep
from .asked import ASKED, Asked, is_call, understand
from .options import CacheAiConfig
from .sink import Sink
from .wishes import wishes_of

log = logging.getLogger("tidegate.addon.cache-ai")

NOT_KEPT: Final = ErrorCode(
    "answer_not_cached", 504, "No answer is kept, and only-if-cached forbids to ask for one."
)
LARGEST: Final = 64 * 1024 * 1024
"""Bytes of a request that is gathered: what others send in the same scope must not fail here."""
COST: Final = b"x-tidegate-cost-saved"
TOKENS: Final = b"x-tidegate-tokens-saved"
_STATUS: Final = b"cache-status"


class CacheAi(Plugin[CacheAiConfig]):
    """See the README."""

    Config = CacheAiConfig
    codes = (NOT_KEPT,)

    tier: Tier

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Open the tier, or take it over from the instance that this one replaces."""
        await asyncio.to_thread(load_formats)
        self._handed_over = False
        self._count = self.context.counters.add
        self._micro = Decimal(0)
        size, memory = self.config.size, self.config.memory
        if isinstance(previous, CacheAi):
            previous._handed_over = True
            self.tier = previous.tier
            self.tier.resize(size, memory, self.context.counters)
        else:
            self.tier = open_tier(
                "file",
                self.context.state,
                size=size,
                memory=memory,
                counters=self.context.counters,
            )

    @hook
    async def shutdown(self) -> None:
        """Write what waits to be written, and close the tier."""
        if not self._handed_over:
            await asyncio.to_thread(self.tier.close)

    @hook
    def cli_commands(self, app: Any) -> None:
        """`tidegate cache-ai stats|purge`."""
        cli.add_to(app, self.context, self.config)

    # -- an exchange ----------------------------------------------------------------------------

    @hook
    def authorize(self, exchange: Exchange) -> None:
        """Be called at the end, after those who know what a call has cost."""
        if is_call(exchange):
            exchange.at_end(self._ended)

    @hook(needs=Body(request=True, limit=LARGEST))
    def cache_lookup(self, exchange: Exchange) -> http.Response | None:
        """Answer from the cache, or remember what was asked."""
        if not is_call(exchange):
            return None
        asked = understand(exchange, self.config)
        if asked is None:
            return None
        exchange.stash[ASKED] = asked
        if asked.why:
            self._count("bypassed_total")
            return self._miss(exchange, asked)
        kept = self.tier.get(asked.name, asked.partition)
        if kept is not None:
            ttl = min(kept.ttl_at(exchange.now), int(self.config.ttl - exchange.now + kept.at))
            if ttl > 0 and asked.accepts(int(exchange.now - kept.at)):
                response = self._hit(exchange, asked, kept, ttl)
                if response is not None:
                    return response
        self._count("misses_total")
        asked.mark = self.tier.mark(asked.name)
        return self._miss(exchange, asked)

    def _miss(self, exchange: Exchange, asked: Asked) -> http.Response | None:
        exchange.notes["cache_ai"] = {"hit": False, "why": asked.why or None}
        if "only-if-cached" not in asked.wishes:
            return None
        denial = NOT_KEPT.denial()
        error = {"code": denial.code, "message": denial.message, "request_id": exchange.id}
        body = error_body(exchange.path, denial, exchange.id) or orjson.dumps({"error": error})
        fields = ((b"content-type", b"application/json"), _told(b"tidegate-ai; fwd=uri-miss"))
        return make_response(504, b"", fields, body, exchange.now)

    def _hit(self, exchange: Exchange, asked: Asked, kept: Kept, ttl: int) -> http.Response | None:
        target = exchange.request.data.path.decode("latin-1")
        try:
            kind, body, usage = replayed(asked, kept.body, target)
        except ValueError as error:
            log.error("an answer that is kept can't be given again: %s", error)
            self._count("unreadable_total")
            return None
        cost = next((v.decode() for n, v in kept.fields if n == b"cost"), "")
        age = max(0, int(exchange.now - kept.at))
        fields: Fields = (
            (b"content-type", kind.encode()),
            (b"age", b"%d" % age),
            _told(b"tidegate-ai; hit; ttl=%d" % ttl),
        )
        if usage is not None:
            fields += ((TOKENS, b"input=%d, output=%d" % (usage.input, usage.output)),)
        if cost:
            fields += ((COST, cost.encode()),)
        self._saved(exchange, usage, cost)
        return make_response(200, b"", fields, body, exchange.now)

    def _saved(self, exchange: Exchange, usage: AiUsage | None, cost: str) -> None:
        self._count("hits_total")
        if usage is not None:
            self._count("input_tokens_saved_total", usage.input)
            self._count("output_tokens_saved_total", usage.output)
        if cost:
            self._micro += Decimal(cost) * 1_000_000
            whole = int(self._micro)
            self._micro -= whole
            self._count("cost_saved_microdollars_total", whole)
        exchange.notes["cache_ai"] = {
            "hit": True,
            "input": usage.input if usage is not None else None,
            "output": usage.output if usage is not None else None,
            "saved_usd": float(cost) if cost else None,
        }

    @hook
    def cache_store(self, exchange: Exchange) -> BodySink | None:
        """Tell what the cache did, and watch an answer pass that may be kept."""
        asked = exchange.stash.get(ASKED)
        if asked is None:
            return None
        response = exchange.response
        assert response is not None
        headers = response.data.headers
        fields: Fields = headers.fields
        why = asked.why or self._unfit(response.data.status_code, fields)
        told = b"tidegate-ai; fwd=%b" % (b"bypass" if asked.why else b"uri-miss")
        if why:
            told += b'; detail="%b"' % why.replace('"', "'").encode("ascii", "replace")
        headers.fields = (*fields, _told(told))
        if why:
            return None
        asked.content_type = _essence(fields)
        asked.coding = coding_of(fields)
        return Sink(asked, self.config.max_answer)

    def _unfit(self, status: int, fields: Fields) -> str:
        if status != 200:
            return f"status {status} is not kept"
        wishes = wishes_of(fields)
        if "no-store" in wishes:
            return "the answer says no-store"
        if "private" in wishes and self.config.partition == "shared":
            return "the answer says private"
        return ""

    def _ended(self, exchange: Exchange) -> None:
        """The exchange is over: keep what passed whole."""
        asked = exchange.stash.get(ASKED)
        if asked is None or asked.body is None or exchange.outcome != "answered":
            return
        most = self.config.max_answer
        try:
            body = plain(asked.body, asked.coding, most)
            body, _ = to_keep(asked, body, self.config.finish)
        except (Unfit, LookupError) as why:
            self._count("not_kept_total")
            exchange.notes["cache_ai"] = {"hit": False, "why": str(why)}
            return
        fields: Fields = ((b"model", asked.model.encode("utf-8", "replace")),)
        spent = exchange.stash.get(AI_SPENT)
        if spent is not None and spent.cost is not None:
            fields += ((b"cost", f"{spent.cost:f}".encode()),)
        kept = Kept(fields, body, exchange.now, int(self.config.ttl))
        tags = [b"model:" + asked.model.encode("utf-8", "replace"), asked.partition]
        hints = exchange.stashed(CACHE_HINTS)
        if hints is not None:
            tags += [tag.encode() for tag in hints.tags]
        if self.tier.put(asked.name, asked.partition, kept, mark=asked.mark, tags=tags):
            self._count("kept_total")


def _told(member: bytes) -> tuple[bytes, bytes]:
    return _STATUS, member


def _essence(fields: Fields) -> str:
    for name, value in fields:
        if len(name) == 12 and name.lower() == b"content-type":
            return value.split(b";", 1)[0].strip().lower().decode("latin-1")
    return ""
