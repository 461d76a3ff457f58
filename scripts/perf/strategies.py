#!/usr/bin/env python3
"""The strategies compared: depth, diversity, surplus requests and speed, as a Markdown table.

    scripts/perf/strategies.py OUT [--model NAME] [--count 300] [--strategy tree ...] [--max-parent-uses 4,16,64] ...
    scripts/perf/strategies.py --simulate

The first makes a set with each strategy in OUT with a real model (the same command resumes); tree and coverage once
for each value of --max-parent-uses. Further options go to `datacreate create`, such as --verify off --num-chains 1.
All sets have the same count, so that distinct-n and self-BLEU can be compared.

`--simulate` makes trees with a scripted client in virtual time: an answer takes about 1 second, however many requests
are processed at once, and 80 % of the examples are accepted. `fill` is the share of the engine that is busy. It shows
what --max-parent-uses gains; what it costs in distinct examples needs a model.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from creation import EXAMPLE, MODEL, InstantClient

from datacreate.creation.loop import create
from datacreate.creation.run_metrics import measure_run
from datacreate.engines.request import Completion, Request, max_in_flight
from datacreate.messages import markdown_table
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from datacreate.selection.strategies import STRATEGIES

SIMULATED = ((300, 32), (1000, 64), (1000, 256), (5000, 256))  # (count, slots)
USES = (1, 4, 8, 16, 32, 64)


def measure(out: Path, name: str, options: Sequence[str]) -> list[object]:
    """Make one set, and its row of the table."""
    directory = RunDirectory(out / name.replace(" ", "-"))
    command = ["create", "--run-dir", str(directory.path), *options]
    print("$ datacreate", *command, file=sys.stderr)
    subprocess.run([sys.executable, "-m", "datacreate", *command], check=True, stdout=subprocess.DEVNULL)
    summary, found = directory.summary(), measure_run(directory).diversity
    made = sum(len(line.parents) for line in directory.log())
    depths = ", ".join(f"{depth}: {number}" for depth, number in summary["depths"].items())
    figures = ("distinct_1", "distinct_2", "distinct_3", "self_bleu")
    diversity = [f"{getattr(found, figure):.3f}" for figure in figures]
    rejected = sum(number for reason, number in summary["rejected"].items() if reason != "not_needed")
    accepted = f"{summary['accepted'] / (summary['accepted'] + rejected):.0%}"
    requests = f"{made} / {summary['requests']}"
    return [name, depths, *diversity, accepted, requests, summary["examples_per_second"]]


class VirtualClient(InstantClient):
    """Answers after a random virtual time of about a second, with at most `slots` requests at once."""

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.max_in_flight = max_in_flight(slots)
        self.now = self.busy = 0.0
        self.made = 0
        self._running: list[tuple[float, int]] = []
        self._queue: list[Request] = []

    def submit(self, request: Request) -> None:
        self.made += 1
        self._queue.append(request)

    def poll(self, timeout_seconds: float) -> list[Completion]:
        while self._queue and len(self._running) < self.slots:
            request = self._queue.pop(0)
            seconds = random.Random(request.id).lognormvariate(0, 0.25)
            heapq.heappush(self._running, (self.now + seconds, request.id))
            super().submit(request)
        end, number = heapq.heappop(self._running)
        self.busy += (len(self._running) + 1) * (end - self.now)
        self.now = end
        [completion] = [each for each in self._ready if each.request_id == number]
        self._ready.remove(completion)
        rng = random.Random(number)
        items = [item if rng.random() < 0.8 else [] for item in json.loads(completion.text)]
        return [Completion(number, json.dumps(items), "stop", 100, 150)]


def simulate() -> Iterator[list[object]]:
    """Rows of the table about the start of a tree."""
    for (count, slots), uses in product(SIMULATED, (None, *USES)):  # None: the strategy naive
        client = VirtualClient(slots)
        strategy = {"strategy": "tree", "max_parent_uses": uses} if uses else {"strategy": "naive"}
        settings: dict[str, Any] = {"count": count, "model": MODEL, "decontaminate": (), "verify": "off", **strategy}
        with tempfile.TemporaryDirectory() as folder:
            config = CreateConfig(example=EXAMPLE, run_dir=Path(folder) / "run", **settings)
            summary = create(config, client_factory=lambda *_, client=client: client)
        fill, root = client.busy / slots / client.now, summary["depths"]["1"] / count
        requests = f"{client.made} / {summary['requests']}"
        yield [count, slots, uses or "naive", f"{client.now:.1f}", f"{fill:.0%}", f"{root:.0%}", requests]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--strategy", action="append", choices=STRATEGIES)
    parser.add_argument("--max-parent-uses", default="")
    parser.add_argument("--simulate", action="store_true")
    options, more = parser.parse_known_args()
    if options.simulate:
        columns = ["count", "slots", "--max-parent-uses", "seconds", "fill", "children of the root"]
        print(markdown_table([*columns, "requests made / needed"], list(simulate())))
        return
    if options.out is None:
        parser.error("give a folder, or --simulate")
    more += ["--model", options.model, "--count", str(options.count), "--example", str(EXAMPLE)]
    rows = []
    for strategy in options.strategy or STRATEGIES:
        reuses = options.max_parent_uses and STRATEGIES[strategy].queue in ("tree", "farthest_first")
        for uses in options.max_parent_uses.split(",") if reuses else [""]:
            limit = ["--max-parent-uses", uses] if uses else []
            rows.append(measure(options.out, f"{strategy} {uses}".strip(), ["--strategy", strategy, *limit, *more]))
    columns = ["strategy", "examples by depth", "distinct-1", "distinct-2", "distinct-3", "self-BLEU"]
    print(markdown_table([*columns, "accepted", "requests made / needed", "examples/s"], rows))


if __name__ == "__main__":
    main()
