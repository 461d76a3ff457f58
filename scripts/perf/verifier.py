#!/usr/bin/env python3
"""How often a verifier is right about human rows, before and after calibration.

    scripts/perf/verifier.py [--rows 300] [--benchmark creak]... [--model qwen2.5-coder-0.5b-instruct]...

Scores random test rows as `create` and `filter` do: without the label, with two option permutations. The first
`--calibration` rows give the calibration, the next `--rows` are counted. A row's own options are not calibrated.
Prints a Markdown table with 95 % intervals: Wilson's for accuracy, for the difference that of a paired mean. Needs
imported benchmarks and the checkpoints. docs/results.md has the results.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

from datacreate.benchmarks import find_benchmark, read_split
from datacreate.engines import EngineOptions
from datacreate.engines.factory import LocalModel, make_client, resolve_checkpoint
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import scoring_test
from datacreate.formats.example import Example, Json
from datacreate.formats.task_format import TaskFormat, load_format, specialize
from datacreate.prompts.label_scoring import make_label_prompt
from datacreate.verification import Probabilities, final_label, score_labels
from datacreate.verification.label_noise import FIRST_ROWS, calibrated, concordance, label_means

Scored = list[tuple[int, Probabilities]]
"""Of each row the index of its label, and the verifier's probabilities."""

COLUMNS = ("benchmark", "verifier", "rows", "right", "after calibration", "difference", "concordance")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--benchmark", action="append", help="default: creak, boolq_open, csqa and pubmedqa")
    parser.add_argument("--model", action="append", help="default: qwen2.5-coder-0.5b-instruct and -1.5b-instruct")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--calibration", type=int, default=FIRST_ROWS)
    parser.add_argument("--url", action="append", default=[], help="servers that run already, with all models")
    options = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for model in options.model or [f"qwen2.5-coder-{size}-instruct" for size in ("0.5b", "1.5b")]:
        settings = EngineOptions(url=tuple(options.url))
        with TemporaryDirectory() as folder:
            log = Path(folder) / "engine.log"
            local = LocalModel(resolve_checkpoint(model, settings), settings)
            client = make_client(local, count=options.rows, log=log)
            try:
                client.start([scoring_test()])
                for name in options.benchmark or ["creak", "boolq_open", "csqa", "pubmedqa"]:
                    print(measure(client, model, name, options.rows, options.calibration), flush=True)
            finally:
                client.close()


def measure(client: ModelClient, model: str, name: str, number: int, calibration: int) -> str:
    """A line of the table."""
    benchmark = find_benchmark(name)
    rows = read_split(benchmark, "test")
    rows = random.Random(0).sample(rows, min(len(rows), number + calibration))
    task_format = specialize(load_format(benchmark.format_name), Example(rows[0]))
    found = score(client, task_format, rows)
    first, rest = found[:calibration], found[calibration:]
    before = [is_right(assigned, probabilities) for assigned, probabilities in rest]
    after, agreement = before, None
    if task_format.labels:
        means = label_means(first, len(task_format.labels))
        rest = [(assigned, calibrated(probabilities, means)) for assigned, probabilities in rest]
        after = [is_right(assigned, probabilities) for assigned, probabilities in rest]
        agreement = concordance(rest)
    differences = [int(late) - int(early) for early, late in zip(before, after, strict=True)]
    cells = [name, model, str(len(rest)), share(before), share(after) if task_format.labels else "–"]
    cells += [difference(differences) if task_format.labels else "–", str(agreement or "–")]
    return f"| {' | '.join(cells)} |"


def score(client: ModelClient, task_format: TaskFormat, rows: Sequence[dict[str, Json]]) -> Scored:
    """The rows that the model scored, in order."""
    scored_by_letter = client.needs_letters(task_format.labels or ())
    asked = [(row, make_label_prompt(task_format, row, scored_by_letter=scored_by_letter)) for row in rows]
    label_prompts = [(prompt, prompt.text) for _, prompt in asked if prompt]
    found = score_labels(client, label_prompts, lambda _: None)
    used = [row for row, prompt in asked if prompt]
    return [
        (task_format.answers.right_index(row) or 0, scores) for row, scores in zip(used, found, strict=True) if scores
    ]


def is_right(assigned: int, probabilities: Probabilities) -> bool:
    return final_label("drop", assigned, probabilities) == assigned


def share(right: Sequence[bool]) -> str:
    """A share in percent with Wilson's interval."""
    n, p, z = len(right), mean(right), 1.96
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return f"{p:.1%} ({middle - half:.1%} to {middle + half:.1%})"


def difference(values: Sequence[int]) -> str:
    half = 1.96 * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return f"{100 * mean(values):+.1f} ({100 * (mean(values) - half):+.1f} to {100 * (mean(values) + half):+.1f})"


if __name__ == "__main__":
    main()
