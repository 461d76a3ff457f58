#!/usr/bin/env python3
"""What each quality step is worth: same generator, same number of rows, same encoder.

    scripts/perf/quality.py OUT [--benchmark creak] [--benchmark csqa] [--count 200] [--seeds 1,2,3]

For each benchmark it creates four sets (the same command resumes):

    paper      `--method paper`, strategy tree
    pool       assigned labels, label quotas, only exact duplicates removed; the verifier scores each row
    checked    near-duplicates removed, verified, with the label-noise check
    coverage   the same with the strategy coverage

and takes these conditions from the pool: `assigned` (its first rows), `near` (near-duplicates removed),
`verified` (and rows that the verifier rejects removed, its bias to one label corrected as by the label-noise
check), and for each filter a control with as many rows removed at random. `human` is as many human rows. Fixed
labels are balanced by quota in every condition but `paper`. Every condition is fine-tuned with several seeds and
tested on the benchmark's test split; `datacreate report` makes the tables. Needs imported benchmarks and the
checkpoints. docs/results.md has the results.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datacreate.filters.base import FilterInputs, FilterSettings
from datacreate.filters.registry import make_filters
from datacreate.formats.example import field_at
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.validate import Candidate
from datacreate.prompts.label_scoring import assigned_label
from datacreate.runs.directory import RunDirectory
from datacreate.verification.label_noise import LabelNoiseCheck
from datacreate.verification.quotas import Quotas
from datacreate.verification.scoring import Probabilities, Scored

WRITER = "qwen2.5-coder-0.5b-instruct"
VERIFIER = "qwen2.5-coder-1.5b-instruct"
ENCODER = "all-minilm-l6-v2"
POOL = 2.25  # rows of the pool per row of a condition
THRESHOLD = 0.5
NEAR = 0.7


@dataclass(frozen=True)
class PoolRow:
    """A row of the pool, whether it nearly repeats an earlier row, and its answer's probability."""

    values: dict[str, Any]
    is_duplicate: bool
    probability: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--benchmark", action="append", help="default: creak, csqa and bioasq")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--max-length", type=int, help="tokens of the longest training row")
    parser.add_argument("--example-seed", type=int, help="draws the formatting example")
    parser.add_argument("--without", action="append", default=[], help="a condition to omit")
    options = parser.parse_args()
    trained: list[Path] = []
    for name in options.benchmark or ["creak", "csqa", "bioasq"]:
        folder = options.out / name
        sources = conditions(folder, name, options.count, options.example_seed, options.without)
        for condition, source in sources.items():
            out = folder / "trained" / condition
            rows = ("--count", options.count) if condition == "human" else ()
            length = optional("--max-length", options.max_length)
            recipe = ("--seeds", options.seeds, "--epochs", options.epochs, *length)
            labels = ("--condition", condition, "--benchmark", name, "--encoder", ENCODER)
            datacreate("train", source, "--out", out, *labels, *recipe, *rows)
            datacreate("evaluate", out, "--benchmark", name)
            trained.append(out)
    datacreate("report", *trained, "--out", options.out / "report")
    print((options.out / "report" / "report.md").read_text(encoding="utf-8"))


def optional(option: str, value: int | None) -> tuple[object, ...]:
    """An option, if it has a value."""
    return () if value is None else (option, value)


def datacreate(verb: str, *arguments: object) -> None:
    """Run one command; the script ends if it fails."""
    command = [sys.executable, "-m", "datacreate", verb, *map(str, arguments)]
    print("$ datacreate", verb, *arguments, file=sys.stderr)
    if code := subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        sys.exit(code)


