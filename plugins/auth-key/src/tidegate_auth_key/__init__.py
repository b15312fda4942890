"""API keys, stored as hashes: who is calling."""

from .plugin import AuthKey, AuthKeyConfig, KeyEntry

__all__ = ["AuthKey", "AuthKeyConfig", "KeyEntry"]
