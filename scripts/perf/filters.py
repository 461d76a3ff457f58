#!/usr/bin/env python3
"""How fast the filters are that look at everything accepted, and what they hold in memory.

    scripts/perf/filters.py [near] [semantic] [coverage] [--json FILE]

near      exact and near-duplicates on one core: examples/s at 10k, 100k, 1M, ratio of costs, bytes an example
semantic  semantic duplicates with all-minilm-l6-v2, 5 questions at a time; the same without the encoder
coverage  milliseconds a request of the queue that covers, of 384 dimensions

Without names all are run. Questions are made up of words as unequal in frequency as English ones;
one in ten is the last one with another word in one place.
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

from datacreate.checkpoints import resolve
from datacreate.filters.exact import ExactDuplicates
from datacreate.filters.near import NearDuplicates
from datacreate.filters.semantic import SemanticDuplicates
from datacreate.formats.example import Example
from datacreate.formats.text_normalization import normalize_text
from datacreate.formats.validate import Candidate
from datacreate.selection.accepted_vectors import AcceptedVectors
from datacreate.selection.embeddings import Embedder, SentenceEmbedder
from datacreate.selection.farthest_first import FarthestFirst
from datacreate.selection.queue import Parent

SIZES = (10_000, 100_000, 1_000_000)
NEAR = 0.7
ENCODER = "all-minilm-l6-v2"


def questions(seed: int, vocabulary: Sequence[str] | None = None) -> Iterator[str]:
    """11 to 21 words, the commonest as common as in English (Zipf); one in ten rephrases the last."""
    rng = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "ar", "en", "il")]
    known = vocabulary or ["".join(rng.choices(syllables, k=rng.randint(2, 3))) for _ in range(8000)]
    weights = np.cumsum([1 / (rank + 2.7) for rank in range(len(known))]).tolist()
    words: list[str] = []
    while True:
        if words and rng.random() < 0.1:
            words[rng.randrange(len(words))] = rng.choice(known)
        else:
            words = rng.choices(known, cum_weights=weights, k=rng.randint(11, 21))
        yield " ".join(words).capitalize() + "?"


def candidates(
    number: int, seed: int = 0, vocabulary: Sequence[str] | None = None
) -> Iterator[list[Candidate]]:
    """In pieces, so that making them is neither timed nor held."""
    texts = questions(seed, vocabulary)
    for begin in range(0, number, 5000):
        piece = [next(texts) for _ in range(min(5000, number - begin))]
        yield [Candidate(Example({"question": text}), text, normalize_text(text)) for text in piece]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def filter_near(number: int) -> dict[str, float]:
    """One pass in this process; costs in processor seconds."""
    exact, near = ExactDuplicates(), NearDuplicates(NEAR)
    seconds, dropped, accepted, before = 0.0, 0, 0, resident_bytes()
    for piece in candidates(number):
        began = time.process_time()
        for candidate in piece:
            if exact.match(candidate) or near.match(candidate):
                dropped += 1
            else:
                exact.add(candidate)
                near.add(candidate)
        seconds += time.process_time() - began
        accepted = number - dropped
    held = resident_bytes() - before
    return {"seconds": seconds, "dropped": dropped, "bytes_an_example": held / max(1, accepted)}


def measure_near() -> dict[str, Any]:
    rows = {}
    for number in SIZES:
        child = subprocess.run(
            [sys.executable, __file__, "--pass", str(number)], capture_output=True, text=True, check=True
        )
        rows[number] = json.loads(child.stdout)
    costs = {number: row["seconds"] / number for number, row in rows.items()}
    return {
        "examples_per_second": {number: round(1 / cost) for number, cost in costs.items()},
        "cost_at_1M_over_cost_at_10k": round(costs[SIZES[-1]] / costs[SIZES[0]], 2),
        "dropped": {number: row["dropped"] for number, row in rows.items()},
        "bytes_an_example": {number: round(row["bytes_an_example"]) for number, row in rows.items()},
    }


class Prepared:
    """An embedder whose vectors are there before: random ones of unit length, another for each text."""

    dimensions = 384

    def __init__(self, texts: int) -> None:
        rows = np.random.default_rng(0).normal(size=(texts, self.dimensions)).astype(np.float32)
        self._rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self._places: dict[str, int] = {}

    def encode(self, texts: Sequence[str]) -> Any:
        return self._rows[[self._places.setdefault(text, len(self._places)) for text in texts]]


def pass_semantic(
    embedder: Embedder, number: int, vocabulary: Sequence[str] | None = None
) -> tuple[float, int]:
    """Examples per second, embedded 5 at a time as a completion has them, and how many were dropped."""
    filter = SemanticDuplicates(0.9, AcceptedVectors(embedder))
    seconds, dropped = 0.0, 0
    for piece in candidates(number, 1, vocabulary):
        began = time.perf_counter()
        for start in range(0, len(piece), 5):
            chunk = piece[start : start + 5]
            embedder.encode([candidate.text for candidate in chunk])
            for candidate in chunk:
                if filter.match(candidate):
                    dropped += 1
                else:
                    filter.add(candidate)
        seconds += time.perf_counter() - began
    return number / seconds, dropped


def measure_semantic() -> dict[str, Any]:
    checkpoint = resolve(ENCODER, "encoder").path
    embedder = SentenceEmbedder(checkpoint)
    embedder.encode(["loads the encoder"])
    # Words of one token each: a question has then about as many tokens as a real one.
    listed = (checkpoint / "vocab.txt").read_text(encoding="utf-8").split()
    rate, dropped = pass_semantic(embedder, 3000, [word for word in listed if word.isalpha()][:8000])
    prepared = Prepared(50_000)
    before = resident_bytes()
    without, _ = pass_semantic(prepared, 40_000)
    return {
        "examples_per_second": round(rate),
        "dropped_of_3000": dropped,
        "examples_per_second_without_encoder_40k": round(without),
        "bytes_an_example_40k": round((resident_bytes() - before) / 40_000),
    }


def measure_coverage() -> dict[str, Any]:
    vectors = Prepared(20_000).encode([str(number) for number in range(20_000)])
    queue = FarthestFirst(Parent("", 0), 64, vectors.__getitem__, vectors[0], max_parent_uses=4)
    began, requests = time.perf_counter(), 4000
    places = []
    for _ in range(requests):
        while (place := queue.next()) is not None:
            places.append(place)
        queue.commit(places.pop(0), [Parent("", 1)] * 5, 5)
    return {"milliseconds_a_request": round((time.perf_counter() - began) / requests * 1000, 2)}


PARTS = {"near": measure_near, "semantic": measure_semantic, "coverage": measure_coverage}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--pass", dest="number", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.number:
        print(json.dumps(filter_near(options.number)))
        return
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
    figures = {}
    for part in options.parts or PARTS:
        figures[part] = PARTS[part]()
        print(f"{part}: {json.dumps(figures[part])}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
