"""Names and passwords: who is calling."""

from .plugin import AuthBasic, AuthBasicConfig, User

__all__ = ["AuthBasic", "AuthBasicConfig", "User"]
