"""The addon: records what passes, plays it again."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final, Literal

from pydantic import Field, field_validator

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Body,
    BodySink,
    ByteSize,
    Denial,
    ErrorCode,
    Exchange,
    Model,
    Plugin,
    StashKey,
    Timeouts,
    Upstream,
    hook,
)
from tidegate.api.recording import Answer, Recording, recorded_fields
from tidegate.api.scrub import Scrubber, json_paths

from .library import Cassette, Library
from .matching import Matching
from .player import HOST, Player
from .recorder import Recorder

MISS: Final = ErrorCode("cassette_miss", 424, "There is no cassette for this request.")
"""424, and not one of the statuses after which SDKs ask again (408, 409, 429, 5xx)."""

NO_RETRY: Final = (("x-should-retry", "false"),)
"""Told to the SDKs that listen to it."""

REQUEST: Final = StashKey[Recording]("record-cassette.request")
"""The request as it is to be recorded, not yet scrubbed of what only the answer shows."""

PATIENCE: Final = Timeouts(first_byte=3600.0, idle=3600.0)
"""An answer may have taken long, and may be played at its own pace."""

type Action = Literal["record", "replay", "record-missing", "passthrough"]


class Scrubbing(Model):
    """`scrub = { … }`: what is never written, besides what is known for a credential.

    Names of fields and of query parameters, and JSON values in bodies and events.
    """

    headers: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    json_values: tuple[str, ...] = Field(default=(), alias="json")

    @field_validator("json_values")
    @classmethod
    def _paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        json_paths(paths)
        return paths


class RecordCassetteConfig(AddonConfig):
    """The options. `speed`: of streams, 1.0 as they were recorded, 0 at once.

    `repeat`: after the last of several cassettes for one request comes the last again, the first
    ("cycle"), or none ("miss").
    """

    action: Action = "replay"
    dir: str = "cassettes"
    speed: float = Field(default=0.0, ge=0.0)
    repeat: Literal["last", "cycle", "miss"] = "last"
    match: Matching = Matching()
    scrub: Scrubbing = Scrubbing()
    limit: ByteSize = 16 * 1024 * 1024
    used: str = "used.txt"
    port: int = Field(default=0, ge=0, le=65535)


def needs(config: RecordCassetteConfig) -> Body | None:
    """The request's body, unless nothing is recorded or played."""
    return None if config.action == "passthrough" else Body(request=True, limit=config.limit)


