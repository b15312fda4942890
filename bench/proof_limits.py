"""kill -9 in the middle of 1,000 concurrent spends: what a limit then counts.

    uv run python bench/proof_limits.py [--rounds 10] [--calls 1000] [--json FILE|-]

A node of two workers has one limit of requests, kept by its broker or by a Redis. So many calls
are made at once, each on a connection of its own; when half are answered, a worker, the broker or
Redis is killed. In the end the limit must count every call that was answered, none twice, and
beyond them no more than was lent when the worker was killed, and what clients got no answer to.
Exit status 1 if it does not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tidegate_limit_quota import LimitQuotaConfig
from tidegate_limit_quota.protocol import SOCKET, call

from tidegate.testing import Gateway, ScriptedUpstream
from tidegate.testing.load import calls, until_answered
from tidegate.testing.redis import RedisServer

RESULTS: Final = Path(__file__).parent / "results" / "limits.json"
CASES: Final = (("broker", "worker"), ("broker", "broker"), ("redis", "worker"), ("redis", "redis"))
"""Who keeps the limit, and who is killed."""
LIMIT: Final = {"name": "calls", "unit": "requests", "amount": 10**9, "window": "month",
                "per": "gateway", "on_outage": "allow"}  # fmt: skip
CONFIG: Final = """
[gateway]
workers = 2

[[addon]]
use = "limit-quota"
{backend}

[[addon.limits]]
{limit}

[[addon]]
use = "route-static"
routes = [{{ path = "/", upstream = "{url}" }}]
"""


class Node:
    """A node under load, and who keeps its limit."""

    def __init__(self, gateway: Gateway, redis: RedisServer | None) -> None:
        self.gateway = gateway
        self.redis = redis

    async def status(self) -> dict[str, Any]:
        """What `tidegate quota status` says; asked again while nobody answers."""
        while True:
            with contextlib.suppress(OSError, ValueError):
                if self.redis is None:
                    path = self.gateway.folder / "state" / "addons" / "limit-quota" / SOCKET
                    found: dict[str, Any] = await asyncio.to_thread(call, path, {"status": True})
                    return found
                config = LimitQuotaConfig.model_validate(
                    {"limits": [LIMIT], "backend": self.redis.url}
                )
                store = config.store("limit-quota")
                assert store is not None
                return await asyncio.to_thread(store.status)
            await asyncio.sleep(0.1)

    async def account(self) -> tuple[int, int]:
        """What is used, and what is lent."""
        accounts = (await self.status())["accounts"]
        return (accounts[0]["used"], accounts[0]["lent"]) if accounts else (0, 0)

    async def settled(self, least: int = 0) -> int:
        """What is used when nothing is lent, and at least so much has been told."""
        async with asyncio.timeout(60):
            while True:
                used, lent = await self.account()
                if not lent and used >= least:
                    return used
                await asyncio.sleep(0.1)

    async def pid(self, victim: str) -> int:
        """The process that is to be killed."""
        while victim == "worker":
            workers = (await self.gateway.status())["workers"]
            if all(one["ready"] for one in workers):  # the last victim's successor too
                found: int = workers[0]["pid"]
                return found
            await asyncio.sleep(0.1)
        if self.redis is not None and self.redis.process is not None:
            return self.redis.process.pid
        pid: int = (await self.status())["pid"]
        return pid

    async def kill(self, victim: str, pid: int) -> int:
        """kill -9; what was lent, where it was a worker."""
        if victim != "worker":
            os.kill(pid, signal.SIGKILL)
            if self.redis is not None:
                self.redis.kill()
                await asyncio.to_thread(self.redis.start)
            return 0
        os.kill(pid, signal.SIGSTOP)  # so that what it holds is known
        lent = (await self.account())[1]
        os.kill(pid, signal.SIGKILL)
        return lent


async def round_of(node: Node, victim: str, count: int) -> dict[str, int]:
    """One load with one kill; what was answered, and what the limit counts of it."""
    before = await node.settled()
    pid = await node.pid(victim)
    answered: Counter[int] = Counter()
    load = asyncio.create_task(calls(node.gateway.url, count, parallel=count, found=answered))
    await until_answered(answered, count // 2)
    lent = await node.kill(victim, pid)
    await load
    counted = await node.settled(before + answered[200]) - before
    return {"answered": answered[200], "unanswered": answered[0],
            "refused": count - answered[200] - answered[0],
            "lent": lent, "counted": counted}  # fmt: skip


async def prove(keeper: str, victim: str, options: Any) -> dict[str, Any]:
    """All rounds of one case."""
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with ScriptedUpstream() as upstream:
            with RedisServer(folder) if keeper == "redis" else contextlib.nullcontext() as redis:
                backend = "" if redis is None else f'backend = "{redis.url}"'
                limit = "\n".join(f"{key} = {json.dumps(value)}" for key, value in LIMIT.items())
                config = CONFIG.format(backend=backend, limit=limit, url=upstream.url)
                async with Gateway(folder, config) as gateway:
                    node = Node(gateway, redis)
                    for _ in range(options.rounds):
                        rounds.append(await round_of(node, victim, options.calls))
    wrong = [
        one for one in rounds
        if not one["answered"] <= one["counted"]
        <= one["answered"] + one["lent"] + one["unanswered"] or one["refused"]
    ]  # fmt: skip
    return {
        "keeper": keeper,
        "killed": victim,
        "rounds": len(rounds),
        "calls": options.calls * len(rounds),
        "answered": sum(one["answered"] for one in rounds),
        "unanswered": sum(one["unanswered"] for one in rounds),
        "counted": sum(one["counted"] for one in rounds),
        "most_beyond_what_was_answered": max(one["counted"] - one["answered"] for one in rounds),
        "wrong": wrong,
    }


def main() -> None:
    """Prove it, print the outcome, keep it where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--json", default="", help=f"such as {RESULTS.name}; - is standard output")
    options = parser.parse_args()
    results = [asyncio.run(prove(*case, options)) for case in CASES]
    text = json.dumps(results, indent=2) + "\n"
    if options.json == "-":
        print(text, end="")
    else:
        for result in results:
            print("  ".join(f"{name}: {value}" for name, value in result.items()))
        if options.json:
            Path(options.json).write_text(text)
    sys.exit(any(result["wrong"] for result in results))


if __name__ == "__main__":
    main()
