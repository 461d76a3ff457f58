#!/usr/bin/env python3
"""How creation scales with servers: 64 simulated servers of a fixed latency over 64 times one such server.

    scripts/perf/fleet.py [--json FILE]

Also the processor time of the run's own process per example, servers aside.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from datacreate.creation.loop import create
from datacreate.runs.config import CreateConfig

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "data" / "examples" / "commonsense.json"

LATENCY = 2.0
"""Seconds that a simulated server needs for an answer."""

MAX_NUM_SEQS = 8
"""Requests that it processes at once."""

SECONDS = 40
"""Approximate length of each run, including its end, when servers become idle."""


def measure_fleet() -> dict[str, Any]:
    one, many = _simulated(1), _simulated(64)
    ratio = many["examples_per_second"] / (64 * one["examples_per_second"])
    return {"1": one, "64": many, "many_over_64_times_one": round(ratio, 3), "least": 0.9}


def _simulated(number: int) -> dict[str, Any]:
    """A run with this number of servers; servers and run are processes of their own."""
    count = round(number * MAX_NUM_SEQS / LATENCY * SECONDS) * 5  # five examples per answer
    command = [sys.executable, "-m", "tests.support.servers", str(number), str(LATENCY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as servers:
        assert servers.stdout
        try:
            urls = servers.stdout.readline().strip()
            child = [sys.executable, __file__, "--drive", str(count), urls]
            ended = subprocess.run(child, capture_output=True, text=True, check=True)
            return dict(json.loads(ended.stdout))
        finally:
            servers.kill()


def drive(count: int, urls: str) -> dict[str, Any]:
    """One run: its speed and its processor time."""
    with tempfile.TemporaryDirectory() as folder:
        config = CreateConfig.of(
            example=EXAMPLE,
            count=count,
            run_dir=Path(folder) / "run",
            url=tuple(urls.split(",")),
            max_num_seqs=MAX_NUM_SEQS,
            strategy="random",  # whose chains are full from the first request on
            decontaminate=(),
        )
        began = time.process_time()
        summary = create(config)
        spent = time.process_time() - began
    return {
        "examples_per_second": summary["examples_per_second"],
        "accepted": summary["accepted"],
        "processor_ms_per_example": round(1000 * spent / count, 3),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--json", type=Path)
    options.add_argument("--drive", nargs=2, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.drive:
        print(json.dumps(drive(int(given.drive[0]), given.drive[1])))
        return
    figures = measure_fleet()
    print(json.dumps(figures, indent=2), flush=True)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
