"""The gRPC origin of the interception tests. `python grpc_origin.py CERTIFICATE PORT AGE`:
connections are asked to leave after AGE milliseconds.

Knows nothing of Tidegate. Messages are bytes: there is nothing to compile.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

GONE = threading.Event()


def say(request: bytes, context: Any) -> bytes:
    """Unary: what was said, and who was told to have called."""
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata(
        (("x-seen", metadata.get("x-caller", "")), ("x-raw-bin", b"\x00\xff"))
    )
    return b"said " + request


def count(request: bytes, context: Any) -> Iterator[bytes]:
    """A stream of answers to one request, as slow as it says."""
    number, seconds = request.split()
    for n in range(int(number)):
        yield b"%d" % n
        time.sleep(float(seconds))


def add(requests: Iterator[bytes], context: Any) -> bytes:
    """One answer to a stream of requests."""
    return b"%d" % sum(len(request) for request in requests)


def echo(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    """An answer to each request, before the next one comes."""
    yield from requests


def fail(request: bytes, context: Any) -> bytes:
    """An error, which gRPC says in the head of an answer without body."""
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())
    return b""


def flood(request: bytes, context: Any) -> Iterator[bytes]:
    """Far more than anyone should hold, until the caller leaves."""
    for _ in range(int(request)):
        yield bytes(65536)


def left(request: bytes, context: Any) -> Iterator[bytes]:
    """Waits until the caller leaves; `gone` then says so."""
    context.add_callback(GONE.set)
    yield b"waiting"
    GONE.wait(20)


def gone(request: bytes, context: Any) -> bytes:
    return b"%d" % GONE.wait(10)


def break_off(request: bytes, context: Any) -> Iterator[bytes]:
    """An error in the middle of a stream."""
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "broke off")


def main() -> None:
    pem = Path(sys.argv[1]).read_bytes()
    options = (
        ("grpc.max_connection_age_ms", int(sys.argv[3])),
        ("grpc.max_concurrent_streams", 30),
    )
    server = grpc.server(ThreadPoolExecutor(40), options=options)
    handlers = {
        "Say": grpc.unary_unary_rpc_method_handler(say),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Add": grpc.stream_unary_rpc_method_handler(add),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Flood": grpc.unary_stream_rpc_method_handler(flood),
        "Left": grpc.unary_stream_rpc_method_handler(left),
        "Gone": grpc.unary_unary_rpc_method_handler(gone),
        "BreakOff": grpc.unary_stream_rpc_method_handler(break_off),
    }
    generic = grpc.method_handlers_generic_handler("lab.Test", handlers)
    server.add_generic_rpc_handlers((generic,))
    server.add_secure_port(f"[::]:{sys.argv[2]}", grpc.ssl_server_credentials([(pem, pem)]))
    server.start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
