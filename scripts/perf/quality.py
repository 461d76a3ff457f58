#!/usr/bin/env python3
"""What each step of quality is worth: same generator, same number of rows, same encoder.

    scripts/perf/quality.py OUT [--benchmark creak] [--benchmark csqa] [--count 200] [--seeds 1,2,3]

For each benchmark three or four sets are created (each can be stopped; the same command goes on):

    paper      `--method paper`, strategy tree
    pool       labels dealt, quotas, exact repeats alone out; what a verifier says of each row is noted
    gated      near-duplicates out, verified, behind the gate
    coverage   the same with the strategy coverage

From the pool come the arms `dealt` (its first rows), `near` (near-duplicates out) and `verified` (and
what the verifier does not hold for right out, its leaning to one label corrected as behind the gate),
and beside each filter an arm that lost as many rows at random. `human` are human rows of the same
number. A fixed label set is balanced by quota in every arm but `paper`. Every arm is fine-tuned with
several seeds and measured on the benchmark's test split; `datacreate report` makes the table. Needs
imported benchmarks and the checkpoints.
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

from datacreate.filters.base import FilterInputs
from datacreate.filters.registry import FilterSettings, make_filters
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
POOL = 2.25  # rows of the pool for each row of an arm
THRESHOLD = 0.5
NEAR = 0.7


@dataclass(frozen=True)
class PoolRow:
    """A row of the pool, whether it nearly repeats an earlier one, and its answer's probability."""

    values: dict[str, Any]
    repeats: bool
    held: float


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("out", type=Path)
    options.add_argument("--benchmark", action="append", help="default: creak, csqa and bioasq")
    options.add_argument("--count", type=int, default=200)
    options.add_argument("--seeds", default="1,2,3")
    options.add_argument("--epochs", type=int, default=10)
    options.add_argument("--max-length", type=int, help="tokens of the longest training row")
    options.add_argument("--example-seed", type=int, help="draws the formatting example")
    options.add_argument("--without", action="append", default=[], help="arms to leave out")
    told = options.parse_args()
    trained: list[Path] = []
    for name in told.benchmark or ["creak", "csqa", "bioasq"]:
        folder = told.out / name
        sources = conditions(folder, name, told.count, told.example_seed, told.without)
        for condition, source in sources.items():
            place = folder / "trained" / condition
            rows = ("--count", told.count) if condition == "human" else ()
            how = ("--seeds", told.seeds, "--epochs", told.epochs, *given("--max-length", told.max_length))
            what = ("--out", place, "--condition", condition, "--benchmark", name, "--encoder", ENCODER)
            datacreate("train", source, *what, *how, *rows)
            datacreate("evaluate", place, "--benchmark", name)
            trained.append(place)
    datacreate("report", *trained, "--out", told.out / "report")
    print((told.out / "report" / "report.md").read_text(encoding="utf-8"))


def given(option: str, value: int | None) -> tuple[object, ...]:
    """An option, where there is a value for it."""
    return () if value is None else (option, value)


def datacreate(verb: str, *arguments: object) -> None:
    """One command, as a user types it; the script ends where it fails."""
    command = [sys.executable, "-m", "datacreate", verb, *map(str, arguments)]
    print("$ datacreate", verb, *arguments, file=sys.stderr)
    if code := subprocess.run(command, stdout=subprocess.DEVNULL).returncode:
        sys.exit(code)


def conditions(
    folder: Path, name: str, count: int, example_seed: int | None, without: Sequence[str]
) -> dict[str, str | Path]:
    """The arms' sources by name, made if they are not there."""
    made: dict[str, str | Path] = {"human": name}
    common = ("--benchmark", name, *given("--example-seed", example_seed), "--model", WRITER)
    judged = ("--verifier", VERIFIER, "--verify", "drop", "--near", NEAR)
    wanted: dict[str, tuple[int, tuple[object, ...]]] = {
        # A level's order is known when it begins: more requests at once change nothing but the time.
        "paper": (count, ("--method", "paper", "--concurrency", 24)),
        "pool": (
            round(POOL * count),
            ("--verifier", VERIFIER, "--verify", "keep", "--decontaminate", "none"),
        ),
        "gated": (count, judged),
        "coverage": (count, (*judged, "--strategy", "coverage", "--embedding-model", ENCODER)),
    }
    for condition, (number, told) in wanted.items():
        if condition not in without:
            datacreate("create", *common, "--count", number, "--run-dir", folder / condition, *told)
            made[condition] = folder / condition
    if "pool" in made:
        made |= from_pool(RunDirectory(folder / "pool"), folder, count)
        del made["pool"]
    return {condition: source for condition, source in made.items() if condition not in without}


def from_pool(run: RunDirectory, folder: Path, count: int) -> dict[str, str | Path]:
    """The arms that are parts of the pool, as files."""
    format = run.read_config().format
    rows = list(pool_rows(run, format))
    near = [row for row in rows if not row.repeats]
    verified = [row for row in near if row.held >= THRESHOLD]
    rng = random.Random(0)
    parts = {
        "dealt": rows,
        "near": near,
        "near at random": some(rows, len(near), rng),
        "verified": verified,
        "verified at random": some(near, len(verified), rng),
    }
    # Each filter and its control with as many rows as both have.
    most = {
        "near": min(len(taken(parts[condition], count, format)) for condition in ("near", "near at random")),
        "verified": min(
            len(taken(parts[condition], count, format)) for condition in ("verified", "verified at random")
        ),
    }
    made: dict[str, str | Path] = {}
    for condition, part in parts.items():
        path = folder / f"{condition.replace(' ', '-')}.jsonl"
        kept = taken(part, most.get(condition.partition(" ")[0], count), format)
        path.write_text("".join(json.dumps(row.values) + "\n" for row in kept), encoding="utf-8")
        made[condition.replace(" ", "-")] = path
        print(
            f"{folder.name} {condition}: {len(part)} of {len(rows)} rows left, {len(kept)} taken",
            file=sys.stderr,
        )
    return made


def pool_rows(run: RunDirectory, format: TaskFormat) -> Iterable[PoolRow]:
    filters = make_filters(FilterSettings(near=NEAR, decontaminate=()), FilterInputs())
    for values, held in zip(run.examples(), verdicts(run, format), strict=True):
        seen = Candidate.of(values, format)
        repeats = any(each.match(seen) for each in filters)
        if not repeats:
            for each in filters:
                each.add(seen)
        yield PoolRow(values, repeats, held[assigned_label(format, values)] if held else 0.0)


def verdicts(run: RunDirectory, format: TaskFormat) -> list[Probabilities]:
    """The verifier's probabilities, () for none; of fixed labels without its leaning.

    For that a gate is shown all rows, one that none pass.
    """
    said = [each or () for each in run.verdicts()]
    if not format.labels:
        return said
    gate = LabelNoiseCheck(len(format.labels), len(said), min_auc=1.0)
    for values, each in zip(run.examples(), said, strict=True):
        gate.add(Scored(assigned_label(format, values), 0, True, each))
    return [gate.calibrated(each) for each in said]


def some(rows: list[PoolRow], number: int, rng: random.Random) -> list[PoolRow]:
    """So many of the rows, in their order."""
    return [rows[place] for place in sorted(rng.sample(range(len(rows)), number))]


def taken(rows: list[PoolRow], count: int, format: TaskFormat) -> list[PoolRow]:
    """The first rows, `count` if there are as many; of a fixed label set as many of each label."""
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
