"""Where an issuer's keys come from, and how they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import orjson

from tidegate.api import AddonContext

from .config import AuthJwtConfig, IssuerConfig, web_address
from .keys import MAX_DOCUMENT, KeySet, KeySetError

REFETCH_EVERY: Final = 10.0
"""Seconds between two fetches that tokens with unknown keys can cause: anyone can make those."""
FILE_EVERY: Final = 2.0
"""Seconds between two looks at a file of keys."""
RETRY_FIRST: Final = 1.0
"""Seconds to the first retry of a fetch that failed; each later one waits twice as long."""


class FetchError(Exception):
    """The keys could not be fetched. Says why."""


class Issuer:
    """An issuer and its keys: fetched at start, refreshed beside the exchanges.

    `keys` is None before the first fetch has succeeded, and again when they are older than
    `max_stale`. `changed` is called where a new set replaces another, or none.
    """

    def __init__(
        self,
        entry: IssuerConfig,
        config: AuthJwtConfig,
        context: AddonContext,
        changed: Callable[[], None],
    ) -> None:
        self.config = entry
        self.keys: KeySet | None = None
        self._options = config
        self._context = context
        self._changed = changed
        self._file = None if entry.jwks_file is None else context.base / entry.jwks_file
        self._url = entry.jwks_url
        self._fetched = -1e9
        self._tried = -1e9
        self._failures = 0
        self._fetching: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self, previous: Issuer | None) -> None:
        """Take over what an instance before knew; read a file; fetch beside the exchanges.

        Raises FetchError for a file that can't be read: that is a mistake in the options.
        """
        if previous is not None:
            self.keys, self._fetched = previous.keys, previous._fetched
        if self._file is not None:
            self._take(await asyncio.to_thread(_read, self._file))
        self._refreshing = asyncio.create_task(self._refresh())

    async def stop(self) -> None:
        """Fetch no more."""
        tasks = [t for t in (self._refreshing, self._fetching) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def may_fetch(self) -> bool:
        """Whether a token with an unknown key may wait for a fetch now."""
        if self._fetching is not None:
            return True
        return asyncio.get_running_loop().time() >= self._tried + REFETCH_EVERY

    async def fetch(self) -> None:
        """Fetch the keys; all who ask meanwhile wait for the same fetch. Never raises."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._done)
        await asyncio.shield(self._fetching)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        self._tried = asyncio.get_running_loop().time()
        try:
            if self._file is not None:
                self._take(await asyncio.to_thread(_read, self._file))
            else:
                self._take(await self._download())
        except FetchError as error:
            self._failures += 1
            self._context.counters.add("key_fetch_errors_total")
            if self._failures == 1:
                self._context.log.error("the keys of %s: %s", self.config.issuer, error)

    def _take(self, document: bytes) -> None:
        if self.keys is None or document != self.keys.document:
            try:
                self.keys = KeySet(document)
            except KeySetError as error:
                raise FetchError(str(error)) from None
            self._changed()
            self._context.counters.add("key_changes_total")
        self._failures = 0
        self._fetched = asyncio.get_running_loop().time()

    async def _refresh(self) -> None:
        now = asyncio.get_running_loop().time
        options = self._options
        while True:
            await self.fetch()
            left = self._fetched + options.max_stale - now()
            if self.keys is not None and left <= 0:
                self.keys = None
                self._changed()
                self._context.log.error(
                    "the keys of %s are too old: its tokens are refused", self.config.issuer
                )
            wait = options.refresh if self._file is None else FILE_EVERY
            if self._failures:
                wait = min(wait, RETRY_FIRST * 2 ** min(self._failures - 1, 10))
            await asyncio.sleep(min(wait, max(left, RETRY_FIRST)) if self.keys else wait)

    # -- over the network ---------------------------------------------------------------------

    async def _download(self) -> bytes:
        try:
            async with asyncio.timeout(self._options.timeout):
                return await self._get(self._url or await self._discover())
        except TimeoutError:
            raise FetchError(f"no answer within {self._options.timeout:g} s") from None

    async def _discover(self) -> str:
        """The address of the keys (OpenID Connect Discovery 1.0 §4)."""
        url = self.config.issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            found = orjson.loads(await self._get(url))
            issuer, keys = found["issuer"], web_address(found["jwks_uri"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise FetchError(f"{url} is no description of an issuer") from None
        if issuer != self.config.issuer:  # §4.3: else one issuer could speak for another
            raise FetchError(f"{url} describes another issuer")
        if urlsplit(url).scheme == "https" and urlsplit(keys).scheme != "https":
            raise FetchError(f"{url} names keys that are not fetched by https")
        return keys

    async def _get(self, url: str) -> bytes:
        """A document of at most MAX_DOCUMENT bytes. Redirects are not followed."""
        import httpx2

        content = bytearray()
        try:
            async with (
                httpx2.AsyncClient(timeout=self._options.timeout) as client,
                client.stream("GET", url, headers={"accept": "application/json"}) as response,
            ):
                if response.status_code != 200:
                    raise FetchError(f"{url} answered {response.status_code}")
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > MAX_DOCUMENT:
                        raise FetchError(f"{url} answers more than {MAX_DOCUMENT} bytes")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise FetchError(f"{type(error).__name__} at {url}") from None
        return bytes(content)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise FetchError(f"{file}: {error.strerror}") from None
