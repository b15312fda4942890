"""Our keys in the place of those that intercepted programs send.

A key goes to its provider alone: the name that the origin's certificate is verified for is of that
provider, and so is the Host. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tidegate.api import Exchange

from .providers import Provider

_CREDENTIALS: Final = frozenset((b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key"))


def swap(
    exchange: Exchange, keys: Mapping[str, str], provider_of: Callable[[str], Provider | None]
) -> bool:
    """Put the key of the exchange's provider into its request; False where there is none."""
    upstream = exchange.upstream
    if upstream is None or upstream.scheme != "https":
        return False
    provider = provider_of((upstream.tls.sni or upstream.host).lower())
    if provider is None or provider.name not in keys or provider_of(exchange.host) != provider:
        return False
    key = keys[provider.name].encode()
    name = provider.credential.encode()
    data = exchange.request.data
    kept = [field for field in data.headers.fields if field[0].lower() not in _CREDENTIALS]
    kept.append((name, b"Bearer " + key if name == b"authorization" else key))
    data.headers.fields = tuple(kept)
    path, question, query = data.path.partition(b"?")
    if question:  # Gemini's API takes keys in the query as well
        pairs = [pair for pair in query.split(b"&") if not pair.startswith(b"key=")]
        data.path = path + b"?" + b"&".join(pairs) if pairs else path
    return True
