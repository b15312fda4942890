"""Who may use which service, and what of it: the platform's rights, on every exchange."""

from .plugin import AccessGrant, AccessGrantConfig

__all__ = ["AccessGrant", "AccessGrantConfig"]
