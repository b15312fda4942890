"""Who is calling, by where the connection comes from: an address, a user, a cgroup."""

from .plugin import AuthSource, AuthSourceConfig, Source

__all__ = ["AuthSource", "AuthSourceConfig", "Source"]
