"""CPU per call of a translated chat completion, beside LiteLLM, in one run, taking turns.

    uv run python bench/ai_path.py [--seconds 3] [--rounds 3] [--json FILE]
    uv run python bench/peers.py --install      LiteLLM, in an environment of its own

Callers speak OpenAI's Chat Completions, the upstream (nginx) Anthropic's Messages: each call is
authenticated, limited, translated both ways, its usage counted and priced, and logged. LiteLLM
does the same with its key check. Targets: 150 us at most, and 20 times less than LiteLLM. Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import peers
import rig
from lane_cpu import WEB, free_port, nginx
from rich.console import Console
from rich.table import Table

CONNECTIONS: Final = 32
MODEL: Final = "claude-sonnet-4-5"
PATH: Final = "/v1/chat/completions"
MESSAGE: Final = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "x" * 780}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 150, "output_tokens": 200},
    }
)


def config(web: int) -> str:
    """A node that translates for a provider on `web`."""
    return (
        rig.policies()
        + '[[addon]]\nuse = "ai-usage"\n\n[[addon]]\nuse = "ai-providers"\nproviders = [\n'
        f'  {{ name = "anthropic", url = "http://127.0.0.1:{web}", keys = ["sk-upstream"],'
        f' models = ["{MODEL}"] }},\n]\n'
        'aliases = { "gpt-4o-mini" = "anthropic/' + MODEL + '" }\n\n' + rig.LOG
    )


@contextlib.contextmanager
def litellm(root: Path, web: int) -> Iterator[tuple[int, int]]:
    """LiteLLM's proxy; yields its process and port. Raises peers.Absent."""
    program = peers.installed("litellm", "bin/litellm")
    port, file = free_port(), root / "litellm.yaml"
    options = {
        "model": f"anthropic/{MODEL}",
        "api_base": f"http://127.0.0.1:{web}",
        "api_key": "sk-upstream",
    }
    told = {
        "model_list": [{"model_name": "gpt-4o-mini", "litellm_params": options}],
        "general_settings": {"master_key": rig.KEY},
        "litellm_settings": {"telemetry": False},
    }
    file.write_text(json.dumps(told))  # JSON is YAML
    os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    argv = [program, "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
    argv += ["--num_workers", "1", "--telemetry", "False"]
    with rig.process(argv, port, seconds=120) as child:
        yield child.pid, port


def measure(root: Path, targets: dict[str, tuple[int, int]], options: argparse.Namespace) -> Any:
    """Microseconds of CPU per call, and calls per second, of each target: medians of rounds."""
    cost: dict[str, list[float]] = {name: [] for name in targets}
    rate: dict[str, list[float]] = {name: [] for name in targets}
    for turn in range(options.rounds + 1):  # the first one warms up
        for name, (pid, port) in targets.items():
            rig.settle(pid)
            before = rig.cpu_seconds(pid)
            sample = rig.run_wrk(
                root, port, PATH, connections=CONNECTIONS, seconds=options.seconds, post=True
            )
            if sample.errors or sample.count < peers.FEW:
                why = sample.errors or "too few answers: give it more --seconds"
                raise SystemExit(f"{name}: {why}")
            if turn:
                cost[name].append((rig.cpu_seconds(pid) - before) / sample.count * 1e6)
                rate[name].append(sample.count / sample.seconds)
    return {
        name: {
            "cpu_us": round(statistics.median(cost[name]), 1),
            "cpu_us_least": round(min(cost[name]), 1),
            "rate": round(statistics.median(rate[name])),
        }
        for name in targets
    }


def main() -> None:
    """Start both, measure, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root, web = Path(folder), free_port()
        locations = WEB.format(get="x", reply=MESSAGE)
        stack.enter_context(nginx(root, web, web, web, locations, "off"))
        node = stack.enter_context(rig.node(root / "node", config(web)))
        targets = {"tidegate": (node.pid, node.port)}
        try:
            targets["LiteLLM"] = stack.enter_context(litellm(root, web))
        except peers.Absent as reason:
            console.print(f"LiteLLM is left out, not installed: {reason}")
        found = measure(root, targets, options)
    table = Table(title="OpenAI to Anthropic, 32 connections", title_justify="left")
    for column in ("proxy", "CPU µs", "least", "per s"):
        table.add_column(column, justify="left" if column == "proxy" else "right")
    for name, cell in found.items():
        table.add_row(
            name, f"{cell['cpu_us']:,.0f}", f"{cell['cpu_us_least']:,.0f}", f"{cell['rate']:,}"
        )
    console.print(table)
    if "LiteLLM" in found:
        ratio = found["LiteLLM"]["cpu_us"] / found["tidegate"]["cpu_us"]
        found["ratio"] = round(ratio, 1)
        console.print(f"LiteLLM / tidegate {ratio:.0f}")
    if options.json:
        about = {"python": platform.python_version(), "load_average": os.getloadavg()[0]}
        options.json.write_text(json.dumps({"machine": about, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
