"""Keeps personal data in header fields from crossing the gateway, either way."""

import re

from mitmproxy import http

from tidegate.api import AddonConfig, Exchange, Plugin, hook

# Bounded, so that a long field can't make the search slow.
PERSONAL = re.compile(rb"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+|\+\d{8,15}\b")


class Options(AddonConfig):
    """Fields in `remove` go; addresses and numbers are masked in all others but `keep`."""

    remove: frozenset[str] = frozenset({"from", "x-user-email", "x-user-name"})
    keep: frozenset[str] = frozenset({"authorization", "cookie", "set-cookie"})


class ScrubHeaders(Plugin[Options]):
    """Masks e-mail addresses and international phone numbers."""

    Config = Options

    @hook
    def transform_request(self, exchange: Exchange) -> None:
        exchange.request.headers.fields = self._scrubbed(exchange.request.headers)

    @hook
    def transform_response(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.headers.fields = self._scrubbed(exchange.response.headers)

    def _scrubbed(self, headers: http.Headers) -> tuple[tuple[bytes, bytes], ...]:
        out = []
        for name, value in headers.fields:
            lower = name.decode().lower()
            if lower not in self.config.remove:
                whole = lower in self.config.keep
                out.append((name, value if whole else PERSONAL.sub(b"***", value)))
        return tuple(out)
