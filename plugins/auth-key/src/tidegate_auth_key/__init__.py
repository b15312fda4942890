"""API keys, stored as hashes: who is calling."""

from tidegate.api import Plugin


class AuthKey(Plugin):
    """API keys, stored as hashes: who is calling."""