def conditions(
    folder: Path, name: str, count: int, example_seed: int | None, without: Sequence[str]
) -> dict[str, str | Path]:
    """Condition -> its training rows (a run, a file, or a benchmark's name), created if necessary."""
    made: dict[str, str | Path] = {"human": name}
    common = ("--benchmark", name, *optional("--example-seed", example_seed), "--model", WRITER)
    checked = ("--verifier", VERIFIER, "--verify", "drop", "--near", NEAR)
    runs: dict[str, tuple[int, tuple[object, ...]]] = {
        # A tree level's order is fixed when it begins: concurrency changes only the time.
        "paper": (count, ("--method", "paper", "--concurrency", 24)),
        "pool": (
            round(POOL * count),
            ("--verifier", VERIFIER, "--verify", "keep", "--decontaminate", "none"),
        ),
        "checked": (count, checked),
        "coverage": (count, (*checked, "--strategy", "coverage", "--embedding-model", ENCODER)),
    }
    for condition, (number, options) in runs.items():
        if condition not in without:
            datacreate("create", *common, "--count", number, "--run-dir", folder / condition, *options)
            made[condition] = folder / condition
    if "pool" in made:
        made |= from_pool(RunDirectory(folder / "pool"), folder, count)
        del made["pool"]
    return {condition: source for condition, source in made.items() if condition not in without}


def from_pool(run: RunDirectory, folder: Path, count: int) -> dict[str, str | Path]:
    """The conditions that are parts of the pool, as files. A filter and its control have as many rows."""
    format = run.read_config().format
    rows = list(pool_rows(run, format))
    near = [row for row in rows if not row.is_duplicate]
    verified = [row for row in near if row.probability >= THRESHOLD]
    rng = random.Random(0)
    parts = {
        "assigned": rows,
        "near": near,
        "near-control": sample(rows, len(near), rng),
        "verified": verified,
        "verified-control": sample(near, len(verified), rng),
    }
    made: dict[str, str | Path] = {}
    for condition, part in parts.items():
        group = [parts[name] for name in parts if name.startswith(condition.removesuffix("-control"))]
        rows_each = min(len(first_rows(each, count, format)) for each in group)
        kept = first_rows(part, rows_each, format)
        path = made[condition] = folder / f"{condition}.jsonl"
        path.write_text("".join(json.dumps(row.values) + "\n" for row in kept), encoding="utf-8")
        print(
            f"{folder.name} {condition}: {len(part)} of {len(rows)} rows, {len(kept)} used", file=sys.stderr
        )
    return made


def pool_rows(run: RunDirectory, format: TaskFormat) -> Iterable[PoolRow]:
    """The rows of the pool in order."""
    filters = make_filters(FilterSettings(near=NEAR, decontaminate=()), FilterInputs())
    for values, probabilities in zip(run.examples(), verdicts(run, format), strict=True):
        candidate = Candidate.of(values, format)
        is_duplicate = any(each.match(candidate) for each in filters)
        if not is_duplicate:
            for each in filters:
                each.add(candidate)
        probability = probabilities[assigned_label(format, values)] if probabilities else 0.0
        yield PoolRow(values, is_duplicate, probability)


def verdicts(run: RunDirectory, format: TaskFormat) -> list[Probabilities]:
    """The verifier's probabilities of each row, () for none; for fixed labels without its bias to one label.

    A label-noise check that sees all rows, and that none can pass, measures the bias.
    """
    found = [each or () for each in run.verifier_probabilities()]
    if not format.labels:
        return found
    check = LabelNoiseCheck(len(format.labels), len(found), min_auc=1.0)
    for values, each in zip(run.examples(), found, strict=True):
        check.add(Scored(assigned_label(format, values), 0, True, each))
    return [check.calibrated(each) for each in found]


def sample(rows: list[PoolRow], number: int, rng: random.Random) -> list[PoolRow]:
    """`number` random rows in their order."""
    return [rows[index] for index in sorted(rng.sample(range(len(rows)), number))]


def first_rows(rows: list[PoolRow], count: int, format: TaskFormat) -> list[PoolRow]:
    """The first `count` rows (fewer if there are fewer); of a fixed label set as many of each label."""
    if not format.labels or format.roles.answer is None:
        return rows[:count]
    path = format.roles.answer
    labels = [str(field_at(row.values, path)) for row in rows]
    rarest = min(labels.count(str(label)) for label in format.labels)
    quotas = Quotas(format.labels, min(count, rarest * len(format.labels)))
    kept: list[PoolRow] = []
    for row in rows:
        label = field_at(row.values, path)
        if quotas.remaining(label):
            quotas.add(label)
            kept.append(row)
    return kept


if __name__ == "__main__":
    main()
