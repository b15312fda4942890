"""Masks words in event streams and WebSocket messages as they pass."""

from .plugin import MyPolicy, MyPolicyConfig

__all__ = ["MyPolicy", "MyPolicyConfig"]
