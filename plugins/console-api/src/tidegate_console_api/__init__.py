"""The console's admin API."""

from .plugin import ConsoleApi

__all__ = ["ConsoleApi"]
