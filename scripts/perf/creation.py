#!/usr/bin/env python3
"""How fast creation is: every figure is a ratio, or stands beside its rival, within one run.

    scripts/perf/creation.py [orchestrator] [resume] [start] [help] [review] [paper] [verify] [--json FILE]

orchestrator  the loop alone with a scripted client: examples per processor second, flatness, memory
resume        CPU seconds from the start of a process to its first request, in a run of 100,000 examples
start         CPU seconds of a new run of 50 examples until its first log line
help          seconds of `datacreate --help`
review        seconds from the start of `datacreate review` until a run of 10,000 examples is on the terminal
paper         tokens per accepted example: ours against --recipe paper
verify        milliseconds per written token of questions with five options, and of claims with fixed labels: with
              the filters on, and verified by the model that writes (all scored and kept), against neither

Without names all are run. Real-model parts use qwen2.5-coder-0.5b-instruct with the engine that `auto`
takes here; scripts/perf/engines.py compares that engine with the server alone.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import psutil
from filters import made_up_words, texts

from datacreate.checkpoints.checkpoint import Checkpoint
from datacreate.creation.loop import create
from datacreate.engines.factory import LocalModel, make_client
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import Completion, Messages, Request, ServerTest
from datacreate.errors import Stopped
from datacreate.formats.example import Json
from datacreate.runs.config import CreateConfig

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "data" / "examples" / "commonsense.json"
CLAIM = ROOT / "data" / "examples" / "claim.json"
MODEL = "qwen2.5-coder-0.5b-instruct"


# --- the orchestrator alone ------------------------------------------------------------------


class InstantClient:
    """Answers at once with examples nobody has seen, made by string formatting."""

    slots = 64
    max_in_flight = 72
    max_context = 4096
    enforces_longest_text = False

    def __init__(self) -> None:
        self._ready: list[Completion] = []
        self._next = 0
        self.settings: dict[str, Any] = {}

    def count_tokens(self, messages: Messages) -> int:
        return sum(len(message["content"]) for message in messages) // 4

    def needs_letters(self, labels: Sequence[Json]) -> bool:
        return False

    def start(self, tests: Sequence[ServerTest] = ()) -> None: ...

    def submit(self, request: Request) -> None:
        first, self._next = self._next, self._next + 5
        items = ",".join(
            f'["Where would you put thing number {i} when you come home late?",["a{i}","b{i}","c","d","e"]]'
            for i in range(first, first + 5)
        )
        self._ready.append(Completion(request.id, f"[{items}]", "stop", 100, 150))

    def poll(self, timeout_seconds: float) -> list[Completion]:
        ready, self._ready = self._ready, []
        return ready

    def abort(self, request_ids: Iterable[int]) -> None: ...

    def close(self) -> None: ...


class VariedClient(InstantClient):
    """Writes the questions of scripts/perf/filters.py, of which one in ten is a near-duplicate."""

    def __init__(self) -> None:
        super().__init__()
        self._texts = texts(made_up_words())

    def submit(self, request: Request) -> None:
        items = [[next(self._texts), [f"{request.id} {option}" for option in "abcde"]] for _ in range(5)]
        self._ready.append(Completion(request.id, json.dumps(items), "stop", 100, 150))


class FirstRequestTimer(InstantClient):
    """Stops the run at its first request, and has the CPU seconds of the process so far."""

    seconds = 0.0

    def submit(self, request: Request) -> None:
        self.seconds = time.process_time()
        raise Stopped("measured")


def resume(run_dir: Path, near: float | None, count: int) -> float:
    """CPU seconds from the start of this process to the first new request of the run."""
    client = FirstRequestTimer()
    config = CreateConfig(
        example=EXAMPLE, count=count, run_dir=run_dir, near=near, model=MODEL, decontaminate=(), recipe="fast"
    )
    with suppress(Stopped):
        create(config, client_factory=lambda *_: cast(ModelClient, client))
    return client.seconds


def measure_resume(count: int = 100_000) -> dict[str, Any]:
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, near in (("with_near_duplicates", 0.7), ("without", None)):
            run_dir = Path(folder, name)
            config = CreateConfig(
                example=EXAMPLE, count=count, run_dir=run_dir, near=near, model=MODEL, decontaminate=(),
                recipe="fast",
            )  # fmt: skip
            create(config, client_factory=lambda *_: cast(ModelClient, VariedClient()))
            command = [sys.executable, __file__, "--resume", str(run_dir), str(near or 0), str(count + 5)]
            child = subprocess.run(command, capture_output=True, text=True, check=True)
            figures[f"cpu_seconds_{name}"] = round(float(child.stdout), 2)
    return {"examples": count, **figures, "most": 10}


def measure_start() -> dict[str, Any]:
    """Without cached bytecode, and with it, as after the first command of an installation."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    server_command = [sys.executable, "-m", "tests.support.servers", "1", "0.3"]
    seconds = []
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(server_command, stdout=subprocess.PIPE, text=True, env=environment) as server,
    ):
        assert server.stdout
        url, environment["PYTHONPYCACHEPREFIX"] = server.stdout.readline().strip(), f"{folder}/bytecode"
        for turn in range(6):
            log = Path(folder, f"run-{turn}", "log.jsonl")
            words = ["create", "--example", EXAMPLE, "--url", url, "--count", 50, "--run-dir", log.parent]
            command = [sys.executable, "-m", "datacreate", *map(str, words), "--recipe", "fast"]
            child = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not (log.is_file() and log.stat().st_size):
                time.sleep(0.005)
            used = child.cpu_times()
            seconds.append(used.user + used.system)
            child.kill()
            child.wait()
        server.kill()
    return {
        "median_cpu_seconds": round(statistics.median(seconds[1:]), 2),
        "without_cached_bytecode": round(seconds[0], 2),
        "most": 1.2,
    }


