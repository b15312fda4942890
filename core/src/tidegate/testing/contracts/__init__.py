"""Contract suites: what every plugin of a kind must keep. Subclass them in a plugin's tests.

    class TestMyAuth(AuthContract):
        name = "auth-mine"

        def options(self): ...
        def good_exchange(self): ...

A suite's tests can't be overridden, so that a suite that passes means the same everywhere.
"""

from .auth import AuthContract, AuthorizeContract
from .base import Contract
from .lending import LendingContract
from .observers import CacheContract, LogContract
from .plugin import PluginContract
from .route import RouteContract
from .transform import TransformContract

__all__ = [
    "AuthContract",
    "AuthorizeContract",
    "CacheContract",
    "Contract",
    "LendingContract",
    "LogContract",
    "PluginContract",
    "RouteContract",
    "TransformContract",
]
