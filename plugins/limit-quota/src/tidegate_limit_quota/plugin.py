"""The addon: reserves before, settles after, and tells callers what is left."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from tidegate.api import AddonContext, Body, Denial, ErrorCode, Exchange, Node, Plugin, hook
from tidegate.api.exchange import StashKey
from tidegate.api.lending import Backend
from tidegate.api.whose import KEYS, calls_a_model

from .amounts import Asked, asked, estimate, load_formats, matches, truth
from .config import LimitConfig, LimitQuotaConfig
from .leases import Lease, Leases
from .local import BrokerBackend
from .memory import MemoryBackend
from .protocol import SOCKET
from .told import Told
from .webhook import SETTINGS, Webhook

QUOTA_EXCEEDED: Final = ErrorCode(
    "quota_exceeded", 429, "The quota is used up. Try again when `Retry-After` says."
)
BUDGET_EXCEEDED: Final = ErrorCode(
    "budget_exceeded", 402, "The budget is spent. It begins anew when `Retry-After` says."
)
STORE_UNAVAILABLE: Final = ErrorCode(
    "budget_store_unavailable", 503, "The quota can't be checked now. Try again shortly."
)
CONNECT: Final = 5.0
"""Seconds that a starting worker waits for who lends."""


def _needs(config: LimitQuotaConfig) -> Body | None:
    """The request's body, where a limit must know the model or what a call asks for."""
    if any(limit.of_models for limit in config.limits):
        return Body(request=True, when=calls_a_model)
    return None


class Limit:
    """A limit, ready for exchanges."""

    __slots__ = ("config", "index", "key", "of_models", "only", "told")

    def __init__(self, index: int, config: LimitConfig) -> None:
        self.index = index
        self.config = config
        self.of_models = config.of_models
        self.only = config.only
        self.key = KEYS[config.per]
        self.told = Told(config)

    def wants(self, exchange: Exchange, call: Asked | None) -> tuple[str, int] | None:
        """(key, estimate) of an exchange; None: the limit is not for it."""
        if self.of_models and (call is None or not self._takes(call)):
            return None
        key = self.key(exchange)
        if key is None or (self.only and not matches(key, self.only)):
            return None
        return key, estimate(self.config, exchange, call)

    def _takes(self, call: Asked) -> bool:
        models = self.config.models
        return not models or matches(call.id, models) or matches(call.model, models)


class Hold:
    """What one exchange has reserved; `settle` ends it."""

    __slots__ = ("_leases", "refused", "taken")

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.taken: list[tuple[Limit, Lease, int]] = []
        self.refused = False

    def settle(self, exchange: Exchange) -> None:
        """Give back what was reserved and not used. Once, at the exchange's end."""
        for limit, lease, n in self.taken:
            used = 0 if self.refused else truth(limit.config, exchange, n)
            self._leases.settle(lease, n, used)

    def refuse(self) -> None:
        """One of the limits does not hold: nothing is used of the others."""
        self.refused = True


