"""Quotas and budgets that several nodes share, kept in Redis or Valkey."""

from .store import RedisStore

__all__ = ["RedisStore"]
