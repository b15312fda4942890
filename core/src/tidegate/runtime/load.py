"""Whether a worker has too much to do: its event loop is late, or its memory is nearly full.

Carriers ask at each of their ticks, never for an exchange. While it is so, new work is refused
early and cheaply (503 `overloaded`), and what is in progress goes on.
"""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from .settings import Gateway

SHARE: Final = 0.85
"""Of the memory there is, what workers may have where no limit is set."""
LATE_TICKS: Final = 3
"""Ticks in a row that must be late by this process's own work: one may be a hook that was slow."""
OWN_SHARE: Final = 0.5
"""Of the time of a late tick, what this process must have computed: else others held it up."""
MEMORY_TICKS: Final = 4
"""Ticks between looks at the memory, which cost 10 µs."""
TRIM_LOOKS: Final = 5
"""Looks between attempts to give memory back while there is too little."""

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_STATM: Final = Path("/proc/self/statm")
_CGROUP: Final = Path("/sys/fs/cgroup/memory.max")


class Load:
    """The load of this process. `tick` is to be called every `every` seconds.

    Attributes:
        shedding: new work is to be refused.
    """

    __slots__ = (
        "_cpu", "_every", "_lag", "_late", "_limit", "_looks", "_memory", "_then", "shedding",
    )  # fmt: skip

    def __init__(self, every: float, now: float) -> None:
        self._every = every
        self._then = now
        self._cpu = 0.0
        self._late = self._looks = 0
        self._lag = 0.25
        self._limit = 0
        self._memory = False
        self.shedding = False

    def configure(self, gateway: Gateway) -> None:
        """Take limits over."""
        self._lag = gateway.limits.lag
        self._limit = gateway.limits.memory or default_limit(gateway.workers)

    def tick(self, now: float, cpu: float) -> bool:
        """Look again. `now`: monotonic, `cpu`: of this process, in seconds. Returns `shedding`."""
        passed, used = now - self._then, cpu - self._cpu
        late = passed - self._every > self._lag and used > OWN_SHARE * passed
        self._then, self._cpu = now, cpu
        self._late = self._late + 1 if late else 0
        self._looks += 1
        if self._looks % MEMORY_TICKS == 0:
            self._memory = resident_bytes() > self._limit
            if self._memory and self._looks % (MEMORY_TICKS * TRIM_LOOKS) == 0:
                give_back()
        self.shedding = self._memory or self._late >= LATE_TICKS
        return self.shedding


def default_limit(workers: int | None) -> int:
    """A worker's part of the memory of this container or machine, in bytes."""
    total = _PAGE * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no cgroup of version 2, or "max"
        total = min(total, int(_CGROUP.read_text()))
    return int(total * SHARE / (workers or os.cpu_count() or 1))


def resident_bytes() -> int:
    """Memory that this process holds, in bytes; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except OSError:
        return 0


def give_back() -> None:
    """Free what nobody holds, and return it to the system."""
    gc.collect()
    with suppress(OSError, AttributeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
