"""Recorded exchanges from and to files: cassettes, HAR, mitmproxy flows, access logs."""

from .files import Unreadable, folder_of, read, read_all, write

__all__ = ["Unreadable", "folder_of", "read", "read_all", "write"]
