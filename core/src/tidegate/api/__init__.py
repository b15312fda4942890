"""The contract between Tidegate and its plugins. A plugin imports this and nothing else of ours."""

from .config import AddonConfig, ByteSize, Duration, Model, Rate, Secret
from .errors import ErrorCode
from .exchange import PUSH, Exchange, Shadow, Stash, StashKey
from .match import ROUTE_PARAMS, Match, NotAllowed, RouteEntry, RouteTable
from .plugin import AddonContext, Counters, Node, Plugin, hook
from .sse import SseParser
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
from .upstream import (
    Attempt,
    BodyStream,
    Codec,
    StreamCodec,
    Timeouts,
    Tls,
    Upstream,
    upstream_from_url,
)

__all__ = [
    "PUSH",
    "ROUTE_PARAMS",
    "AddonConfig",
    "AddonContext",
    "Attempt",
    "Body",
    "BodySink",
    "BodyStream",
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
    "Match",
    "Model",
    "Node",
    "NotAllowed",
    "Plugin",
    "Principal",
    "Rate",
    "RouteEntry",
    "RouteTable",
    "Secret",
    "Shadow",
    "SseEvent",
    "SseParser",
    "Stash",
    "StashKey",
    "StreamCodec",
    "Timeouts",
    "Tls",
    "Upstream",
    "WsMessage",
    "hook",
    "upstream_from_url",
]
