#!/usr/bin/env python3
"""Ways to write questions with five options on one llama.cpp server.

    scripts/perf/throughput.py [--model NAME] [--count 60] [--peer PYTHON] [--json FILE]

Usable rows/s against the same server, one after the other: `loop`, the plain guided loop (the example in the prompt,
the schema of one example, 16 requests at once); `create` unverified, and verified by the same model; with --peer,
NVIDIA Data Designer, installed in an environment of its own, whose python that option names. Usable: a new question,
five different options, the label among them. `raw`: the server's tokens/s without a grammar, before and after them.

The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engines import raw_tokens_per_second, running

from datacreate.engines import EngineOptions
from datacreate.engines.request import Request, Sampling
from datacreate.hardware import cpu_flags

EXAMPLE = Path(__file__).resolve().parents[2] / "data" / "examples" / "commonsense.json"
DATACREATE = [sys.executable, "-m", "datacreate"]
IN_FLIGHT = 16
PROMPT = f"Write one new example like this one, about something else. Answer with JSON.\n{EXAMPLE.read_text()}"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "question": {"type": "string"},
        "options": {"type": "array", "items": {"type": "string"}, "minItems": 5, "maxItems": 5},
        "label": {"type": "string"},
    },
    "required": ["question", "options", "label"],
    "additionalProperties": False,
}

PEER = """
import json, sys
import data_designer.config as dd
from data_designer.interface import DataDesigner

url, model, count, prompt, schema, out = sys.argv[1:]
parameters = dd.ChatCompletionInferenceParams(temperature=1.0, max_tokens=200, max_parallel_requests=16)
models = [dd.ModelConfig(alias="writer", model=model, provider="local", inference_parameters=parameters,
                         skip_health_check=True)]
builder = dd.DataDesignerConfigBuilder(model_configs=models)
topics = "home travel food sport school work animals weather music health money games".split()
builder.add_column(dd.SamplerColumnConfig(name="topic", sampler_type="category",
                                          params=dd.CategorySamplerParams(values=topics)))
builder.add_column(dd.LLMStructuredColumnConfig(name="row", model_alias="writer", output_format=json.loads(schema),
                                                prompt=prompt + "\\nTopic: {{ topic }}"))
provider = dd.ModelProvider(name="local", endpoint=url + "/v1", api_key="none")
designer = DataDesigner(artifact_path=out, model_providers=[provider])
made = designer.create(builder, num_records=int(count))
with open(out + "/rows.jsonl", "w") as file:
    for row in made.load_dataset()["row"]:
        row = json.loads(row) if isinstance(row, str) else row
        file.write(json.dumps({**row, "options": list(row["options"])}) + "\\n")
"""


def measure_writers(model: str, count: int, peer: str | None) -> dict[str, Any]:
    with running(model, EngineOptions(engine="llamacpp")) as url, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures: dict[str, Any] = {"raw": {"tokens_per_second": raw(url)}}
        figures["loop"] = timed(lambda: write_loop(url, count, folder / "loop.jsonl"))
        for verify in ("off", "keep"):
            run = folder / verify
            command = ["create", "--example", EXAMPLE, "--count", count, "--run-dir", run, "--url", url]
            options = ["--strategy", "tree", "--verify", verify, "--model", model, "--decontaminate", "none"]
            figures[f"create, {verify}"] = timed(lambda: start([*command, *options], run))  # noqa: B023
        if peer:
            out = folder / "peer"
            out.mkdir()
            words = [peer, "-c", PEER, url, served_model(url), count, PROMPT, json.dumps(SCHEMA), out]
            figures["Data Designer"] = timed(lambda: run_peer(words, out))
        figures["raw again"] = {"tokens_per_second": raw(url)}
    return figures


def timed(write: Callable[[], Path]) -> dict[str, Any]:
    began = time.monotonic()
    rows = write()
    seconds = time.monotonic() - began
    written = len(rows.read_text(encoding="utf-8").splitlines())
    kept = usable(rows)
    figures = {"seconds": round(seconds, 1), "rows": written, "usable": kept}
    figures["usable_per_second"] = round(kept / seconds, 3)
    print(rows, figures, file=sys.stderr)  # also if a later part fails
    return figures


def usable(rows: Path) -> int:
    """Rows with a new question, five different options, and a label that is one of them."""
    questions = set()
    for line in rows.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError, KeyError):
            row = json.loads(line)
            options = {option.strip().casefold() for option in row["options"]}
            if len(options) == 5 and row["label"].strip().casefold() in options:
                questions.add(" ".join(row["question"].casefold().split()))
    return len(questions)


def start(words: Sequence[object], run: Path) -> Path:
    subprocess.run([*DATACREATE, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return run / "train.jsonl"


def run_peer(words: Sequence[object], out: Path) -> Path:
    environment = {**os.environ, "NEMO_TELEMETRY_ENABLED": "false", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    subprocess.run([str(word) for word in words], check=True, env=environment, stdout=sys.stderr)
    return out / "rows.jsonl"


def served_model(url: str) -> str:
    import httpx2

    return str(httpx2.get(f"{url}/v1/models").json()["data"][0]["id"])


def raw(url: str) -> float:
    messages = [{"role": "user", "content": PROMPT}]
    requests = [Request(number, messages, None, Sampling(48)) for number in range(32)]
    return round(raw_tokens_per_second(url, requests, 48, IN_FLIGHT), 1)


def write_loop(url: str, count: int, out: Path) -> Path:
    """Rows by `IN_FLIGHT` requests at once until `count` answers are there; whatever they are."""

    async def work_all() -> None:
        import httpx2

        async with httpx2.AsyncClient(timeout=None, trust_env=False) as client:
            model, left = served_model(url), iter(range(count))
            schema = {"type": "json_schema", "json_schema": {"name": "row", "schema": SCHEMA, "strict": True}}

            async def work() -> None:
                for _ in left:
                    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 200}
                    body |= {"temperature": 1.0, "response_format": schema}
                    answer = (await client.post(f"{url}/v1/chat/completions", json=body)).json()
                    with out.open("a", encoding="utf-8") as file:
                        file.write(" ".join(answer["choices"][0]["message"]["content"].split()) + "\n")

            await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))

    asyncio.run(work_all())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--peer", metavar="PYTHON")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sets = sorted(flag for flag in cpu_flags() if flag.startswith(("avx", "amx", "fma")))
    figures: dict[str, Any] = {"model": arguments.model, "instruction_sets": sets}
    figures |= measure_writers(arguments.model, arguments.count, arguments.peer)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
