"""Tells upstream who is calling, and callers nothing about the servers behind."""

from .plugin import MyPolicy, MyPolicyConfig

__all__ = ["MyPolicy", "MyPolicyConfig"]
