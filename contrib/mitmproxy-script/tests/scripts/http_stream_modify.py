"""Modify a streamed response."""

from collections.abc import Iterable


def modify(data: bytes) -> bytes | Iterable[bytes]:
    return data.replace(b"foo", b"bar")


def responseheaders(flow):
    flow.response.stream = modify
