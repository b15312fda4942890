"""Virtual models: one name for several models, with strategies, fallbacks, canaries and mirrors."""

from .options import AiRouteConfig, VirtualModel
from .plugin import AiRoute

__all__ = ["AiRoute", "AiRouteConfig", "VirtualModel"]
