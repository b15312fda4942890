"""What a plugin may import is a promise: a change of it is a change of this file."""

from __future__ import annotations

import subprocess
import sys

import tidegate.api

NAMES = [
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
    "PUSH",
    "ROUTE_PARAMS",
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


def test_the_public_names_are_as_promised():
    assert sorted(tidegate.api.__all__) == sorted(NAMES)
    for name in NAMES:
        assert getattr(tidegate.api, name) is not None


def test_the_api_pulls_in_nothing_of_the_rest():
    code = (
        "import sys, tidegate.api; "
        "print([m for m in sys.modules if m.startswith('tidegate.') "
        "and not m.startswith('tidegate.api')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
