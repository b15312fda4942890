"""The changes that the writer makes: entries stored, updated, dropped, purged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Final, Literal

from tidegate_cache_http.rules.fields import first
from tidegate_cache_http.rules.messages import Stored

from .ledger import Ledger
from .memory import Variant
from .record import Key
from .shared import Shared
from .writer import Writer

type Scope = Literal["url", "prefix", "tag", "all"]
SCOPES: Final[tuple[Scope, ...]] = ("url", "prefix", "tag", "all")


class _Versioned:
    """A change of one URL; its slot shows `version` once it is in the file."""

    __slots__ = ("key", "version")

    def __init__(self, key: Key, version: int) -> None:
        self.key = key
        self.version = version

    def committed(self, shared: Shared) -> None:
        shared.versions[Shared.slot(self.key.url)] = self.version

    def failed(self) -> None:
        """What is in memory stays valid without it."""


class Put(_Versioned):
    """Store an entry, unless its URL was invalidated since its request was sent."""

    __slots__ = ("_chunks", "variant")

    def __init__(self, key: Key, version: int, variant: Variant) -> None:
        super().__init__(key, version)
        self.variant = variant
        self._chunks: list[bytes] | None = None

    @property
    def weight(self) -> int:
        return len(self.variant.body or b"") + 1024

    def apply(self, ledger: Ledger, writer: Writer) -> None:
        head, body = self.variant.head, self.variant.body or b""
        if writer.shared.stamps[Shared.slot(self.key.url)] != head.stamp:
            writer.counters.add("outdated_total")
            return
        if self._chunks is None:
            kind = first(head.fields, b"content-type") or b""
            coding = (first(head.fields, b"content-encoding") or b"").strip().lower()
            self._chunks = writer.compressor.chunks(body, kind, coding)
            writer.counters.add("body_bytes", len(body))
            writer.counters.add("stored_bytes", sum(map(len, self._chunks)))
        self.variant.number = ledger.put(self.key, head, self._chunks)
        self.variant.chunks = len(self._chunks)
        ledger.shrink(writer.disk.budget)


class Update(_Versioned):
    """Give an entry the head that a validation left it."""

    __slots__ = ("head",)

    weight = 1024

    def __init__(self, key: Key, version: int, head: Stored) -> None:
        super().__init__(key, version)
        self.head = head

    def apply(self, ledger: Ledger, writer: Writer) -> None:
        if writer.shared.stamps[Shared.slot(self.key.url)] == self.head.stamp:
            ledger.update(self.key, self.head)


class Drop(_Versioned):
    """Remove what an invalidation has made invalid: it was the stamp that took it out of use."""

    __slots__ = ()

    weight = 256

    def apply(self, ledger: Ledger, writer: Writer) -> None:
        stamp = writer.shared.stamps[Shared.slot(self.key.url)]
        for record in list(ledger.of_url(self.key.url)):
            found = ledger.get(record)
            if found is not None and found.head.stamp != stamp:
                ledger.delete(record)


class Purge:
    """Drop, or mark as stale, whatever an operator names. `done` gets the number of entries.

    A hard purge changes the stamps as well, so that answers in flight stay out.
    """

    weight = 1024

    def __init__(
        self,
        scope: Scope,
        value: bytes,
        *,
        soft: bool,
        done: Callable[[int | None], None] | None = None,
    ) -> None:
        self.scope = scope
        self.value = value
        self.soft = soft
        self.count = 0
        self._done = done
        self._slots: set[int] = set()

    def apply(self, ledger: Ledger, writer: Writer) -> None:
        self.run(ledger, writer.shared)

    def run(self, ledger: Ledger, shared: Shared) -> None:
        """Make it within a transaction."""
        self.count = 0
        if not self.soft and self.scope in ("url", "all"):
            if self.scope == "all":
                shared.invalidate_all()
            else:
                shared.invalidate(self.value)
        for record in list(self._chosen(ledger)):
            found = ledger.get(record)
            if found is None:
                continue
            self.count += 1
            self._slots.add(Shared.slot(found.key.url))
            if not self.soft:
                shared.invalidate(found.key.url)
                ledger.delete(record)
            elif not found.head.purged:
                ledger.update(found.key, dataclasses.replace(found.head, purged=True))

    def _chosen(self, ledger: Ledger) -> Iterator[bytes]:
        if self.scope == "url":
            return ledger.of_url(self.value)
        if self.scope == "prefix":
            return ledger.of_prefix(self.value)
        if self.scope == "tag":
            return ledger.of_tag(self.value)
        return ledger.everything()

    def committed(self, shared: Shared) -> None:
        for slot in self._slots:
            shared.versions[slot] = shared.unique()
        if self._done is not None:
            self._done(self.count)

    def failed(self) -> None:
        if self._done is not None:
            self._done(None)
