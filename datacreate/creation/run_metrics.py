"""Measures shortcuts and diversity of a run's rows, and of the human train set for comparison.

They are computed on demand from the log and the imported benchmark, on bounded samples drawn by seed.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterable, Mapping, Sequence
from statistics import mean

from datacreate.benchmarks import find_benchmark, has_split, read_split
from datacreate.errors import BenchmarkError
from datacreate.filters.filter import FilterResources
from datacreate.filters.near import NearDuplicates, NearOptions
from datacreate.formats.candidate import Candidate
from datacreate.formats.example import Json
from datacreate.formats.task_format import TaskFormat
from datacreate.formats.text_normalization import words
from datacreate.metrics import MAX_ROWS, NEAR_THRESHOLD, HumanMetrics, Metrics, SetMetrics
from datacreate.metrics.diversity import MAX_TEXTS, measure_diversity
from datacreate.metrics.shortcuts import measure_shortcuts, text_and_passage
from datacreate.runs.directory import RunDirectory
from datacreate.runs.log import Commit

Rows = Sequence[Mapping[str, Json]]


def measure_run(directory: RunDirectory) -> Metrics:
    """The metrics of a run. Raises RunError or LogDamaged if it cannot be read."""
    config = directory.read_config()
    rows, families = sampled(directory.commits())
    return measure_rows(config.format, rows, families, config.spec.examples, config.spec.benchmark)


def measure_rows(
    task_format: TaskFormat, rows: Rows, families: Sequence[Hashable] | None, examples: Rows, benchmark: str | None
) -> Metrics:
    """The metrics of rows of one format, made from the formatting `examples`.

    Diversity depends on the number of texts, so both sets are measured at the size of the smaller one.
    Shortcuts use all sampled rows of this set, and as many of the human set or all that it has.
    """
    count, human = len(rows), None
    if benchmark and rows and (human_rows := _human_rows(benchmark)):
        count = min(len(rows), len(human_rows))
        sample = random.Random(0).sample(human_rows, count)
        human = HumanMetrics(benchmark=benchmark, **vars(_measure_set(task_format, examples, count, sample, None)))
    measured = vars(_measure_set(task_format, examples, count, rows, families))
    return Metrics(human=human, near_duplicates=_count_near_duplicates(task_format, rows), **measured)


def _count_near_duplicates(task_format: TaskFormat, rows: Rows) -> int:
    """How many rows the filter for near-duplicates rejects."""
    near = NearDuplicates(NearOptions(near=NEAR_THRESHOLD), FilterResources())
    rejected = 0
    for number, values in enumerate(rows, 1):
        candidate = Candidate.of(values, task_format)
        if near.find_problem(candidate) is None:
            near.add(candidate, number)
        else:
            rejected += 1
    return rejected


def _measure_set(
    task_format: TaskFormat, examples: Rows, count: int, rows: Rows, families: Sequence[Hashable] | None
) -> SetMetrics:
    """The metrics of one set, without a comparison; diversity of `count` texts."""
    shortcuts_of_rows = measure_shortcuts(task_format, rows, families)
    no_shortcuts = None
    if task_format.head is None:
        no_shortcuts = "the answers are free text: there is no label or option to guess"
    elif not shortcuts_of_rows:
        no_shortcuts = "there are too few rows"
    texts_and_passages = [text_and_passage(task_format, values) for values in rows]
    texts = [text for text, _ in texts_and_passages if text]
    shown = [text for values in examples if (text := text_and_passage(task_format, values)[0])]
    lengths = [len(words(passage)) for _, passage in texts_and_passages[:MAX_TEXTS] if passage]
    return SetMetrics(
        rows=len(rows),
        shortcuts=shortcuts_of_rows,
        no_shortcuts=no_shortcuts,
        diversity=measure_diversity(texts, shown, count),
        passage_words=mean(lengths) if lengths else None,
    )


def sampled(commits: Iterable[Commit]) -> tuple[list[dict[str, Json]], list[Hashable]]:
    """At most `MAX_ROWS` accepted rows and the family of each, in one pass (reservoir sampling)."""
    rng, rows_read = random.Random(0), 0
    kept: list[tuple[dict[str, Json], Hashable]] = []
    for commit in commits:
        for values in commit.accepted:
            rows_read += 1
            row = (values, commit.family)
            if len(kept) < MAX_ROWS:
                kept.append(row)
            elif (index := rng.randrange(rows_read)) < MAX_ROWS:
                kept[index] = row
    return [values for values, _ in kept], [family for _, family in kept]


def _human_rows(benchmark: str) -> list[dict[str, Json]]:
    """The human train set; empty if it is not imported."""
    try:
        source = find_benchmark(benchmark)
        return read_split(source, "train") if has_split(source, "train") else []
    except BenchmarkError:  # unknown or damaged; training on it reports that
        return []
