"""Splits callers between two upstreams; the same caller always gets the same one."""

from hashlib import sha256

from tidegate.api import (
    AddonConfig,
    AddonContext,
    Exchange,
    Plugin,
    Upstream,
    hook,
    upstream_from_url,
)


class Options(AddonConfig):
    """`share` of the callers go to B. Another `experiment` shuffles them anew."""

    experiment: str
    share: float = 0.5
    a: str
    b: str


class AbPrincipal(Plugin[Options]):
    """The choice hangs on nothing but names, so that all workers and nodes agree."""

    Config = Options

    def __init__(self, config: Options, context: AddonContext) -> None:
        super().__init__(config, context)
        self._a = upstream_from_url(config.a, name="a")
        self._b = upstream_from_url(config.b, name="b")

    @hook
    def route(self, exchange: Exchange) -> Upstream:
        """An anonymous caller is known by the address."""
        caller = exchange.principal.id if exchange.principal else exchange.client.address
        digest = sha256(f"{self.config.experiment}\0{caller}".encode()).digest()
        chosen = self._b if int.from_bytes(digest[:8]) < self.config.share * 2**64 else self._a
        exchange.notes[self.config.experiment] = chosen.name
        return chosen
