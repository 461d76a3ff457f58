"""Two real engines side by side on this machine, one of which is killed in the middle of a run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from datacreate import CreateConfig, create
from datacreate.runs.summary import Tally
from datacreate.tasks.normal import normalised

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="each engine wants a core of its own"),
]

MODEL = "qwen2.5-coder-0.5b-instruct"
COMMONSENSE = Path(__file__).parents[1] / "data" / "examples" / "commonsense.json"
COUNT = 24


def workers() -> list[psutil.Process]:
    """The models' processes, the older first."""
    found = [child for child in psutil.Process().children() if "vllm_worker" in " ".join(child.cmdline())]
    return sorted(found, key=lambda process: process.create_time())


class Killer:
    """A `Progress` that kills one of the engines after the second commit."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.commits = 0
        self.seen: set[int] = set()
        self.cores: list[list[int]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def update(self, tally: Tally, count: int) -> None:
        self.commits += 1
        running = workers()
        self.seen |= {process.pid for process in running}
        if self.commits == 2:
            self.cores = [process.cpu_affinity() for process in running]
            os.kill(running[1].pid, signal.SIGKILL)


def test_one_of_two_engines_is_killed_and_exactly_n_come_out(tmp_path: Path) -> None:
    killer = Killer()
    config = CreateConfig(
        example=COMMONSENSE,
        count=COUNT,
        run_dir=tmp_path / "run",
        model=MODEL,
        replicas=2,
        num_examples=2,
        window=12,
        max_num_seqs=6,
        against=(),
    )
    summary = create(config, progress=killer)

    assert summary["accepted"] == COUNT
    assert summary["replicas"] == 2
    lines = (tmp_path / "run" / "train.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    examples: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert len(examples) == COUNT
    assert len({normalised(example["question"]) for example in examples}) == COUNT
    log = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    asked = [record["request"] for line in log if "request" in (record := json.loads(line))]
    assert asked == list(range(len(asked)))  # each once, in order, those of the dead engine among them
    [died] = [note for note in killer.notes if "died" in note]
    assert died.startswith("engine 2 of 2 died: the model's process ended (code -9)")
    assert len(killer.cores) == 2
    assert not set(killer.cores[0]) & set(killer.cores[1])
    assert len(killer.seen) == 3  # two, and the one that was started again
    assert (tmp_path / "run" / "engine.1.log").is_file()
    assert (tmp_path / "run" / "engine.2.log").is_file()
    assert workers() == []
