"""Routes by the services of the platform's store."""

from .plugin import RouteService, RouteServiceConfig

__all__ = ["RouteService", "RouteServiceConfig"]
