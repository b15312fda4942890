"""Explain and shadow on live traffic: the same on both carriers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import httpx

from tidegate.testing import Gateway, ScriptedUpstream, install_plugin
from tidegate.testing.script import body, sse

POLICY = '''
import asyncio
import sys
from tidegate.api import Denial, Plugin, Principal, SseEvent, hook

class Policy(Plugin):
    """Knows two callers, waits a little, changes something in each phase."""

    @hook
    def authenticate(self, exchange):
        name = exchange.consume_header("x-who")
        return None if name is None else Principal(name)

    @hook
    async def authorize(self, exchange):
        await asyncio.sleep(0.01)
        if exchange.path == "/secret":
            return Denial(403, "secret", "Not here.")

    @hook
    def transform_request(self, exchange):
        exchange.request.headers["x-team"] = "s3cr3t-team"

    @hook
    def transform_response(self, exchange):
        exchange.response.headers["x-served"] = "s3cr3t-served"

    @hook
    def transform_event(self, exchange, event):
        if isinstance(event, SseEvent) and event.data == "1":
            event.data = "one"

    def explain(self, hook, exchange):
        return "looked for x-who"
'''


def config(origin: ScriptedUpstream, gateway: str) -> str:
    return (
        f"[gateway]\nworkers = 2\n{gateway}\n\n"
        '[[addon]]\nuse = "policy"\n\n'
        '[[addon]]\nuse = "limit-rate"\nrate = "600/min"\nscope = { paths = ["/v1/*"] }\n\n'
        f'[[addon]]\nuse = "route-static"\nroutes = [{{ path = "/", upstream = "{origin.url}" }}]\n'
    )


ASK = {"x-tidegate-explain": "1"}


async def trace_of(gateway: Gateway, answer: httpx.Response) -> dict[str, Any] | None:
    """The whole trace, from the status server."""
    id = answer.headers["x-request-id"]
    async with httpx.AsyncClient(base_url=gateway.status_url, trust_env=False) as status:
        found = await status.get(f"/-/explain/{id}")
    assert found.status_code in (200, 404)
    return dict(found.json()) if found.status_code == 200 else None


def entries(trace: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (phase["phase"], step["addon"]): step
        for phase in trace["phases"]
        for step in phase["steps"]
    }


async def test_a_caller_who_may_gets_a_summary_and_the_whole_trace_by_request_id(
    tmp_path: Path, carrier: str
) -> None:
    env = install_plugin(tmp_path / "site", "policy", POLICY)
    async with ScriptedUpstream() as origin:
        origin.answer(*body(b"ok"))
        async with (
            Gateway(tmp_path / "gw", config(origin, ""), carrier=carrier, env=env) as gateway,
            httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client,
        ):
            answer = await client.get("/v2/x", headers={**ASK, "x-who": "ada"})
            summary = answer.headers["x-tidegate-explain"]
            assert summary.startswith("200 - answered by ")
            assert "authenticate +policy" in summary
            assert "transform_response +policy" in summary
            assert "(x-served)" in summary
            assert not any(r.values("x-tidegate-explain") for r in origin.requests)
            trace = await trace_of(gateway, answer)
            assert trace is not None
            assert (trace["status"], trace["principal"], trace["outcome"]) == (
                200,
                "ada",
                "answered",
            )
            steps = entries(trace)
            assert steps["authenticate", "policy"]["detail"] == "ada"
            waited = steps["authorize", "policy"]
            assert waited["waited_us"] >= 9_000 > waited["us"]
            assert steps["transform_request", "policy"]["changed"][0].startswith("+x-team #")
            assert trace["left_out"] == [
                {"addon": "limit-rate", "why": "its scope: path /v2/x is not in /v1/*"}
            ]
            assert "s3cr3t" not in str(trace) + summary

            denied = await client.get("/secret", headers={**ASK, "x-who": "ada"})
            assert denied.headers["x-tidegate-explain"].startswith(
                "403 secret - policy said no in authorize: Not here."
            )
            unknown = await client.get("/v1/x", headers=ASK)
            assert (
                "no addon recognised a credential; policy looked for x-who"
                in (unknown.headers["x-tidegate-explain"])
            )
            plain = await client.get("/v1/x", headers={"x-who": "ada"})
            assert "x-tidegate-explain" not in plain.headers
            assert await trace_of(gateway, plain) is None


async def test_later_parts_of_a_stream_are_in_the_kept_trace(tmp_path: Path, carrier: str) -> None:
    env = install_plugin(tmp_path / "site", "policy", POLICY)
    async with ScriptedUpstream() as origin:
        origin.answer(*sse("1", "2", "3"))
        async with (
            Gateway(tmp_path / "gw", config(origin, ""), carrier=carrier, env=env) as gateway,
            httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client,
        ):
            answer = await client.get("/v1/x", headers={**ASK, "x-who": "ada"})
            assert "data: one\n\n" in answer.text
            assert "transform_event" not in answer.headers["x-tidegate-explain"]
            assert f":{origin.port} |" in answer.headers["x-tidegate-explain"], "who answers"
            trace = await trace_of(gateway, answer)
            assert trace is not None
            step = entries(trace)["transform_event", "policy"]
            assert (step["calls"], step["result"]) == (4, "events")


async def test_in_production_only_named_principals_get_traces(tmp_path: Path, carrier: str) -> None:
    env = install_plugin(tmp_path / "site", "policy", POLICY)
    gateway_table = 'environment = "production"\nexplain = { principals = ["ada"] }'
    async with ScriptedUpstream() as origin:
        origin.answer(*body(b"ok"))
        text = config(origin, gateway_table)
        async with (
            Gateway(tmp_path / "gw", text, carrier=carrier, env=env) as gateway,
            httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client,
        ):
            allowed = await client.get("/", headers={**ASK, "x-who": "ada"})
            assert "x-tidegate-explain" in allowed.headers
            for headers in ({"x-who": "bob"}, {}):
                answer = await client.get("/", headers={**ASK, **headers})
                assert "x-tidegate-explain" not in answer.headers
                assert await trace_of(gateway, answer) is None
            await gateway.reload(text.replace('principals = ["ada"]', "sample = 1.0"))
            sampled = await client.get("/", headers={**ASK, "x-who": "ada"})
            assert "x-tidegate-explain" not in sampled.headers
            assert await trace_of(gateway, sampled) is not None


async def test_tidegate_explain_finds_a_request_by_its_id(tmp_path: Path) -> None:
    env = install_plugin(tmp_path / "site", "policy", POLICY)
    async with ScriptedUpstream() as origin:
        origin.answer(*body(b"ok"))
        async with (
            Gateway(tmp_path / "gw", config(origin, ""), env=env) as gateway,
            httpx.AsyncClient(base_url=gateway.url, trust_env=False) as client,
        ):
            answer = await client.get("/v1/x", headers={**ASK, "x-who": "ada"})
            id = answer.headers["x-request-id"]
            for where in (["--status", gateway.status_url], ["--state", gateway.ready["state"]]):
                shown = await tidegate("explain", id, *where)
                assert "200 — answered by" in shown
                assert "GET /v1/x" in shown
            assert id in await tidegate("explain", "--state", gateway.ready["state"])


async def tidegate(*argv: str) -> str:
    """What a verb prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidegate.cli.main", *argv), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()