def orchestrate(strategy: str, count: int) -> dict[str, float]:
    """Processor seconds and peak memory of one run with the instant client, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        config = CreateConfig(
            example=EXAMPLE, count=count, run_dir=Path(folder) / "run", strategy=strategy, model=MODEL,
            recipe="fast", decontaminate=(),
        )  # fmt: skip
        began = time.process_time()
        create(config, client_factory=lambda *_: cast(ModelClient, InstantClient()))
        seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"seconds": seconds, "peak_gib": peak}


def measure_orchestrator() -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for strategy in ("tree", "random"):
        rows = {}
        for count in (10_000, 100_000, 1_000_000):
            child = subprocess.run(
                [sys.executable, __file__, "--orchestrate", strategy, str(count)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            rows[count] = json.loads(child.stdout)
        costs = {count: row["seconds"] / count for count, row in rows.items()}
        figures[strategy] = {
            "examples_per_second_at_100k": round(1 / costs[100_000]),
            "cost_at_1M_over_cost_at_10k": round(costs[1_000_000] / costs[10_000], 2),
            "peak_gib_at_1M": round(rows[1_000_000]["peak_gib"], 2),
        }
    return figures


def measure_help() -> dict[str, Any]:
    command = [str(Path(sys.executable).with_name("datacreate")), "--help"]
    times = []
    for _ in range(7):
        began = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        times.append(time.perf_counter() - began)
    return {"median_seconds": round(statistics.median(times), 3), "most": 0.4}


def measure_review(count: int = 10_000) -> dict[str, Any]:
    """Three times, without cached vectors or decisions."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder) / "run"
        config = CreateConfig(
            example=EXAMPLE, count=count, run_dir=run_dir, model=MODEL, decontaminate=(), recipe="fast"
        )
        create(config, client_factory=lambda *_: cast(ModelClient, VariedClient()))
        for _ in range(3):
            began = time.perf_counter()
            child, terminal = pty.fork()
            if child == 0:
                os.environ["TERM"] = "xterm-256color"
                os.execv(sys.executable, [sys.executable, "-m", "datacreate", "review", str(run_dir)])
            shown = b""
            while b"0 of 10000 decided" not in shown:
                shown += os.read(terminal, 65536)
            seconds.append(time.perf_counter() - began)
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
            os.close(terminal)
    return {"examples": count, "median_seconds": round(statistics.median(seconds), 2), "most": 2}


# --- with the real model ---------------------------------------------------------------------