class RecordCassette(Plugin[RecordCassetteConfig]):
    """Records exchanges as readable files, and answers from them: tests without the upstream."""

    Config = RecordCassetteConfig
    codes = (MISS,)

    def __init__(self, config: RecordCassetteConfig, context: AddonContext) -> None:
        super().__init__(config, context)
        self.plays = config.action in ("replay", "record-missing")
        self.records = config.action in ("record", "record-missing")
        scrub = config.scrub
        self.scrubber = Scrubber(scrub.headers, scrub.query, json_paths(scrub.json_values))
        folder = context.base / config.dir
        self.library = Library(folder, config.match, config.repeat, self.scrubber.recording)
        self.player = Player(self._chosen, config.speed, config.port)
        self._seen: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._playable: list[Answer] = []
        self._used = context.state / config.used
        self._writer = ThreadPoolExecutor(1, "cassettes")

    # -- life ---------------------------------------------------------------------------------

    @hook
    async def startup(self, previous: Plugin[Any] | None) -> None:
        """Read the folder, open the player."""
        if self.config.action == "passthrough":
            return
        if self.context.workers != 1:
            raise ValueError("cassettes have an order: set [gateway] workers = 1")
        if self.plays:
            if self.context.environment == "production":
                raise ValueError("cassettes are not played in production")
            await asyncio.to_thread(self.library.load)
            await asyncio.to_thread(self._clear_used)
            await self.player.start()

    @hook
    async def shutdown(self) -> None:
        """Close the player, finish writing, say which cassettes were not played."""
        await self.player.close()
        await asyncio.to_thread(self._writer.shutdown)
        unused = sorted(self.library.cassettes.keys() - self._seen)
        if self.config.action == "replay" and unused:
            self.context.log.warning(
                "%d of %d cassettes were not played: %s",
                len(unused), len(self.library.cassettes), ", ".join(unused[:20]),
            )  # fmt: skip

    # -- requests -----------------------------------------------------------------------------

    @hook
    def transform_request(self, exchange: Exchange) -> None:
        """Ask for answers that a person can read."""
        if self.records:
            exchange.request.headers["accept-encoding"] = "identity"

    @hook(needs=needs)
    def route(self, exchange: Exchange) -> Upstream | Denial | None:
        """To the player where there is a cassette; else on, or a denial that says what is near."""
        if self.config.action == "passthrough":
            return None
        recording = request_of(exchange)
        if self.plays:
            secrets = [value for _, _, value in exchange.credentials]
            asked = self.scrubber.recording(recording, secrets)
            cassette = self.library.take(asked)
            if cassette is not None:
                self.context.counters.add("cassettes_played_total")
                return self._upstream(cassette)
            self.context.counters.add("cassette_misses_total")
            if self.config.action == "replay":
                return self._miss(exchange, asked)
        exchange.stash[REQUEST] = recording
        return None

    def _upstream(self, cassette: Cassette) -> Upstream:
        """The player, told what to play by the path."""
        number = self._numbers.get(cassette.name)
        if number is None:
            number = self._numbers[cassette.name] = len(self._playable)
            self._playable.append(cassette.recording.answer or Answer(502))
            self._mark_used(cassette)
        return Upstream(
            self.context.name, "http", HOST, self.player.port, path=f"/{number}", timeouts=PATIENCE
        )

    def _mark_used(self, cassette: Cassette) -> None:
        self._seen.add(cassette.name)
        self._writer.submit(self._note_used, cassette.name)

    def _chosen(self, segment: str) -> Answer | None:
        return self._playable[int(segment)] if segment.isdecimal() else None

    def _miss(self, exchange: Exchange, asked: Recording) -> Denial:
        why = self.library.explain(asked)
        self.context.log.warning("exchange %s: %s", exchange.id, why)
        return MISS.denial(why, headers=NO_RETRY)

    # -- answers ------------------------------------------------------------------------------

    @hook
    def cache_store(self, exchange: Exchange) -> BodySink | None:
        """Watch the answer of an exchange that is to be recorded."""
        recording = exchange.stash.get(REQUEST)
        if recording is None or exchange.response is None:
            return None

        def done(answer: Answer | None) -> None:
            self._done(exchange, recording, answer)

        return Recorder(exchange.response, self.config.limit, done)

    def _done(self, exchange: Exchange, recording: Recording, answer: Answer | None) -> None:
        if answer is None:
            self.context.counters.add("recordings_incomplete_total")
            self.context.log.warning("exchange %s broke off: not recorded", exchange.id)
            return
        secrets = [value for _, _, value in exchange.credentials]
        whole = replace(recording, answer=answer)
        cassette = self.library.add(self.scrubber.recording(whole, secrets))
        self.context.counters.add("cassettes_recorded_total")
        self._writer.submit(self._write, cassette)
        if self.plays:
            self._mark_used(cassette)

    # -- on the writer's thread ---------------------------------------------------------------

    def _write(self, cassette: Cassette) -> None:
        try:
            self.library.write(cassette)
        except OSError as error:
            self.context.counters.add("cassette_write_failures_total")
            self.context.log.error("%s was not written: %s", cassette.name, error)

    def _clear_used(self) -> None:
        self.context.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._used.write_text("", encoding="utf-8")

    def _note_used(self, name: str) -> None:
        with self._used.open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")


def request_of(exchange: Exchange) -> Recording:
    """The request as it stands, without an answer. The port is left out: tests choose it freely."""
    data = exchange.request.data
    host = f"[{exchange.host}]" if ":" in exchange.host else exchange.host
    scheme, target = data.scheme.decode() or "http", data.path.decode("latin-1")
    return Recording(
        method=data.method.decode("latin-1"),
        url=f"{scheme}://{host}{target}",
        headers=recorded_fields(data.headers.fields),
        body=data.content or b"",
        id=exchange.id,
        now=round(exchange.now, 3),
        seed=exchange.seed,
        client=exchange.client.address,
        listener=exchange.listener,
        principal=exchange.principal,
    )
