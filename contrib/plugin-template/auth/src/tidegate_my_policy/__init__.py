"""Lets in who presents a token that the configuration knows by its hash."""

from .plugin import MyPolicy, MyPolicyConfig

__all__ = ["MyPolicy", "MyPolicyConfig"]
