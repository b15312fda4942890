"""Limits how many requests each caller may make in a window of time."""

from .plugin import MyPolicy, MyPolicyConfig

__all__ = ["MyPolicy", "MyPolicyConfig"]
