#!/usr/bin/env python3
"""What a corpus costs: the start with many passages, and examples per second with and without a corpus.

    scripts/perf/corpus.py start [--documents 35000]
    scripts/perf/corpus.py speed [--count 40] [--model NAME] [--url URL]

`start` writes documents of random sentences to a temporary folder and measures `create --dry-run` on them: passages,
wall and CPU seconds, peak memory. `speed` creates the same number of examples from the tutorial's formatting examples,
without and with its handbook as corpus, both without verification, and prints the ratio.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
EMAILS = ROOT / "data" / "tutorial" / "emails.csv"
HANDBOOK = ROOT / "data" / "tutorial" / "handbook"
LABELS = ("--labels", "topic=complaint,question,praise")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=["start", "speed"])
    parser.add_argument("--documents", type=int, default=35_000)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--url", help="a server that runs already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.part == "start":
            start(Path(folder), options.documents)
        else:
            speed(Path(folder), options)


def start(folder: Path, documents: int) -> None:
    """Measure the start with `documents` documents of about three passages each."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(2, 9))) for _ in range(20_000)]
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(documents):
            sentences = [" ".join(rng.choices(words, k=14)).capitalize() + "." for _ in range(20)]
            file.write(json.dumps({"text": " ".join(sentences)}) + "\n")
    began = time.monotonic()
    found = create(folder, "--corpus", folder / "corpus.jsonl", "--count", 100, "--dry-run", "--json")
    wall = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(next(line.strip() for line in found.splitlines() if "passages of" in line))
    print(f"{wall:.1f} s, {used.ru_utime + used.ru_stime:.1f} CPU s, peak {used.ru_maxrss / 1024:.0f} MB")


def speed(folder: Path, options: argparse.Namespace) -> None:
    """Create with and without a corpus, and print accepted examples per second."""
    common: tuple[object, ...] = (
        "--count",
        options.count,
        "--model",
        options.model,
        "--recipe",
        "fast",
        "--decontaminate",
        "none",
    )
    common += ("--url", options.url) if options.url else ()
    speeds = {}
    for name, corpus in {"without": (), "with": ("--corpus", HANDBOOK)}.items():
        run = folder / name
        create(folder, *corpus, *common, "--run-dir", run)
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        speeds[name] = summary["examples_per_second"]
        print(f"{name} corpus: {speeds[name]:.3f} accepted/s, rejected {summary['rejected']}", flush=True)
    print(f"ratio {speeds['with'] / speeds['without']:.2f}")


def create(folder: Path, *arguments: object) -> str:
    """What `datacreate create` prints; the script ends if it fails."""
    command = [sys.executable, "-m", "datacreate", "create", "--example", EMAILS, *LABELS, *arguments]
    ended = subprocess.run(list(map(str, command)), cwd=folder, stdout=subprocess.PIPE, text=True)
    if ended.returncode:
        sys.exit(ended.returncode)
    return ended.stdout


if __name__ == "__main__":
    main()
