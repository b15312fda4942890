"""What the configuration says of connections that come in by an `[[intercept]]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidegate.runtime.intercepts import Intercept, Match, matcher
from tidegate.runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Policy:
    """One `[[intercept]]`, ready to be asked."""

    intercept: Intercept
    upstream_ca: str | None
    allowed: Match
    ignored: Match
    permits: Callable[[str], bool]
    """Whether the CA may sign for a host."""

    @property
    def explicit(self) -> bool:
        """Whether clients say themselves where they want to go."""
        return self.intercept.kind in ("regular", "upstream", "socks5")

    def lists(self, names: Sequence[str]) -> bool:
        """Whether what goes to any of these hosts is to be taken over."""
        return self.allowed(names) and not self.ignored(names)

    def takes(self, sni: str | None, names: Sequence[str]) -> bool:
        """Whether TLS is taken over. `names`: what the destination is known by, but for SNI."""
        known = (sni.lower().rstrip("."), *names) if sni else tuple(names)
        if self.ignored(known):
            return False
        if not self.allowed(known) and (sni or self.intercept.without_sni == "pass"):
            return False
        return self.permits(known[0])


class Policies:
    """The policies of all intercepts, by mode."""

    def __init__(self, settings: Settings, permits: Callable[[str], bool]) -> None:
        self._permits = permits
        self._by_mode: dict[str, Policy] = {}
        self.reconfigure(settings)

    def reconfigure(self, settings: Settings) -> None:
        """Take new settings over, for connections that begin now."""
        self._by_mode = {x.mode: self._policy(x, settings.base) for x in settings.intercepts}

    def __getitem__(self, mode: str) -> Policy:
        return self._by_mode[mode]

    def _policy(self, intercept: Intercept, base: Path) -> Policy:
        return Policy(
            intercept,
            str(base / intercept.upstream_ca) if intercept.upstream_ca else None,
            matcher(intercept.allow_hosts),
            matcher(intercept.ignore_hosts),
            self._permits,
        )
