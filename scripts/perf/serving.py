#!/usr/bin/env python3
"""How fast served models are: against the same model in process, and 64 servers against one.

    scripts/perf/serving.py [served] [fleet] [--rounds 2] [--count 200] [--json FILE]

served  accepted examples/s: behind `datacreate serve`, over the engine in the run's own process
        tree; by turns, from the first request to the last commit, loading left out
fleet   accepted examples/s: 64 simulated servers of a fixed latency over 64 times one such server;
        and the processor time of the run's own process per example, servers aside

The first uses qwen2.5-coder-0.5b-instruct on this machine, which should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datacreate.creation import create
from datacreate.runs.config import CreateConfig

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "data" / "examples" / "commonsense.json"
MODEL = "qwen2.5-coder-0.5b-instruct"

LATENCY = 2.0
"""Seconds that a simulated server takes over an answer."""

HOLDS = 8
"""Requests that it works on at once."""

SECONDS = 40
"""How long each run with simulated servers is to take, about; its end, when they fall idle, is part of it."""


def measure_served(count: int, rounds: int) -> dict[str, Any]:
    speeds: dict[str, list[float]] = {"in_process": [], "served": []}
    for _ in range(rounds):
        speeds["in_process"].append(_speed(count))
        with _server() as url:
            speeds["served"].append(_speed(count, urls=(url,)))
    ratios = [there / here for here, there in zip(speeds["in_process"], speeds["served"], strict=True)]
    return {**speeds, "served_over_in_process": round(statistics.median(ratios), 3), "least": 0.9}


def _speed(count: int, **changes: Any) -> float:
    """Accepted examples a second."""
    with tempfile.TemporaryDirectory() as folder:
        told: dict[str, Any] = {"model": MODEL, "max_num_seqs": 32, "against": ()}
        # Compiled in both, as a server is.
        if "urls" not in changes:
            told["enforce_eager"] = False
        config = CreateConfig.of(example=EXAMPLE, count=count, run_dir=Path(folder) / "run", **told | changes)
        return round(float(create(config)["examples_per_second"]), 3)


@contextmanager
def _server() -> Iterator[str]:
    command = [sys.executable, "-m", "datacreate", "serve", "--model", MODEL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        addresses = (line.strip() for line in process.stdout if line.startswith("http"))
        try:
            yield next(addresses)
        finally:
            process.terminate()


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
            against=(),
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
    options.add_argument("parts", nargs="*", choices=["served", "fleet", []])
    options.add_argument("--rounds", type=int, default=2)
    options.add_argument("--count", type=int, default=200)
    options.add_argument("--json", type=Path)
    options.add_argument("--drive", nargs=2, help=argparse.SUPPRESS)
    told = options.parse_args()
    if told.drive:
        print(json.dumps(drive(int(told.drive[0]), told.drive[1])))
        return
    figures: dict[str, Any] = {}
    for part in told.parts or ["fleet", "served"]:
        figures[part] = measure_fleet() if part == "fleet" else measure_served(told.count, told.rounds)
        print(json.dumps({part: figures[part]}, indent=2), flush=True)
    if told.json:
        told.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
