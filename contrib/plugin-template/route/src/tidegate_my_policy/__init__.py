"""Sends an exchange to the upstream that one of its request fields names."""

from .plugin import MyPolicy, MyPolicyConfig

__all__ = ["MyPolicy", "MyPolicyConfig"]
