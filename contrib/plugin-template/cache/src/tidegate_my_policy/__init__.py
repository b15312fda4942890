"""Keeps answers in memory, apart for each caller, for as long as they may be kept."""

from .plugin import MyPolicy, MyPolicyConfig

__all__ = ["MyPolicy", "MyPolicyConfig"]
