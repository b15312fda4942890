"""Sets, adds and removes header fields."""

from tidegate.api import Plugin


class TransformHeaders(Plugin):
    """Sets, adds and removes header fields."""
