#!/usr/bin/env python3
"""Measures the speed and memory of everything whose work grows with the number of accepted examples.

    scripts/perf/filters.py [near] [semantic] [coverage] [--sizes N,N,...] [--json FILE]

near      exact and near-duplicates on one core: examples per second and bytes per example at each size
semantic  semantic duplicates with all-minilm-l6-v2, 5 texts at a time; and the same without the model
coverage  milliseconds per request of the queue of the strategy coverage, 384 dimensions

Without names all parts run. Sizes are 10,000, 100,000 and 1,000,000 for near, and a hundredth of the last one
for the other parts. Texts are made of words that are as unequal in frequency as in English; one in ten is the
previous text with one other word.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datacreate.checkpoints.checkpoint import resolve
from datacreate.filters.exact import ExactDuplicates, ExactOptions
from datacreate.filters.filter import FilterResources
from datacreate.filters.near import NearDuplicates, NearOptions
from datacreate.filters.semantic import SemanticDuplicates, SemanticOptions
from datacreate.formats.candidate import Candidate
from datacreate.formats.example import Example
from datacreate.formats.text_normalization import normalize_text
from datacreate.selection.embeddings import Embedder, PassedVectors, SentenceEmbedder
from datacreate.selection.queue import FarthestFirstQueue, Parent

SIZES = (10_000, 100_000, 1_000_000)
MODEL = "all-minilm-l6-v2"


def texts(vocabulary: Sequence[str]) -> Iterator[str]:
    """Questions of 11 to 21 words with the word frequencies of English (Zipf)."""
    rng = random.Random(0)
    weights = np.cumsum([1 / (rank + 2.7) for rank in range(len(vocabulary))]).tolist()
    words: list[str] = []
    while True:
        if words and rng.random() < 0.1:
            words[rng.randrange(len(words))] = rng.choice(vocabulary)
        else:
            words = rng.choices(vocabulary, cum_weights=weights, k=rng.randint(11, 21))
        yield " ".join(words).capitalize() + "?"


def made_up_words() -> list[str]:
    rng = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "ar", "en", "il")]
    return ["".join(rng.choices(syllables, k=rng.randint(2, 3))) for _ in range(8000)]


def candidates(number: int, vocabulary: Sequence[str]) -> Iterator[list[Candidate]]:
    """In chunks, so that making them is neither timed nor counted as memory."""
    source = texts(vocabulary)
    for begin in range(0, number, 5000):
        chunk = [next(source) for _ in range(min(5000, number - begin))]
        yield [Candidate(Example({"question": text}), (text,), normalize_text(text), text) for text in chunk]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def filter_near(number: int) -> dict[str, float]:
    """One pass in this process; times are CPU seconds."""
    resources = FilterResources()
    exact, near = ExactDuplicates(ExactOptions(), resources), NearDuplicates(NearOptions(near=0.7), resources)
    seconds, rejected, before = 0.0, 0, resident_bytes()
    for chunk in candidates(number, made_up_words()):
        began = time.process_time()
        for candidate in chunk:
            if exact.find_problem(candidate) or near.find_problem(candidate):
                rejected += 1
            else:
                exact.add(candidate, number)
                near.add(candidate, number)
        seconds += time.process_time() - began
    memory = (resident_bytes() - before) / max(1, number - rejected)
    return {"seconds": seconds, "rejected": rejected, "bytes_per_example": memory}


def measure_near(sizes: Sequence[int]) -> dict[str, Any]:
    rows = {}
    for number in sizes:
        command = [sys.executable, __file__, "--near-pass", str(number)]
        rows[number] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    seconds = {number: row["seconds"] / number for number, row in rows.items()}
    return {
        "examples_per_second": {number: round(1 / cost) for number, cost in seconds.items()},
        "cost_at_last_size_over_first": round(seconds[sizes[-1]] / seconds[sizes[0]], 2),
        "rejected": {number: row["rejected"] for number, row in rows.items()},
        "bytes_per_example": {number: round(row["bytes_per_example"]) for number, row in rows.items()},
    }


class PreparedVectors:
    """An embedder that costs nothing: a prepared random unit vector for each different text."""

    dimensions = 384

    def __init__(self, texts: int) -> None:
        rows = np.random.default_rng(0).normal(size=(texts, self.dimensions)).astype(np.float32)
        self._rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self._places: dict[str, int] = {}

    def encode(self, texts: Sequence[str]) -> Any:
        return self._rows[[self._places.setdefault(text, len(self._places)) for text in texts]]


def filter_semantic(embedder: Embedder, number: int, vocabulary: Sequence[str]) -> float:
    """Examples per second, embedded 5 at a time as in a completion."""
    duplicates = SemanticDuplicates(SemanticOptions(semantic=0.9), FilterResources(vectors=PassedVectors(embedder)))
    seconds = 0.0
    for chunk in candidates(number, vocabulary):
        began = time.perf_counter()
        for start in range(0, len(chunk), 5):
            completion = chunk[start : start + 5]
            embedder.encode([candidate.embedding_text for candidate in completion])
            for candidate in completion:
                if not duplicates.find_problem(candidate):
                    duplicates.add(candidate, number)
        seconds += time.perf_counter() - began
    return number / seconds


def measure_semantic(sizes: Sequence[int]) -> dict[str, Any]:
    number = max(1, sizes[-1] // 100)
    folder = resolve(MODEL, "encoder").path
    embedder = SentenceEmbedder(folder)
    embedder.encode(["loads the model"])
    # Words of one token each: a text then has about as many tokens as a real question.
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split()
    real = filter_semantic(embedder, number, [word for word in vocabulary if word.isalpha()][:8000])
    prepared, before = PreparedVectors(number + 1), resident_bytes()
    without_model = filter_semantic(prepared, number, made_up_words())
    return {
        "examples": number,
        "examples_per_second": round(real),
        "examples_per_second_without_model": round(without_model),
        "bytes_per_example_without_model": round((resident_bytes() - before) / number),
    }


def measure_coverage(sizes: Sequence[int]) -> dict[str, Any]:
    requests = max(1, sizes[-1] // 500)
    vectors = PreparedVectors(5 * requests).encode([str(number) for number in range(5 * requests)])
    queue = FarthestFirstQueue([Parent(0, "", 0)], vectors.__getitem__, max_parent_uses=4)
    began = time.perf_counter()
    for request in range(requests):
        queue.next(request, is_idle=True)
        children = [Parent(5 * request + child, "", 1) for child in range(1, 6) if 5 * request + child < len(vectors)]
        queue.add_result(request, children, 5)
    milliseconds = (time.perf_counter() - began) / requests * 1000
    return {"requests": requests, "milliseconds_per_request": round(milliseconds, 2)}


PARTS = {"near": measure_near, "semantic": measure_semantic, "coverage": measure_coverage}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--sizes", metavar="N,N,...", default=",".join(map(str, SIZES)))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    parser.add_argument("--near-pass", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.near_pass:
        print(json.dumps(filter_near(options.near_pass)))
        return
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
    sizes = [int(size) for size in options.sizes.split(",")]
    results = {}
    for part in options.parts or PARTS:
        results[part] = PARTS[part](sizes)
        print(f"{part}: {json.dumps(results[part])}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
