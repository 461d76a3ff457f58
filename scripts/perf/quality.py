#!/usr/bin/env python3
"""Which use of a verifier makes the better student, and what it costs.

    scripts/perf/quality.py OUT [--benchmark creak]... [--example-seeds 1,2,3] [--count 100] [--seeds 1,2,3]

For each benchmark and formatting example it creates `--count` rows per arm, trains a small encoder with several
seeds and tests it on the benchmark. Without `--verifier` the generator verifies what it writes.

    off             no verification
    soft            the same rows, trained with the verifier's probabilities as labels
    drop            rows dropped for which another label is more probable
    pseudo-labels   fixed labels: texts written without a label, labeled by the verifier
    relabel         own options: answers replaced by the verifier's most probable one

`off` and `soft` share a run that only logs scores, so the seconds of `off` include scoring; its scoring tokens do not.
Prints Markdown: a table per benchmark, and the differences to `off`. The same command resumes. Needs imported
benchmarks and the checkpoints. docs/results.md has the results.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from datacreate.runs.directory import RunDirectory

KEEP, DROP = ("--verify", "keep"), ("--verify", "drop")


@dataclass(frozen=True)
class Arm:
    """A way to make and use a set."""

    run: str  # the run directory; arms with the same one share it
    create: tuple[object, ...]
    train: tuple[object, ...] = ()


BOTH = {"off": Arm("keep", KEEP), "soft": Arm("keep", KEEP, ("--soft-labels",))}
LABELS = {
    "drop": Arm("drop", (*DROP, "--label-noise-check", "off")),
    # No verifier is perfect, so the run always falls back.
    "pseudo-labels": Arm("pseudo-labels", (*DROP, "--label-noise-check", "1")),
}
OPTIONS = {"drop": Arm("drop", DROP), "relabel": Arm("relabel", ("--verify", "relabel"))}


@dataclass(frozen=True)
class Result:
    """An arm with one formatting example."""

    scores: list[float]  # chance-corrected x 100, one per training seed
    requests: int
    tokens: int  # generated
    scoring_tokens: int
    seconds: float
    agreed: float  # share of assigned answers that the verifier finds most probable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--benchmark", action="append", help="default: creak, boolq_closed and csqa")
    parser.add_argument("--example-seeds", default="1,2,3", help="each draws a formatting example")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seeds", default="1,2,3", help="of the trainings")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--max-length", type=int, default=256, help="tokens of the longest training row")
    parser.add_argument("--split", default="test", choices=["dev", "test"])
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--verifier", help="default: the model")
    parser.add_argument("--encoder", default="all-minilm-l6-v2")
    parser.add_argument("--url", action="append", default=[], help="servers that run already")
    options = parser.parse_args()
    differences: dict[str, list[float]] = defaultdict(list)
    for name in options.benchmark or ["creak", "boolq_closed", "csqa"]:
        results: dict[str, list[Result]] = defaultdict(list)
        for example_seed in options.example_seeds.split(","):
            folder = options.out / name / f"example-{example_seed}"
            for arm, result in measure(folder, name, example_seed, options).items():
                results[arm].append(result)
        print(table(name, results, options.count), flush=True)
        for arm, found in results.items():
            pairs = zip(found, results["off"], strict=True)
            differences[arm] += [mean(one.scores) - mean(other.scores) for one, other in pairs]
    print(difference_table(differences))


def measure(folder: Path, name: str, example_seed: str, options: argparse.Namespace) -> dict[str, Result]:
    """Arm -> its result for one formatting example."""
    models = ("--model", options.model, *(("--verifier", options.verifier) if options.verifier else ()))
    models += tuple(part for url in options.url for part in ("--url", url))
    common = ("--benchmark", name, "--example-seed", example_seed, "--count", options.count, *models)
    recipe = ("--seeds", options.seeds, "--epochs", options.epochs, "--max-length", options.max_length)
    datacreate("create", *common, "--run-dir", folder / "keep", *KEEP)
    has_labels = RunDirectory(folder / "keep").read_config().format.labels
    results: dict[str, Result] = {}
    for condition, arm in (BOTH | (LABELS if has_labels else OPTIONS)).items():
        run, out = folder / arm.run, folder / "trained" / condition
        if arm.run != "keep":
            datacreate("create", *common, "--run-dir", run, *arm.create)
        labels = ("--condition", condition, "--benchmark", name, "--encoder", options.encoder)
        datacreate("train", run, "--out", out, *labels, *recipe, *arm.train)
        found = datacreate("evaluate", out, "--benchmark", name, "--split", options.split, "--json")
        summary = RunDirectory(run).summary()
        verified = summary["verification"]
        results[condition] = Result(
            scores=[100 * evaluation["scores"]["score"] for evaluation in json.loads(found)],
            requests=summary["requests"],
            tokens=summary["generated_tokens"],
            scoring_tokens=0 if condition == "off" else verified["tokens"],
            seconds=summary["seconds"],
            agreed=verified["agreed"] or math.nan,
        )
    return results


def datacreate(verb: str, *arguments: object) -> str:
    """What one command prints; the script ends if it fails."""
    print("$ datacreate", verb, *arguments, file=sys.stderr)
    command = [sys.executable, "-m", "datacreate", verb, *map(str, arguments)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        sys.exit(ended.returncode)
    return ended.stdout


def table(name: str, results: dict[str, list[Result]], count: int) -> str:
    """A line per arm: means over formatting examples and seeds, and both standard deviations."""
    lines = [
        f"### {name}, {count} rows\n",
        "| arm | score | SD of examples | SD of seeds | verifier agrees | requests | generated tokens | scoring tokens "
        "| seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, found in results.items():
        means = [mean(result.scores) for result in found]
        seeds = [stdev(result.scores) for result in found if len(result.scores) > 1]
        cells: list[Any] = [arm, f"{mean(means):+.1f}", f"{stdev(means):.1f}" if len(means) > 1 else "–"]
        cells += [f"{mean(seeds):.1f}" if seeds else "–", f"{mean(result.agreed for result in found):.0%}"]
        for cost in ("requests", "tokens", "scoring_tokens", "seconds"):
            cells.append(f"{mean(getattr(result, cost) for result in found):,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def difference_table(differences: dict[str, list[float]]) -> str:
    """Score minus that of `off` with the same formatting example, and its 95 % t interval over examples."""
    from scipy.stats import t

    lines = ["### Difference to `off`\n", "| arm | pairs | difference | 95 % interval |", "|---|---|---|---|"]
    for arm, found in differences.items():
        if arm == "off":
            continue
        interval = "–"
        if len(found) > 1:
            half = t.ppf(0.975, len(found) - 1) * stdev(found) / math.sqrt(len(found))
            interval = f"{mean(found) - half:+.1f} to {mean(found) + half:+.1f}"
        lines.append(f"| {arm} | {len(found)} | {mean(found):+.1f} | {interval} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
