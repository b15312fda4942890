"""Requests per principal, exact and smooth (GCRA)."""

from tidegate.api import Plugin


class LimitRate(Plugin):
    """Requests per principal, exact and smooth (GCRA)."""
