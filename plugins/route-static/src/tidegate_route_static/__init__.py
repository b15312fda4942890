"""Routes by host, path and method, from the configuration."""

from tidegate.api import Plugin


class RouteStatic(Plugin):
    """Routes by host, path and method, from the configuration."""
