"""The models of one arm on one test set -> a cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby
from statistics import mean, stdev, variance

from datacreate.finetuning.records import Scores
from datacreate.finetuning.statistics import chance_corrected, wilson_interval
from datacreate.reporting.collect import Measured
from datacreate.reporting.intervals import Nest, intervals, nested_mean
from datacreate.reporting.tables import Cell, Interval, Spread


class Cells:
    """Makes cells, each once: a cell stands in several tables, and its bootstrap takes a moment."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, ...], Cell] = {}

    def of(self, models: Sequence[Measured]) -> Cell:
        """The cell of models of one arm and one count on the same test rows; at least one."""
        models = sorted(models, key=_origin)
        key = tuple(one.path for one in models)
        if key not in self._made:
            self._made[key] = _cell(models)
        return self._made[key]


def constant_cell(of: Measured) -> Cell:
    """What the best constant answer gets on the test set of an evaluation, whatever its model."""
    scores, options = of.evaluation.scores, of.evaluation.head == "multiple_choice"
    interval = wilson_interval(round(scores.constant * scores.rows), scores.rows)
    return Cell(
        primary=chance_corrected(scores.constant, scores.classes)
        if options
        else 0.0,  # one label's recall is 1, others' 0
        primary_interval=_centred(interval, scores.classes) if options else (0.0, 0.0),
        accuracy=scores.constant,
        accuracy_interval=interval,
        method="one model",
        count=None,
        full=False,
        models=0,
        examples=0,
        sets=0,
        seeds=0,
        spread=Spread(None, None),
        collapsed=0,
        collapse_reasons=(),
        unanswered=0,
        truncated=0,
        sources=(),
    )


def _origin(one: Measured) -> tuple[str, str, int, str]:
    e = one.evaluation
    return e.condition.example or "", e.condition.digest, e.seed, one.path


def _cell(models: Sequence[Measured]) -> Cell:
    condition = models[0].evaluation.condition
    scores = [one.evaluation.scores for one in models]
    nest = _nested(models)
    primary_interval, accuracy_interval, method = _intervals(models, scores, nest)
    reasons = [
        "degenerate" if s.degenerate else "not above chance"
        for s in scores
        if s.degenerate or not s.above_chance
    ]
    return Cell(
        primary=nested_mean(nest, [s.score for s in scores]),
        primary_interval=primary_interval,
        accuracy=nested_mean(nest, [s.accuracy for s in scores]),
        accuracy_interval=accuracy_interval,
        method="bootstrap" if method else "one model",
        count=None if condition.name == "zero-shot" else condition.count,
        full=condition.full,
        models=len(models),
        examples=len({one.evaluation.condition.example for one in models} - {None}),
        sets=0 if condition.name == "zero-shot" else len({one.evaluation.condition.digest for one in models}),
        seeds=0 if condition.name == "zero-shot" else len({one.evaluation.seed for one in models}),
        spread=_spread(models),
        collapsed=len(reasons),
        collapse_reasons=tuple(dict.fromkeys(reasons)),
        unanswered=max(s.unanswered for s in scores),
        truncated=max(s.truncated for s in scores),
        sources=tuple(one.path for one in models),
    )


def _nested(models: Sequence[Measured]) -> Nest:
    """Places in `models`, which are in the order of `_origin`: formatting examples of sets of seeds."""
    places = range(len(models))
    return [
        [list(seeds) for _, seeds in groupby(sets, lambda place: _origin(models[place])[:2])]
        for _, sets in groupby(places, lambda place: _origin(models[place])[0])
    ]


def _intervals(
    models: Sequence[Measured], scores: Sequence[Scores], nest: Nest
) -> tuple[Interval, Interval, bool]:
    """Of the primary figure and of accuracy, and whether they were bootstrapped here."""
    if len(models) == 1:
        return scores[0].score_interval, scores[0].accuracy_interval, False
    options = models[0].evaluation.head == "multiple_choice"
    labels = [label.strip().casefold() for label in models[0].truth]
    truth = [""] * len(labels) if options else labels  # places of options are no labels
    accuracy, balanced = intervals(nest, [one.right for one in models], truth)
    return _centred(accuracy if options else balanced, scores[0].classes), accuracy, True


def _centred(interval: Interval, classes: int) -> Interval:
    return chance_corrected(interval[0], classes), chance_corrected(interval[1], classes)


def _spread(models: Sequence[Measured]) -> Spread:
    sets: defaultdict[str, list[float]] = defaultdict(list)
    for one in models:
        sets[one.evaluation.condition.digest].append(one.evaluation.scores.score)
    several = [figures for figures in sets.values() if len(figures) > 1]
    free = sum(len(figures) - 1 for figures in several)
    pooled = sum((len(figures) - 1) * variance(figures) for figures in several)
    means = [mean(figures) for figures in sets.values()]
    return Spread((pooled / free) ** 0.5 if free else None, stdev(means) if len(means) > 1 else None)
