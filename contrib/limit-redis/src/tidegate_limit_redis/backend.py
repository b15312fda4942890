"""One worker's connection to Redis: says how its leases stand, hears what they may spend."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError

from tidegate.api.lending import Ask, Receiver, Terms

from .account import GRACE, Answer, Memory, Told, arguments
from .scripts import LEND

log = logging.getLogger("limit-redis")

RETRIES: Final = (0.01, 0.01, 0.02)
"""Seconds between looks at whether others have given back what is needed."""
REMEMBERED: Final = 100_000
"""Accounts of which a worker remembers what is spent."""
CONNECT_AGAIN: Final = 0.1
LONGEST_WAIT: Final = 1.0
AWAY: Final = 0.5
"""Seconds for which a lost connection may be one that comes back."""
GOODBYE: Final = 1.0
BATCH: Final = 200
"""Leases told at once: Redis does one after the other, and others wait for it."""


class RedisBackend:
    """A worker's side of the leases in Redis.

    `connect` makes a client, `name` the key of an account, `channel` is where this worker is told
    what others need.
    """

    def __init__(
        self,
        terms: Sequence[Terms],
        connect: Callable[[], Redis],
        name: Callable[[Terms, str], str],
        channel: str,
        session: str,
        grace: float = GRACE,
    ) -> None:
        self._terms = terms
        self._connect = connect
        self._name = name
        self._channel = channel
        self._session = session
        self._grace = grace
        self._client: Redis | None = None
        self._lost_at = -AWAY
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._leases: dict[str, Told] = {}
        self._due: dict[str, Told] = {}
        self._memory: OrderedDict[tuple[str, str], Memory] = OrderedDict()
        self._refusing = False
        self._clock = (0.0, 0.0)
        """Redis' clock, and ours at that moment."""

    @property
    def up(self) -> bool:
        return self._client is not None or time.monotonic() - self._lost_at < AWAY

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._task = asyncio.create_task(self._run())

    def ask(self, asks: Sequence[Ask]) -> None:
        for ask in asks:
            known = self._leases.get(ask.lease)
            opened = None if known is None else known.opened
            self._leases[ask.lease] = self._due[ask.lease] = Told(ask, opened=opened)
        self._wake.set()

    async def stop(self) -> None:
        """What its leases hold is spent at once, where Redis can be told."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        held = [told for told in self._leases.values() if told.opened is not None]
        if not held:
            return
        for told in held:
            told.closing = True
        try:
            async with asyncio.timeout(GOODBYE), self._connect() as client:
                await self._say(client, held)
        except (RedisError, OSError, TimeoutError):
            pass  # they are spent when their grace is over

    # -- the connection -------------------------------------------------------------------------

    async def _run(self) -> None:
        wait, told = CONNECT_AGAIN, False
        while True:
            try:
                async with self._connect() as client:
                    await self._converse(client)
            except* (RedisError, OSError, TimeoutError) as group:
                if self._client is not None:
                    self._lost_at, wait, told = time.monotonic(), CONNECT_AGAIN, False
                if not told:
                    log.error("Redis does not answer: %s", group.exceptions[0])
                    told = True
            finally:
                self._client = None
            await asyncio.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)

    async def _converse(self, client: Redis) -> None:
        """Until the connection is lost. Raises RedisError, OSError, TimeoutError."""
        await check(client)
        async with client.pubsub(ignore_subscribe_messages=True) as recalls:
            await recalls.subscribe(self._channel + self._session)
            seconds, micros = await client.time()
            self._clock = seconds + micros / 1e6, time.monotonic()
            self._client = client
            self._receiver.connected("")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._hear(recalls))
                tasks.create_task(self._tell(client))

    async def _hear(self, recalls: Any) -> None:
        while True:
            message = await recalls.get_message(timeout=None)
            if message is not None:
                self._receiver.recalled(message["data"].decode())

    async def _tell(self, client: Redis) -> None:
        beat = self._grace / 4
        while True:
            try:
                async with asyncio.timeout(beat):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            now = time.monotonic()
            for id, told in self._leases.items():
                if told.opened is not None and now - told.at > beat:
                    self._due.setdefault(id, told)  # to say that it is still held
            while self._due:
                ids = list(self._due)[:BATCH]
                await self._say(client, [self._due.pop(id) for id in ids])

    async def _say(self, client: Redis, leases: list[Told]) -> None:
        """Tell some leases in one round trip; and what the answers were."""
        pipeline = client.pipeline(transaction=False)
        now = time.monotonic()
        for told in leases:
            told.at = now
            terms = self._terms[told.ask.limit]
            memory = self._memory.get((terms.id, told.ask.key)) or Memory()
            theirs, ours = told.clock or self._clock
            pipeline.evalsha(
                LEND.sha, 1, self._name(terms, told.ask.key),
                *arguments(told, terms, theirs + now - ours, memory, channel=self._channel,
                           patient=told.tries < len(RETRIES), grace=self._grace),
            )  # fmt: skip
        answers = await pipeline.execute(raise_on_error=False)
        for told, answer in zip(leases, answers, strict=True):
            if isinstance(answer, NoScriptError | ReadOnlyError | Disconnected):
                raise answer  # a fresh Redis, or one that has become a replica
            if isinstance(answer, Exception):
                self._refused(told, answer)
            else:
                self._answered(told, Answer.read(answer))

    # -- answers --------------------------------------------------------------------------------

    def _refused(self, told: Told, error: Exception) -> None:
        """Redis is full, or does not write: nothing is lent."""
        if not self._refusing:
            log.error("Redis takes nothing, nothing is lent: %s", error)
        self._refusing = True
        self._receiver.failed(told.ask.lease, told.ask.number)

    def _answered(self, told: Told, answer: Answer) -> None:
        ask, terms = told.ask, self._terms[told.ask.limit]
        clock = answer.now, time.monotonic()
        if answer.status == "when":
            told.clock = clock
            self._due.setdefault(ask.lease, told)
            return
        self._clock, self._refusing, told.wanting = clock, False, False
        self._remember(terms, ask.key, answer)
        if answer.percent:
            self._receiver.alerted(terms.name, ask.key, answer.percent)
        if answer.status == "gone":
            self._leases.pop(ask.lease, None)
            self._receiver.gone(ask.lease)
            return
        told.opened = answer.slot, answer.born
        latest = self._leases.get(ask.lease)
        if latest is not None:
            latest.opened = told.opened
        if answer.recalled:
            told.tries, told.wanting = told.tries + 1, True
            delay = RETRIES[told.tries - 1]
            asyncio.get_running_loop().call_later(delay, self._try_again, told)
        else:
            self._receiver.granted(answer.granted_to(ask, terms))

    def _try_again(self, told: Told) -> None:
        """Others may have given back what is needed; a newer question asks for it as well."""
        if self._leases.get(told.ask.lease) is told:
            self._due.setdefault(told.ask.lease, told)
            self._wake.set()

    def _remember(self, terms: Terms, key: str, answer: Answer) -> None:
        account = terms.id, key
        if answer.told_again:
            log.error("Redis had lost what is spent of %s by %s; it was told what this worker "
                      "knows", terms.name, key or "all")  # fmt: skip
        self._memory[account] = Memory(answer.resets, answer.spent)
        self._memory.move_to_end(account)
        if len(self._memory) > REMEMBERED:
            self._memory.popitem(last=False)


async def check(client: Redis) -> None:
    """Load the script; say what would make Redis forget."""
    await LEND.load(client)
    policy = (await client.info("memory")).get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        log.warning("Redis may drop what is spent: its maxmemory-policy is %s, not noeviction",
                    policy)  # fmt: skip
