"""Quotas and budgets: requests, tokens, money, bytes, concurrency; exact across workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import LimitQuotaConfig
    from .plugin import LimitQuota

__all__ = ["LimitQuota", "LimitQuotaConfig"]


def __getattr__(name: str) -> Any:
    """The plugin, loaded when asked for: the broker's process does without it."""
    if name in __all__:
        from . import plugin

        return getattr(plugin, name)
    raise AttributeError(name)
