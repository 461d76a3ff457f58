"""What the rows of a run are like: shortcuts and diversity, beside the human train set's.

Computed when asked for, from the log and the imported benchmark; bounded samples, drawn by seed. The result
is a document of plain JSON (shares in [0, 1]):

    {"rows": 500, "shortcuts": [{"name", "score", "chance", "rows", "warning"}, ...], "no_shortcuts": null or
     why, "diversity": {...} or null, "passage_words": 91.0 or null,
     "human": null or {"benchmark", "split", and the same keys}}
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import mean
from typing import Any

from datacreate.benchmarks import find_benchmark, has_split, read_split
from datacreate.errors import BenchmarkError
from datacreate.formats.example import Json, field_at
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.text_normalization import words
from datacreate.metrics.diversity import MOST_TEXTS, diversity
from datacreate.metrics.shortcuts import MOST_ROWS, shortcuts, why_none
from datacreate.metrics.text_similarity import Likeness, WordOverlap
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import Commit

Rows = Sequence[Mapping[str, Json]]

LARGEST_FAMILY = 0.2
"""Share of the rows above which the children of one parent count as several families, one per request:
naive has one parent alone, and siblings of different requests have no more in common than any two rows."""


class DatasetMetrics:
    """Appraises runs, and each human set that they are held against once."""

    def __init__(self, likeness: Likeness | None = None, seed: int = 0) -> None:
        self.likeness = likeness or WordOverlap()
        self.seed = seed
        self._human: dict[tuple[str, str, int, int], dict[str, Any]] = {}

    def run(self, directory: RunDirectory) -> dict[str, Any]:
        """The document of a run. Raises RunError or LogDamaged if it cannot be read."""
        config = directory.read_config()
        rows, families = sampled(directory.commits(), self.seed)
        return self.rows(config.format, rows, families, config.spec.example, config.spec.benchmark)

    def rows(
        self,
        format: TaskFormat,
        rows: Rows,
        families: Sequence[Hashable] | None,
        example: Mapping[str, Json],
        benchmark: str | None,
    ) -> dict[str, Any]:
        """The document of rows of one format, made from `example`.

        Diversity depends on how many texts there are: where there is a human set, both are measured at the
        size of the smaller. Shortcuts of this set rest on all rows that are looked at, those of the human
        set on as many or, where there are fewer, on all.
        """
        human = _human_rows(benchmark)
        texts = min(len(rows), MOST_TEXTS, *([len(human)] if human else []))
        document = self._set(format, rows, families, example, texts)
        document["human"] = None
        if human and rows and benchmark:
            key = (benchmark, format.digest, len(rows), texts)
            if key not in self._human:
                same = random.Random(self.seed).sample(human, min(len(rows), len(human)))
                found = self._set(format, same, None, example, texts)
                self._human[key] = {"benchmark": benchmark, "split": "train", **found}
            document["human"] = self._human[key]
        return document

    def _set(
        self,
        format: TaskFormat,
        rows: Rows,
        families: Sequence[Hashable] | None,
        example: Mapping[str, Json],
        texts: int,
    ) -> dict[str, Any]:
        found = shortcuts(format, rows, families, self.seed)
        different = diversity(
            [text for values in rows if (text := _text(format, values))],
            self.likeness,
            example=_text(format, example) or None,
            number=texts,
            seed=self.seed,
        )
        return {
            "rows": len(rows),
            "shortcuts": [asdict(one) for one in found],
            "no_shortcuts": None if found else why_none(format) or "there are too few rows",
            "diversity": asdict(different) if different else None,
            "passage_words": _passage_words(format, rows),
        }


def sampled(commits: Iterable[Commit], seed: int) -> tuple[list[dict[str, Json]], list[Hashable]]:
    """At most `MOST_ROWS` accepted rows and the family of each, drawn in one pass (reservoir sampling)."""
    rng, seen = random.Random(seed), 0
    kept: list[tuple[dict[str, Json], str, int]] = []
    for commit in commits:
        for values in commit.accepted:
            seen += 1
            row = (values, commit.parent, commit.request)
            if len(kept) < MOST_ROWS:
                kept.append(row)
            elif (place := rng.randrange(seen)) < MOST_ROWS:
                kept[place] = row
    children = Counter(parent for _, parent, _ in kept)
    families: list[Hashable] = [
        (parent, request) if children[parent] > LARGEST_FAMILY * len(kept) else parent
        for _, parent, request in kept
    ]
    return [values for values, _, _ in kept], families


def _human_rows(benchmark: str | None) -> list[dict[str, Json]]:
    """The human train set; empty where there is none here."""
    if benchmark is None:
        return []
    try:
        found = find_benchmark(benchmark)
        return read_split(found, "train") if has_split(found, "train") else []
    except BenchmarkError:  # unknown by now, or damaged: `benchmarks verify` says so
        return []


def _text(format: TaskFormat, values: Mapping[str, Json]) -> str:
    try:
        return format.text_of(values)
    except (KeyError, TypeError):  # a human row that is not quite of the run's format
        return ""


def _passage_words(format: TaskFormat, rows: Rows) -> float | None:
    """The mean number of words of the passages that are looked at."""
    if format.roles.context is None:
        return None
    lengths = []
    for values in rows[:MOST_TEXTS]:
        try:
            passage = field_at(values, format.roles.context)
        except (KeyError, TypeError):
            continue
        if isinstance(passage, str) and passage:
            lengths.append(len(words(passage)))
    return mean(lengths) if lengths else None
