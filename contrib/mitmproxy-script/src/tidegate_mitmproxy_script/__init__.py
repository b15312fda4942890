"""Runs addons of mitmproxy, unchanged, as an addon of Tidegate."""

from .plugin import MitmproxyScript

__all__ = ["MitmproxyScript"]