class Recorder:
    """A client, with a note of what was asked and when what came back."""

    def __init__(self, client: ModelClient) -> None:
        self._client = client
        self.requests: list[Request] = []
        self.finished: list[tuple[float, int]] = []  # (seconds, tokens)
        self.began = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def submit(self, request: Request) -> None:
        if request.id == 0:
            self.began = time.monotonic()
        if request.id >= 0:
            self.requests.append(request)
        self._client.submit(request)

    def poll(self, timeout_seconds: float) -> list[Completion]:
        done = self._client.poll(timeout_seconds)
        now = time.monotonic()
        self.finished += [(now, c.generated_tokens) for c in done if c.request_id >= 0]
        return done

    def seconds(self) -> float:
        return self.finished[-1][0] - self.began


def run_real(count: int, **settings: Any) -> tuple[dict[str, Any], Recorder]:
    """A real run; its summary and its recorder."""
    recorders: list[Recorder] = []

    def factory(checkpoint: Checkpoint, config: CreateConfig) -> Any:
        log = config.run_dir / "engine.log"
        recorders.append(Recorder(make_client(LocalModel(checkpoint, config), count=config.count, log=log)))
        return recorders[0]

    with tempfile.TemporaryDirectory() as folder:
        config = CreateConfig(
            **({"example": EXAMPLE} | settings), count=count, run_dir=Path(folder) / "run", model=MODEL
        )  # fmt: skip
        return create(config, client_factory=factory), recorders[0]


def measure_paper() -> dict[str, Any]:
    ours, _ = run_real(200, recipe="fast")
    paper, _ = run_real(20, recipe="paper")
    return {
        name: {
            "generated_tokens_per_accepted": summary["tokens_per_example"],
            "prompt_and_generated": round(
                (summary["prompt_tokens"] + summary["generated_tokens"]) / summary["accepted"], 1
            ),
            "accepted": summary["accepted"],
            "rejected": summary["rejected"],
        }
        for name, summary in (("ours", ours), ("paper", paper))
    }


def measure_verify(count: int = 300) -> dict[str, Any]:
    """Two rounds of all kinds, so that a slow phase of the machine falls on all of them.

    By the token that is written, for how many a request takes differs from run to run; no strategy
    that waits for its parents, for that is time, but not the engine's.
    """
    bare: dict[str, Any] = {"strategy": "naive", "verify": "off", "near": None, "exact": False, "decontaminate": ()}
    claims = {**bare, "example": CLAIM}
    kinds: dict[str, dict[str, Any]] = {
        "options": bare,
        "options, filters": {"strategy": "naive", "verify": "off"},
        "options, verified": {**bare, "verify": "keep"},
        "labels": claims,
        "labels, verified": {**claims, "verify": "keep"},
    }
    costs: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(2):
        for name, settings in kinds.items():
            _, recorder = run_real(count, **settings)
            costs[name].append(1000 * recorder.seconds() / sum(tokens for _, tokens in recorder.finished))
    cost = {name: statistics.mean(each) for name, each in costs.items()}
    return {
        "milliseconds_per_written_token": {name: round(each, 2) for name, each in cost.items()},
        "ratios": {
            name: round(each / cost[bare_name], 2)
            for name, each in cost.items()
            if (bare_name := name.partition(",")[0]) != name
        },
    }


PARTS = {
    "orchestrator": measure_orchestrator,
    "resume": measure_resume,
    "start": measure_start,
    "help": measure_help,
    "review": measure_review,
    "paper": measure_paper,
    "verify": measure_verify,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--orchestrate", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--resume", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.resume:
        run_dir, near, count = arguments.resume
        print(resume(Path(run_dir), float(near) or None, int(count)))
        return
    if arguments.orchestrate:
        print(json.dumps(orchestrate(arguments.orchestrate[0], int(arguments.orchestrate[1]))))
        return
    if unknown := set(arguments.parts) - PARTS.keys():
        parser.error(f"no part {unknown.pop()!r}; parts are {', '.join(PARTS)}")
    figures: dict[str, Any] = {}
    for name in arguments.parts or PARTS:
        print(f"measuring {name} …", file=sys.stderr)
        figures[name] = PARTS[name]()
    document = json.dumps({"cores": os.cpu_count(), "model": MODEL, **figures}, indent=2)
    print(document)
    if arguments.json:
        arguments.json.write_text(document + "\n")


if __name__ == "__main__":
    main()