class LimitQuota(Plugin[LimitQuotaConfig]):
    """Quotas and budgets: requests, tokens, money, bytes, concurrency; exact across workers."""

    Config = LimitQuotaConfig
    codes = (QUOTA_EXCEEDED, BUDGET_EXCEEDED, STORE_UNAVAILABLE)

    def __init__(self, config: LimitQuotaConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self._limits = tuple(Limit(i, limit) for i, limit in enumerate(config.limits))
        self._of_models = any(limit.of_models for limit in self._limits)
        self._held = StashKey[Hold](f"limit-quota.{context.name}")
        session = secrets.token_hex(8)
        greeting = {"hello": session, "limits": [limit.wire() for limit in config.limits]}
        backend: Backend
        token: str = context.shared.get("broker", "")
        self._store = config.store(context.name)
        if self._store is not None:
            backend = self._store.backend(session)
        elif token:
            backend = BrokerBackend(context.state / SOCKET, greeting)
        else:
            backend = MemoryBackend(greeting)
        self.leases = Leases(session, backend, self._alerted, token)
        hook = config.webhook if self._store is not None else None  # a broker has its own
        self._webhook = None if hook is None else Webhook(hook.url, hook.secret.get_secret_value())
        self._posting: asyncio.Task[None] | None = None

    # -- life -----------------------------------------------------------------------------------

    @hook
    def bootstrap(self, node: Node) -> None:
        """Have the broker run, where no store has its part."""
        if self._store is not None:
            return
        token = node.shared["broker"] = secrets.token_hex(8)
        env = {}
        if self.config.webhook is not None:
            secret = self.config.webhook.secret.get_secret_value()
            env[SETTINGS] = json.dumps({"url": self.config.webhook.url, "secret": secret})
        program = str(Path(__file__).with_name("broker.py"))
        folder = self.context.state.resolve()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        node.run("broker", [sys.executable, "-P", program, str(folder), token], env)

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Connect to who lends, and load what the first call would have to wait for."""
        self.leases.start()
        if self._webhook is not None:
            self._posting = asyncio.create_task(self._webhook.run())
        if self._of_models:
            await asyncio.to_thread(load_formats)
        try:
            async with asyncio.timeout(CONNECT):
                await self.leases.up.wait()
        except TimeoutError:
            self.context.log.error("nobody answers who lends")

    @hook
    async def shutdown(self) -> None:
        """Give back what is left."""
        await self.leases.stop()
        if self._posting is not None:
            self._posting.cancel()

    @hook
    def cli_commands(self, app: Any) -> None:
        """`tidegate quota`."""
        from .verbs import register

        register(app, self.context.name, self.context.state, self._store)

    # -- an exchange ------------------------------------------------------------------------------

    @hook(needs=_needs)
    def authorize(self, exchange: Exchange) -> Denial | Coroutine[Any, Any, Denial | None] | None:
        """Reserve what the exchange may use of each limit. All must hold; only where a lease is
        used up it waits, for the broker."""
        call = asked(exchange) if self._of_models else None
        leases, now = self.leases, time.monotonic()
        hold: Hold | None = None
        for limit in self._limits:
            wanted = limit.wants(exchange, call)
            if wanted is None:
                continue
            key, n = wanted
            if hold is None:
                hold = exchange.stash[self._held] = Hold(leases)
                exchange.at_end(hold.settle)
            lease = leases.current.get((limit.index, key))
            if lease is None or lease.available < n or lease.until <= now:
                if lease is not None and now < lease.refused_until and now < lease.until:
                    return self._deny(hold, limit, lease)
                return self._wait(exchange, hold, limit, call)
            lease.available -= n
            lease.taken_at = now
            hold.taken.append((limit, lease, n))
            if lease.available < lease.low:
                leases.renew(lease)
        return None

    async def _wait(
        self, exchange: Exchange, hold: Hold, first: Limit, call: Asked | None
    ) -> Denial | None:
        """Reserve from the limit on of which the lease is used up; all are asked for at once."""
        rest = [
            (limit, *wanted)
            for limit in self._limits[first.index :]
            if (wanted := limit.wants(exchange, call)) is not None
        ]
        until = time.monotonic() + self.config.wait
        for limit, key, n in rest[1:]:
            self.leases.foresee(limit.index, key, n)
        for limit, key, n in rest:
            outcome, lease = await self.leases.acquire(limit.index, key, n, until)
            if outcome == "outage":
                self.context.counters.add("outages_total")
                if not limit.config.allows_outage:
                    hold.refuse()
                    return STORE_UNAVAILABLE.denial(retry_after=1.0)
                lease.available -= n
            elif outcome == "short":
                return self._deny(hold, limit, lease)
            hold.taken.append((limit, lease, n))
        return None

    def _deny(self, hold: Hold, limit: Limit, lease: Lease) -> Denial:
        hold.refuse()
        self.context.counters.add("denied_total")
        code = BUDGET_EXCEEDED if limit.config.unit == "usd" else QUOTA_EXCEEDED
        seconds = limit.told.seconds(lease, time.monotonic())
        return code.denial(
            f"{code.message} (limit {limit.config.name})",
            headers=limit.told.denied(seconds),
            retry_after=1.0 if seconds is None else max(1.0, seconds),
        )

    @hook
    def transform_response(self, exchange: Exchange) -> None:
        """Tell the caller what is left (draft-ietf-httpapi-ratelimit-headers)."""
        hold = exchange.stashed(self._held)
        if hold is None or hold.refused or not self.config.headers:
            return
        assert exchange.response is not None
        headers, now = exchange.response.data.headers, time.monotonic()
        for limit, lease, _ in hold.taken:
            headers.fields += limit.told.fields(lease, now)

    def explain(self, hook: str, exchange: Exchange) -> str:
        """Which limits hold, and what is left of them."""
        hold = exchange.stashed(self._held)
        if hold is None or not hold.taken:
            return "no limit is for this request"
        return "within " + ", ".join(
            f"{limit.config.name} ({limit.told.left(lease)} left)" for limit, lease, _ in hold.taken
        )

    # -- alerts -----------------------------------------------------------------------------------

    def _alerted(self, limit: str, key: str, percent: int) -> None:
        self.context.counters.add("alerts_total")
        self.context.log.warning("limit %s: %d %% are used by %s", limit, percent, key or "all")
        if self._webhook is not None:
            one = next(one for one in self.config.limits if one.name == limit)
            amount = one.scaled(one.amount)
            self._webhook.put(limit, one.unit, amount, key, percent, time.time())
