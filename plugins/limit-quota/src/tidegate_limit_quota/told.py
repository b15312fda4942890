"""What a caller is told of a limit: the fields of draft-ietf-httpapi-ratelimit-headers."""

from __future__ import annotations

from typing import Final

from .config import LimitConfig
from .leases import Lease
from .windows import SECONDS

UNITS: Final = {"requests": "", "concurrency": ';qu="concurrent-requests"',
                "bytes": ';qu="content-bytes"', "usd": ';qu="usd-micros"'}  # fmt: skip
"""Quota units of the draft; tokens and money have names of our own there."""
MICRO: Final = 1000
"""Nano-dollars of a micro-dollar."""
MOST: Final = 999_999_999_999_999
"""Of an Integer of structured fields (RFC 9651 §3.3.1)."""


class Told:
    """The fields of one limit."""

    __slots__ = ("_divisor", "_name", "_policy")

    def __init__(self, limit: LimitConfig) -> None:
        self._divisor = MICRO if limit.unit == "usd" else 1
        self._name = f'"{limit.name}"'.encode()
        unit = UNITS.get(limit.unit, f';qu="{limit.unit}"')
        window = f";w={SECONDS[limit.window]}" if limit.window else ""
        amount = min(MOST, limit.scaled(limit.amount) // self._divisor)
        self._policy = f'"{limit.name}";q={amount}{unit}{window}'

    def fields(self, lease: Lease, now: float) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        """Of an answer."""
        seconds = self.seconds(lease, now)
        left = b"%b;r=%d" % (self._name, self.left(lease))
        if seconds is not None:
            left += b";t=%d" % seconds
        return (b"ratelimit-policy", self._policy.encode()), (b"ratelimit", left)

    def denied(self, seconds: float | None) -> tuple[tuple[str, str], ...]:
        """Of a denial."""
        left = f"{self._name.decode()};r=0" + ("" if seconds is None else f";t={int(seconds)}")
        return ("ratelimit-policy", self._policy), ("ratelimit", left)

    def left(self, lease: Lease) -> int:
        """What this worker knows to be left: in its lease, and unlent."""
        return min(MOST, max(0, lease.available + lease.left) // self._divisor)

    def seconds(self, lease: Lease, now: float) -> float | None:
        """Until something comes back, rounded up; None: whenever an exchange ends."""
        return (
            None if lease.resets_at is None else float(max(0, -int(-(lease.resets_at - now))) + 1)
        )
