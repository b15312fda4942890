"""One JSON line for each exchange."""

from .plugin import LogAccess, LogAccessConfig

__all__ = ["LogAccess", "LogAccessConfig"]
