"""How a worker grows with the exchanges of one HTTP/2 connection.

    uv run python bench/h2_slope.py [--count 40000] [--warm 5000] [--target 1] [--json FILE]

h2load makes all exchanges on one connection, ten streams at a time; a worker's resident memory is
read at each tenth while they run. The slope is that of a line through the points after the
warm-up. Target: 1 MiB per 10,000 exchanges at most (mitmproxy alone: 33 to 54). Linux.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import h2_rig
import rig

MIB: Final = 1024 * 1024
POINTS: Final = 40


def measure(front: h2_rig.Front, count: int, warm: int) -> dict[str, Any]:
    """Make the exchanges; memory by exchanges done."""
    before = front.dials()
    url = f"https://localhost:{front.node.port}/"
    load = subprocess.Popen(
        ["h2load", "-n", str(warm + count), "-c", "1", "-m", "10", url],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    points: list[tuple[int, float]] = []
    while load.poll() is None:
        done = front.dials() - before  # an upstream connection for each exchange
        if done >= warm and (not points or done - points[-1][0] >= count / POINTS):
            points.append((done, rig.rss(front.worker) / MIB))
        time.sleep(0.05)
    assert load.stdout is not None
    told = load.stdout.read()
    found = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", told)
    if found is None or int(found[1]) != warm + count:
        raise SystemExit(f"the load failed: {told}")
    slope = statistics.linear_regression(*zip(*points, strict=True)).slope * 10_000
    return {
        "exchanges": count,
        "mib_per_10k": round(slope, 3),
        "rss_mib": [round(size, 1) for _, size in points],
        "connections": 1,
    }


def main() -> None:
    """Measure and tell; exit status 1 where a worker grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=40_000)
    parser.add_argument("--warm", type=int, default=5_000)
    parser.add_argument("--target", type=float, default=1.0, help="MiB per 10,000")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not shutil.which("h2load"):
        raise SystemExit("needs h2load: apt-get install nghttp2-client")
    with h2_rig.front() as front:
        data = measure(front, options.count, options.warm)
    print(f"{data['exchanges']:,} exchanges: {data['mib_per_10k']:+.3f} MiB per 10,000")
    print(f"MiB: {data['rss_mib']}")
    if options.json:
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    sys.exit(data["mib_per_10k"] > options.target)


if __name__ == "__main__":
    main()
