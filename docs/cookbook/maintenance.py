"""Shows a page while the upstream is worked on; those who work on it get through."""

from html import escape

from mitmproxy import http

from tidegate.api import AddonConfig, Duration, Exchange, Plugin, hook

PAGE = "<!doctype html><meta charset=utf-8><title>Back soon</title><h1>Back soon</h1><p>{}</p>"


class Options(AddonConfig):
    """What to say, when to come again, and the teams that are let through."""

    text: str = "We are at work here."
    back_in: Duration = 600.0
    teams: frozenset[str] = frozenset()


class Maintenance(Plugin[Options]):
    """A response from `authorize` ends the exchange here: nothing is sent upstream."""

    Config = Options

    @hook
    def authorize(self, exchange: Exchange) -> http.Response | None:
        """A page for a browser. For an API, return a `Denial`: it has the right error shape."""
        if exchange.principal and exchange.principal.team in self.config.teams:
            return None
        fields = {
            "content-type": "text/html; charset=utf-8",
            "cache-control": "no-store",
            "retry-after": str(int(self.config.back_in)),
        }
        return http.Response.make(503, PAGE.format(escape(self.config.text)), fields)
