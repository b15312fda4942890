"""Routes by host, path and method, from the configuration."""

from .config import Route, RouteStaticConfig
from .plugin import RouteStatic

__all__ = ["Route", "RouteStatic", "RouteStaticConfig"]
