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

from datacreate.create import create
from datacreate.runs.config import CreateConfig

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "data" / "examples" / "commonsense.json"

LATENCY = 2.0
"""Seconds that a simulated server takes over an answer."""

HOLDS = 8
"""Requests that it works on at once."""

SECONDS = 40
"""How long each run with simulated servers is to take, about; its end, when they fall idle, is part of it."""


def measure_fleet() -> dict[str, Any]:
    one, many = _simulated(1), _simulated(64)
    ratio = many["examples_per_second"] / (64 * one["examples_per_second"])
    return {"1": one, "64": many, "many_over_64_times_one": round(ratio, 3), "least": 0.9}


def _simulated(number: int) -> dict[str, Any]:
    """A run with so many simulated servers, which are another process, and this run a third."""
    count = round(number * HOLDS / LATENCY * SECONDS) * 5  # five examples an answer
    command = [sys.executable, "-m", "tests.servers", str(number), str(LATENCY)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as servers:
        assert servers.stdout
        try:
            urls = servers.stdout.readline().strip()
            child = [sys.executable, __file__, "--drive", str(count), urls]
            told = subprocess.run(child, capture_output=True, text=True, check=True)
            return dict(json.loads(told.stdout))
        finally:
            servers.kill()


def drive(count: int, urls: str) -> dict[str, Any]:
    """One run, in a process of its own: its speed, and its processor time."""
    with tempfile.TemporaryDirectory() as folder:
        config = CreateConfig.of(
            example=EXAMPLE,
            count=count,
            run_dir=Path(folder) / "run",
            urls=tuple(urls.split(",")),
            max_num_seqs=HOLDS,
            strategy="random",  # whose chains are full from the first request on
            decontaminate=(),
        )
        began = time.process_time()
        summary = create(config)
        spent = time.process_time() - began
    return {
        "examples_per_second": summary["examples_per_second"],
        "accepted": summary["accepted"],
        "processor_ms_an_example": round(1000 * spent / count, 3),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--json", type=Path)
    options.add_argument("--drive", nargs=2, help=argparse.SUPPRESS)
    told = options.parse_args()
    if told.drive:
        print(json.dumps(drive(int(told.drive[0]), told.drive[1])))
        return
    figures = measure_fleet()
    print(json.dumps(figures, indent=2), flush=True)
    if told.json:
        told.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
