"""Requests per principal, exact and smooth (GCRA)."""

from .plugin import LimitRate, LimitRateConfig

__all__ = ["LimitRate", "LimitRateConfig"]
