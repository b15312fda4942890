"""A real language model on the CPU, without network."""

from tidegate.api import Plugin


class LocalModel(Plugin):
    """A real language model on the CPU, without network."""
