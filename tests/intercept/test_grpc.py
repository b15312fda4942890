"""gRPC, client and server unmodified: HTTP/2 on both sides, trailers and all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from .conftest import CONFIG
from .network import CLEAN, HERE, LISTED, Network, Node, needs_network, python

pytest.importorskip("grpc", reason="uv pip install grpcio")
pytestmark = [needs_network, pytest.mark.xdist_group("intercept-grpc")]

GROWTH = 16 * 1024 * 1024
"""Bytes that two workers may grow by."""

BEGIN = f"""
import grpc, itertools, os, threading, time
trust = grpc.ssl_channel_credentials(open(os.environ["SSL_CERT_FILE"], "rb").read())
channel = grpc.secure_channel("{LISTED}:50051", trust)
renewed = grpc.secure_channel("{LISTED}:50052", trust)
"""


@pytest.fixture(scope="module")
def grpc_origin(network: Network) -> Iterator[None]:
    """On port 50051; on 50052 one whose connections are renewed every two seconds."""
    running = []
    try:
        for port, age in (("50051", "600000"), ("50052", "2000")):
            script = [sys.executable, str(HERE / "grpc_origin.py")]
            script += [str(network.folder / "origin.pem"), port, age]
            running.append(
                subprocess.Popen(
                    network.within(network.origin, *script),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            assert running[-1].stdout.readline() == "ready\n"
        yield
    finally:
        for process in running:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def node(up: Callable[..., Node], grpc_origin: None) -> Node:
    config = CONFIG.replace("/limited", "/lab.Test/Limited").replace("workers = 2", "workers = 1")
    made = up(config.replace("limits = { ", "limits = { requests = 100000, ", 1))
    made.redirect(443, 50051, 50052)
    return made


def run(network: Network, node: Node, code: str) -> list[str]:
    got = network.run(*python(BEGIN + code), env=node.trust)
    assert got.returncode == 0, got.stderr + (node.folder / "log").read_text()
    return got.stdout.splitlines()


def test_unary_with_trailers(network: Network, node: Node) -> None:
    code = (
        "answer, call = channel.unary_unary('/lab.Test/Say').with_call(b'hello')\n"
        "print(answer, call.code().name, dict(call.trailing_metadata()))\n"
        "print(dict(call.initial_metadata())['x-transformed'])\n"
    )
    assert run(network, node, code) == [
        "b'said hello' OK {'x-seen': 'lab/client', 'x-raw-bin': b'\\x00\\xff'}",
        "yes",
    ]
    line = node.logs(1, path="/lab.Test/Say")[0]
    assert (line["principal"], line["status"], line["outcome"]) == ("lab/client", 200, "answered")


def test_answers_stream_one_by_one(network: Network, node: Node) -> None:
    code = (
        "began = time.monotonic()\n"
        "for n in channel.unary_stream('/lab.Test/Count')(b'3 1.0'):\n"
        "    print(n, round(time.monotonic() - began))\n"
    )
    assert run(network, node, code) == ["b'0' 0", "b'1' 1", "b'2' 2"]


def test_requests_stream(network: Network, node: Node) -> None:
    code = "print(channel.stream_unary('/lab.Test/Add')(b'x' * 100_000 for _ in range(100)))\n"
    assert run(network, node, code) == ["b'10000000'"]


def test_both_ways_at_once(network: Network, node: Node) -> None:
    """Each request is sent when the answer to the one before it has come."""
    code = (
        "turn = threading.Semaphore(1)\n"
        "def requests():\n"
        "    for n in range(50):\n"
        "        assert turn.acquire(timeout=20)\n"
        "        yield b'%d' % n\n"
        "answers = []\n"
        "for answer in channel.stream_stream('/lab.Test/Echo')(requests(), timeout=30):\n"
        "    answers.append(int(answer)); turn.release()\n"
        "print(answers == list(range(50)))\n"
    )
    assert run(network, node, code) == ["True"]


@pytest.mark.parametrize(
    ("method", "message", "expected"),
    [
        ("unary_unary('/lab.Test/Fail')", "b'not now'", "FAILED_PRECONDITION not now"),
        ("unary_unary('/lab.Test/None')", "b''", "UNIMPLEMENTED Method not found!"),
    ],
)
def test_errors_of_the_origin_arrive(
    network: Network, node: Node, method: str, message: str, expected: str
) -> None:
    code = (
        f"try: channel.{method}({message})\n"
        "except grpc.RpcError as e: print(e.code().name, e.details())\n"
    )
    assert run(network, node, code) == [expected]


def test_an_error_in_the_middle_of_a_stream_arrives(network: Network, node: Node) -> None:
    code = (
        "try:\n"
        "    for n in channel.unary_stream('/lab.Test/BreakOff')(b''): print(n)\n"
        "except grpc.RpcError as e: print(e.code().name, e.details())\n"
    )
    assert run(network, node, code) == ["b'one'", "DATA_LOSS broke off"]


def test_a_denial_is_a_status(network: Network, node: Node) -> None:
    """As gRPC maps statuses of HTTP: 429 is UNAVAILABLE."""
    code = (
        "for _ in range(3):\n"
        "    try: channel.unary_unary('/lab.Test/Limited')(b'')\n"
        "    except grpc.RpcError as e: print(e.code().name)\n"
    )
    assert run(network, node, code) == ["UNIMPLEMENTED", "UNIMPLEMENTED", "UNAVAILABLE"]


def test_a_caller_that_leaves_is_told_to_the_origin(network: Network, node: Node) -> None:
    code = (
        "call = channel.unary_stream('/lab.Test/Left')(b'')\n"
        "print(next(call)); call.cancel()\n"
        "print(channel.unary_unary('/lab.Test/Gone')(b''))\n"
    )
    assert run(network, node, code) == ["b'waiting'", "b'1'"]
    assert node.logs(1, path="/lab.Test/Left")[0]["outcome"] == "client_cancelled"


def test_no_call_is_lost_while_the_origin_renews_its_connections(
    network: Network, node: Node
) -> None:
    """Each is asked to leave after two seconds, and takes 30 streams at a time."""
    code = (
        "say, end, made = renewed.unary_unary('/lab.Test/Say'), time.monotonic() + 6, [0] * 40\n"
        "def calls(n):\n"
        "    while time.monotonic() < end:\n"
        "        assert say(b'%d' % n, timeout=20) == b'said %d' % n\n"
        "        made[n] += 1\n"
        "threads = [threading.Thread(target=calls, args=(n,)) for n in range(40)]\n"
        "failed = []; threading.excepthook = lambda args: failed.append(args.exc_value)\n"
        "for t in threads: t.start()\n"
        "for t in threads: t.join()\n"
        "print(failed, all(made))\n"
    )
    assert run(network, node, code) == ["[] True"]


def test_an_origin_waits_for_a_slow_caller(network: Network, node: Node) -> None:
    """Other calls on the same connection go on meanwhile."""
    code = (
        "say = channel.unary_unary('/lab.Test/Say')\n"
        "say(b'warm')\n"
        "slow = [channel.unary_stream('/lab.Test/Flood')(b'10000') for _ in range(3)]\n"
        "for call in slow: next(call)\n"
        "end = time.monotonic() + 4\n"
        "while time.monotonic() < end: assert say(b'x', timeout=5) == b'said x'\n"
        "print('went on')\n"
    )
    before = node.rss
    assert run(network, node, code) == ["went on"]
    assert node.rss - before < GROWTH


def test_memory_does_not_grow_with_calls(network: Network, node: Node) -> None:
    """On one connection; after the first calls, whose objects stay in pools."""
    code = (
        "say = channel.unary_unary('/lab.Test/Say')\n"
        "for _ in range(1000): say(b'x')\n"
        "print('warm', flush=True); input()\n"
        "for _ in range(3000): say(b'x')\n"
        "print('done', flush=True); input()\n"
    )
    with subprocess.Popen(
        network.within(network.client, *python(BEGIN + code)), env={**CLEAN, **node.trust},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as client:  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        grown = []
        for said in ("warm\n", "done\n"):
            assert client.stdout.readline() == said
            grown.append(node.rss)
            print(file=client.stdin, flush=True)
    assert grown[1] - grown[0] < 1024 * 1024
