"""Requests signed with a shared secret (RFC 9421): who is calling."""

from .plugin import AuthHmac, AuthHmacConfig, SecretKey

__all__ = ["AuthHmac", "AuthHmacConfig", "SecretKey"]
