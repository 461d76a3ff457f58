#!/usr/bin/env python3
"""Which use of a verifier makes the better student, and what it costs.

    scripts/perf/quality.py OUT [--benchmark creak]... [--example-seeds 1,2,3] [--count 100] [--seeds 1,2,3]

For each benchmark and formatting example it creates one pool of 1.5 times `--count` examples with logged scores, takes
the sets of most arms from it, trains a small encoder with several seeds on each and tests it on the benchmark. Without
`--verifier` the generator verifies what it writes.

    off             the examples as they were written
    soft            the same examples, trained with the verifier's probabilities as labels
    drop            examples for which no other answer is more probable
    relabel         answers replaced by the verifier's most probable one
    pseudo-labels   fixed labels only, a run of its own: texts written without a label, labeled by the verifier

All sets have `--count` examples; `drop` has fewer if the pool does. Tokens are those that a set of this size costs:
`off` has no scoring, `drop` pays for what it drops. Prints Markdown: a table per benchmark, and the differences to
`off`. The same command resumes. Needs imported benchmarks and the checkpoints. docs/results.md has the results.
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

POOL = 1.5
"""Examples in the pool per example of a set."""


@dataclass(frozen=True)
class Result:
    """An arm with one formatting example."""

    scores: list[float]  # chance-corrected x 100, one per training seed
    rows: int
    tokens: float  # generated
    scoring_tokens: float
    agreed: float  # share of its answers that the verifier found most probable before the arm changed them


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
    common = ("--benchmark", name, "--example-seed", example_seed, *models)
    pool = create(folder / "pool", *common, "--count", round(POOL * options.count), "--verify", "keep")
    format = pool.read_config().format
    found = list(zip(pool.examples(), pool.verifier_probabilities(), strict=False))
    judged = [(row, probabilities.index(max(probabilities))) for row, probabilities in found if probabilities]
    agreed = [row for row, best in judged if best == format.answers.chosen(row)]
    sources = {
        "off": write(folder / "off.jsonl", [row for row, _ in found]),
        "soft": pool.path,
        "drop": write(folder / "drop.jsonl", agreed),
        "relabel": write(
            folder / "relabel.jsonl", [format.answers.with_choice(row, best) for row, best in judged]
        ),
    }
    summary = pool.summary()
    tokens, scoring = (
        n / len(found) for n in (summary["generated_tokens"], summary["verification"]["tokens"])
    )
    costs = dict.fromkeys(sources, (tokens, scoring, len(agreed) / len(found))) | {
        "off": (tokens, 0, len(agreed) / len(found)),
        "drop": (tokens * len(found) / len(agreed), scoring * len(found) / len(agreed), 1.0),
    }
    if format.labels:
        # No verifier is perfect, so the run always falls back.
        run = create(folder / "pseudo", *common, "--count", options.count, "--label-noise-check", 1)
        sources["pseudo-labels"], summary = run.path, run.summary()
        costs["pseudo-labels"] = (
            summary["generated_tokens"] / options.count,
            summary["verification"]["tokens"] / options.count,
            math.nan,
        )
    results: dict[str, Result] = {}
    for arm, source in sources.items():
        out, rows = (
            folder / "trained" / arm,
            min(options.count, len(agreed) if arm == "drop" else options.count),
        )
        reads = ("--format", format.name) if source.is_file() else ()
        datacreate(
            *(
                "train",
                source,
                "--out",
                out,
                "--condition",
                arm,
                "--benchmark",
                name,
                "--encoder",
                options.encoder,
            ),
            *("--count", rows, "--seeds", options.seeds, "--epochs", options.epochs),
            *("--max-length", options.max_length, *reads, *(("--soft-labels",) if arm == "soft" else ())),
        )
        evaluated = datacreate("evaluate", out, "--benchmark", name, "--split", options.split, "--json")
        scores = [100 * evaluation["scores"]["score"] for evaluation in json.loads(evaluated)]
        results[arm] = Result(scores, rows, rows * costs[arm][0], rows * costs[arm][1], costs[arm][2])
    return results


def create(folder: Path, *arguments: object) -> RunDirectory:
    """A finished run."""
    datacreate("create", *arguments, "--run-dir", folder)
    return RunDirectory(folder)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The path, with the rows in it."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


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
        "| arm | score | SD of examples | SD of seeds | verifier agrees | rows | generated tokens | scoring tokens |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, found in results.items():
        means = [mean(result.scores) for result in found]
        seeds = [stdev(result.scores) for result in found if len(result.scores) > 1]
        cells: list[Any] = [arm, f"{mean(means):+.1f}", f"{stdev(means):.1f}" if len(means) > 1 else "–"]
        cells += [f"{mean(seeds):.1f}" if seeds else "–", f"{mean(result.agreed for result in found):.0%}"]
        for cost in ("rows", "tokens", "scoring_tokens"):
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
