"""Writes one line of JSON for each exchange to a file, away from the traffic."""

from .plugin import MyPolicy, MyPolicyConfig

__all__ = ["MyPolicy", "MyPolicyConfig"]
