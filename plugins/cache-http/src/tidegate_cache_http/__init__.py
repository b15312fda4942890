"""The response cache, by RFC 9111: one file shared by the workers of a node."""

from .options import CacheConfig
from .plugin import CacheHttp

__all__ = ["CacheConfig", "CacheHttp"]
