"""A long piece of work in a thread, beside a loop that must not wait for it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SWITCH: Final = 0.0005
"""Seconds after which the thread gives way to the loop; Python's own are ten times that."""


@contextmanager
def giving_way(*, anew: bool) -> Iterator[None]:
    """Let the loop run as often as it likes. `anew`: much is made that then stays for long.

    The collector is kept from that: it would walk the 400,000 objects of a large snapshot several
    times, for up to half a second each, in which the loop stands still. They hold no cycles, and
    go when nobody refers to them. What is in its sight before is collected first: that is little
    in a worker, where all that stays is out of its sight since the start.
    """
    interval, collects = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(min(SWITCH, interval))
    if anew:
        gc.collect()
        gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if anew:
            gc.freeze()
        if collects:
            gc.enable()
