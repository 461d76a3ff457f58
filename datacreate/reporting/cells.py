"""Evaluations -> cells, and pairs of cells -> comparisons."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, groupby
from statistics import mean, stdev, variance

from datacreate.finetuning.records import Scores
from datacreate.finetuning.statistics import (
    chance_corrected,
    compare,
    discordant_counts,
    minimum_detectable_effect,
    wilson_interval,
)
from datacreate.reporting.collect import Evaluated
from datacreate.reporting.intervals import Nest, intervals, nested_mean
from datacreate.reporting.results import Cell, Comparison, Interval, checkpoint_name

CONSTANT, ZERO_SHOT, HUMAN = "constant", "zero-shot", "human"

OWN_ROWS = "own rows"
"""The benchmark name of training rows that were made for none."""


def is_trained(one: Evaluated) -> bool:
    return one.evaluation.condition.name not in (CONSTANT, ZERO_SHOT)


def trained_for(one: Evaluated) -> str:
    """The benchmark that a model was trained for."""
    return (one.evaluation.condition.benchmark or OWN_ROWS) if is_trained(one) else "-"


def cell_of(models: Sequence[Evaluated], paper: tuple[float | None, bool] = (None, False)) -> Cell:
    """The cell of all models of one condition on the same test rows (at least one).

    `paper` is the paper's accuracy for the condition, and whether it is printed under the wrong heading.
    """
    models = sorted(models, key=_origin)
    first, trained = models[0].evaluation, is_trained(models[0])
    scores = [one.evaluation.scores for one in models]
    nest = _nested(models)
    score, accuracy = _intervals(models, scores, nest)
    sd_seeds, sd_sets = _spread(models)
    name = first.condition.name
    return Cell(
        test=first.benchmark,
        split=first.split,
        test_digest=first.digest,
        test_rows=first.scores.rows,
        classes=first.scores.classes,
        mde=minimum_detectable_effect(first.scores.rows),
        trained_for=trained_for(models[0]),
        condition=name if trained else f"{name} {checkpoint_name(first.encoder, first.encoder_sha256)}",
        count=first.condition.count if trained else None,
        full=first.condition.full,
        models=len(models),
        examples=len({one.evaluation.condition.example for one in models} - {None}),
        sets=len({one.evaluation.condition.digest for one in models}) if trained else 0,
        seeds=len({one.evaluation.seed for one in models}) if trained else 0,
        score=nested_mean(nest, [each.score for each in scores]),
        score_low=score[0],
        score_high=score[1],
        accuracy=nested_mean(nest, [each.accuracy for each in scores]),
        accuracy_low=accuracy[0],
        accuracy_high=accuracy[1],
        sd_seeds=sd_seeds,
        sd_sets=sd_sets,
        degenerate=sum(each.degenerate for each in scores),
        not_above_chance=sum(not each.above_chance for each in scores),
        unanswered=max(each.unanswered for each in scores),
        truncated=max(each.truncated for each in scores),
        paper_accuracy=paper[0],
        paper_swapped=paper[1],
        sources=tuple(one.path for one in models),
    )


def constant_cell(one: Evaluated) -> Cell:
    """The best constant prediction on the test set of an evaluation."""
    scores = one.evaluation.scores
    low, high = wilson_interval(round(scores.constant * scores.rows), scores.rows)

    def score(accuracy: float) -> float:
        """Of labels 0: the recall of one label is 1, of the others 0."""
        return chance_corrected(accuracy, scores.classes) if one.evaluation.head == "multiple_choice" else 0.0

    return replace(
        cell_of([one]),
        trained_for="-",
        condition=CONSTANT,
        count=None,
        models=0,
        examples=0,
        sets=0,
        seeds=0,
        score=score(scores.constant),
        score_low=score(low),
        score_high=score(high),
        accuracy=scores.constant,
        accuracy_low=low,
        accuracy_high=high,
        degenerate=0,
        not_above_chance=0,
        unanswered=0,
        truncated=0,
        sources=(),
    )


def compare_cells(cells: Sequence[Cell], models: Sequence[Sequence[Evaluated]]) -> tuple[Comparison, ...]:
    """Every comparable pair of cells by McNemar's exact test on majority votes, Holm-corrected together.

    `models`, as long as `cells`, holds the models of each. Pairs have the same test rows, and the same number
    of training rows unless one of them is untrained or is all human rows. The test accounts for the sampling
    of test rows, not for how formatting examples differ. Smallest p first.
    """
    votes = [majority_vote(each) for each in models]
    pairs = [
        (one, other)
        for one, other in combinations(range(len(cells)), 2)
        if _comparable(cells[one], cells[other])
    ]
    tests = compare([("", "", *discordant_counts(votes[one], votes[other])) for one, other in pairs])
    made = [
        Comparison(
            max(cells[one].trained_for, cells[other].trained_for),  # "-" sorts before every name
            cells[one].test,
            cells[one].split,
            cells[one].label,
            cells[one].count,
            cells[other].label,
            cells[other].count,
            (test.first_only - test.second_only) / cells[one].test_rows,
            test.first_only,
            test.second_only,
            test.p,
            test.p_holm,
            test.differs,
        )
        for (one, other), test in zip(pairs, tests, strict=True)
    ]
    return tuple(sorted(made, key=lambda comparison: comparison.p))


def majority_vote(models: Sequence[Evaluated]) -> list[bool]:
    """Which rows the majority answer of some models gets right, of shape (rows,).

    A tie goes to the answer of the model with the lowest seed.
    """
    ranked = sorted(models, key=lambda one: (one.evaluation.seed, one.evaluation.condition.digest, one.path))
    return [_vote(ranked, row) for row in range(len(ranked[0].correct))]


def _vote(models: Sequence[Evaluated], row: int) -> bool:
    # Counter keeps insertion order, so that `most_common` resolves a tie for the lowest seed.
    (answer, _), *_ = Counter(one.answers[row] for one in models).most_common(1)
    return next(one.correct[row] for one in models if one.answers[row] == answer)


def _comparable(one: Cell, other: Cell) -> bool:
    same_rows = one.test_digest == other.test_digest and "-" in (one.trained_for, other.trained_for)
    if not (same_rows or (one.test_digest, one.trained_for) == (other.test_digest, other.trained_for)):
        return False
    return one.count == other.count or _is_reference(one) or _is_reference(other)


def _is_reference(cell: Cell) -> bool:
    """Whether a cell is compared with every number of training rows."""
    return cell.count is None or (cell.full and cell.condition.partition("+")[0] == HUMAN)


def _origin(one: Evaluated) -> tuple[str, str, int, str]:
    e = one.evaluation
    return e.condition.example or "", e.condition.digest, e.seed, one.path


def _nested(models: Sequence[Evaluated]) -> Nest:
    """Indices into `models` (sorted by `_origin`): formatting examples of training sets of seeds."""
    indices = range(len(models))
    return [
        [list(seeds) for _, seeds in groupby(sets, lambda index: _origin(models[index])[:2])]
        for _, sets in groupby(indices, lambda index: _origin(models[index])[0])
    ]


def _intervals(
    models: Sequence[Evaluated], scores: Sequence[Scores], nest: Nest
) -> tuple[Interval, Interval]:
    """Of the score and of accuracy: one model's own, or the bootstrap's over several models."""
    if len(models) == 1:
        return scores[0].score_interval, scores[0].accuracy_interval
    options = models[0].evaluation.head == "multiple_choice"
    labels = [label.strip().casefold() for label in models[0].truth]
    truth = [""] * len(labels) if options else labels  # positions of options are no classes
    accuracy, balanced = intervals(nest, [one.correct for one in models], truth)
    low, high = accuracy if options else balanced
    return (chance_corrected(low, scores[0].classes), chance_corrected(high, scores[0].classes)), accuracy


def _spread(models: Sequence[Evaluated]) -> tuple[float | None, float | None]:
    """Standard deviations of the score: between seeds, pooled over training sets; between means of sets."""
    sets: defaultdict[str, list[float]] = defaultdict(list)
    for one in models:
        sets[one.evaluation.condition.digest].append(one.evaluation.scores.score)
    several = [scores for scores in sets.values() if len(scores) > 1]
    freedom = sum(len(scores) - 1 for scores in several)
    pooled = sum((len(scores) - 1) * variance(scores) for scores in several)
    means = [mean(scores) for scores in sets.values()]
    return (pooled / freedom) ** 0.5 if freedom else None, stdev(means) if len(means) > 1 else None
