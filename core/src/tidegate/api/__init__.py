"""The contract between Tidegate and its plugins. A plugin imports this and nothing else of ours."""

from .config import AddonConfig, ByteSize, Duration, Model, Rate, Secret
from .errors import ErrorCode
from .exchange import Exchange, Shadow, Stash, StashKey
from .plugin import AddonContext, Counters, Node, Plugin, hook
from .types import (
    Body,
    BodySink,
    Client,
    Denial,
    Event,
    EventResult,
    Principal,
    SseEvent,
    WsMessage,
)
from .upstream import Attempt, Codec, Timeouts, Tls, Upstream, upstream_from_url

__all__ = [
    "AddonConfig",
    "AddonContext",
    "Attempt",
    "Body",
    "BodySink",
    "ByteSize",
    "Client",
    "Codec",
    "Counters",
    "Denial",
    "Duration",
    "ErrorCode",
    "Event",
    "EventResult",
    "Exchange",
    "Model",
    "Node",
    "Plugin",
    "Principal",
    "Rate",
    "Secret",
    "Shadow",
    "SseEvent",
    "Stash",
    "StashKey",
    "Timeouts",
    "Tls",
    "Upstream",
    "WsMessage",
    "hook",
    "upstream_from_url",
]
