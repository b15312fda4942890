"""Sends those who carry a cookie to the canary; everyone else goes on as before."""

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
    """The cookie, the value that means yes, and where the canary is."""

    cookie: str = "canary"
    value: str = "yes"
    upstream: str


class CanaryCookie(Plugin[Options]):
    """Stands before the addon that routes the rest."""

    Config = Options

    def __init__(self, config: Options, context: AddonContext) -> None:
        super().__init__(config, context)
        self._canary = upstream_from_url(config.upstream, name="canary")

    @hook
    def route(self, exchange: Exchange) -> Upstream | None:
        """None leaves the exchange to the next addon."""
        if exchange.request.cookies.get(self.config.cookie) == self.config.value:
            return self._canary
        return None
