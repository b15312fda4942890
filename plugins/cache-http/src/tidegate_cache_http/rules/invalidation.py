"""What an unsafe request drops from the cache (RFC 9111 §4.4)."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from .decide import SAFE
from .fields import Fields, first


def invalidates(method: bytes, status: int) -> bool:
    """Whether the answer to a request drops what is stored: unsafe or unknown, and no error."""
    return method not in SAFE and 200 <= status < 400


def targets(url: str, answer: Fields) -> list[str]:
    """The URLs that are dropped: the target's, and Location and Content-Location on its origin.

    Those of other origins are not: anyone could empty anyone's cache.
    """
    found = [url]
    own = urlsplit(url)
    for name in (b"location", b"content-location"):
        value = first(answer, name)
        if value is None:
            continue
        try:
            other = urljoin(url, value.decode("latin-1").strip())
            parts = urlsplit(other)
        except ValueError:
            continue
        if (parts.scheme, parts.netloc.lower()) == (own.scheme, own.netloc):
            found.append(parts._replace(netloc=own.netloc, fragment="").geturl())
    return list(dict.fromkeys(found))


def stored_for_get(url: str, status: int, answer: Fields) -> bool:
    """Whether the answer to a POST may answer a GET: its Content-Location is the target.

    RFC 9110 §9.3.3; the caller has seen to it that it has explicit freshness.
    """
    value = first(answer, b"content-location")
    if value is None or status != 200:
        return False
    try:
        return urljoin(url, value.decode("latin-1").strip()) == url
    except ValueError:
        return False
