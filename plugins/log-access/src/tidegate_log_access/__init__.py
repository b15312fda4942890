"""One JSON line for each exchange."""

from tidegate.api import Plugin


class LogAccess(Plugin):
    """One JSON line for each exchange."""
