#!/usr/bin/env python3
"""How fast creation is on one engine, against the same server alone; every figure is from one run.

    scripts/perf/engines.py [speed] [contention] [--engine llamacpp|vllm] [--model NAME] [--count 200]
                            [--in-flight 32] [--json FILE]

speed       `create` (tree): accepted examples/s and generated tokens/s, from the first request to the last
            commit; then the same server, started anew, with the same prompts in the same order, no grammar,
            answers of the same mean length, as many in flight as create had in the mean (`raw`), the full
            number (`raw_full`), and one at a time (`raw_one`). Prompts are part of all of them.
contention  tokens/s of the server with 8 in flight: alone, and beside one process that keeps a core busy.

The machine should have nothing else to do. `--model` takes what `create --model` takes.
"""

from __future__ import annotations

import argparse
import asyncio
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

from datacreate.checkpoints.checkpoint import Checkpoint, resolve
from datacreate.creation.loop import create
from datacreate.engines import EngineOptions
from datacreate.engines.engine import Workload
from datacreate.engines.factory import LocalModel, make_client, make_server_commands
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import Completion, Request
from datacreate.engines.server_sources import LocalServer
from datacreate.hardware import cpu_flags
from datacreate.runs.config import CreateConfig

EXAMPLE = Path(__file__).resolve().parents[2] / "data" / "examples" / "commonsense.json"
RAW_ROUNDS = 4
"""Prompts that a raw measurement sends, for each that is in flight."""


class Recorder:
    """A client, with what was asked of it and when what came back."""

    def __init__(self, client: ModelClient) -> None:
        self._client = client
        self.requests: list[Request] = []
        self.finished: list[tuple[float, int, float]] = []  # seconds, tokens, seconds in flight
        self._began: dict[int, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        self._began[request.id] = time.monotonic()
        self._client.submit(request)

    def poll(self, timeout_seconds: float) -> list[Completion]:
        done = self._client.poll(timeout_seconds)
        now = time.monotonic()
        self.finished += [(now, each.generated_tokens, now - self._began[each.request_id]) for each in done]
        return done

    def figures(self) -> dict[str, float]:
        seconds = self.finished[-1][0] - min(self._began.values())
        tokens = sum(tokens for _, tokens, _ in self.finished)
        in_flight = sum(spent for _, _, spent in self.finished) / seconds
        return {"seconds": seconds, "tokens_per_second": tokens / seconds, "mean_in_flight": in_flight}


def measure_speed(model: str, engine: str, count: int, in_flight: int) -> dict[str, Any]:
    options: dict[str, Any] = {"engine": engine, "max_num_seqs": in_flight}
    options |= {"replicas": 1} if engine == "vllm" else {}  # as many servers as the raw measurements have
    recorders: list[Recorder] = []

    def factory(checkpoint: Checkpoint, config: CreateConfig) -> Any:
        log = config.run_dir / "engine.log"
        recorders.append(Recorder(make_client(LocalModel(checkpoint, config), count=config.count, log=log)))
        return recorders[0]

    with tempfile.TemporaryDirectory() as folder:
        config = CreateConfig.of(
            example=EXAMPLE, count=count, run_dir=Path(folder) / "run", model=model, decontaminate=(), **options
        )
        summary = create(config, client_factory=factory)
    ours, requests = recorders[0].figures(), recorders[0].requests
    length = round(statistics.mean(tokens for _, tokens, _ in recorders[0].finished))
    mean = max(1, round(ours["mean_in_flight"]))
    with running(model, EngineOptions(**options)) as url:
        raw = raw_tokens_per_second(url, (requests * RAW_ROUNDS)[: RAW_ROUNDS * mean], length, mean)
    with running(model, EngineOptions(**options)) as url:
        raw_one = raw_tokens_per_second(url, requests[:RAW_ROUNDS], length, 1)
    with running(model, EngineOptions(**options)) as url:
        prompts = (requests * RAW_ROUNDS * in_flight)[: RAW_ROUNDS * in_flight]
        raw_full = raw_tokens_per_second(url, prompts, length, in_flight)
    return {
        "accepted_per_second": round(summary["accepted"] / ours["seconds"], 3),
        "accepted_of_written": round(summary["accepted"] / (summary["requests"] * 5), 2),
        "tokens_per_request": length,
        "mean_in_flight": round(ours["mean_in_flight"], 1),
        "tokens_per_second": round(ours["tokens_per_second"], 1),
        "raw": round(raw, 1),
        "raw_full": round(raw_full, 1),
        "raw_one": round(raw_one, 1),
        "ours_over_raw": round(ours["tokens_per_second"] / raw, 3),
        "gain_over_raw_gain": round((ours["tokens_per_second"] / raw_one) / (raw_full / raw_one), 3),
    }


@contextmanager
def running(model: str, options: EngineOptions) -> Iterator[str]:
    """A server of the model, as `create` starts it; its address."""
    with tempfile.TemporaryDirectory() as folder:
        [command] = make_server_commands(LocalModel(resolve(model, "instruct"), options), Workload())
        server = LocalServer(command, "", Path(folder, "log"))
        server.launch()
        try:
            server.wait_until_ready()
            yield server.address.url
        finally:
            server.stop()


def raw_tokens_per_second(url: str, requests: list[Request], length: int, in_flight: int) -> float:
    """Generated tokens/s of the server alone, prompts included, from the first request to the last answer."""

    async def measure() -> float:
        import httpx2

        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(timeout=None, trust_env=False, limits=limits) as client:
            model = (await client.get(f"{url}/v1/models")).json()["data"][0]["id"]
            waiting, tokens = iter(requests), 0

            async def work() -> None:
                nonlocal tokens
                for request in waiting:
                    body = {"model": model, "messages": list(request.messages), "max_tokens": length}
                    body |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "ignore_eos": True}
                    answer = (await client.post(f"{url}/v1/chat/completions", json=body)).json()
                    tokens += answer["usage"]["completion_tokens"]

            began = time.monotonic()
            await asyncio.gather(*(work() for _ in range(in_flight)))
            return tokens / (time.monotonic() - began)

    return asyncio.run(measure())


def measure_contention(model: str, engine: str) -> dict[str, float]:
    messages = [{"role": "user", "content": "Write a story about a lighthouse."}]
    from datacreate.engines.request import Sampling

    requests = [Request(number, messages, None, Sampling(64)) for number in range(8)]
    with running(model, EngineOptions.model_validate({"engine": engine, "max_num_seqs": 8})) as url:
        raw_tokens_per_second(url, requests, 16, 8)  # the prompts are read
        alone = raw_tokens_per_second(url, requests, 64, 8)
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            beside = raw_tokens_per_second(url, requests, 64, 8)
        finally:
            busy.kill()
    return {"alone": round(alone, 1), "beside_one": round(beside, 1), "kept": round(beside / alone, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["speed", "contention", []])
    parser.add_argument("--engine", choices=["llamacpp", "vllm"], default="llamacpp")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sets = sorted(flag for flag in cpu_flags() if flag.startswith(("avx", "amx", "fma")))
    figures: dict[str, Any] = {"engine": arguments.engine, "model": arguments.model, "instruction_sets": sets}
    for part in arguments.parts or ["speed", "contention"]:
        if part == "speed":
            figures[part] = measure_speed(arguments.model, arguments.engine, arguments.count, arguments.in_flight)
        else:
            figures[part] = measure_contention(arguments.model, arguments.engine)
        print(json.dumps({part: figures[part]}, indent=2), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
