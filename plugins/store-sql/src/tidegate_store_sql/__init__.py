"""The platform's memory: teams, services, keys, subscriptions, providers and their audit."""

from .plugin import StoreSql, StoreSqlConfig

__all__ = ["StoreSql", "StoreSqlConfig"]
