"""Evaluations -> cells, and pairs of cells -> comparisons."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations, groupby
from statistics import mean, stdev, variance
from typing import Any

from datacreate.finetuning.records import Evaluation, Scores
from datacreate.finetuning.statistics import (
    ALPHA,
    Interval,
    chance_corrected,
    compare,
    discordant_counts,
    minimum_detectable_effect,
    wilson_interval,
)
from datacreate.reporting.collect import Evaluated
from datacreate.reporting.intervals import ModelGroups, intervals, nested_mean
from datacreate.reporting.results import Comparison, ResultCell, checkpoint_name

CONSTANT, ZERO_SHOT, HUMAN = "constant", "zero-shot", "human"

OWN_ROWS = "own rows"
"""The benchmark name of training rows that were made for none."""


def is_trained(model: Evaluated) -> bool:
    return model.evaluation.condition.name not in (CONSTANT, ZERO_SHOT)


def trained_for(model: Evaluated) -> str:
    """The benchmark that a model was trained for."""
    return (model.evaluation.condition.benchmark or OWN_ROWS) if is_trained(model) else "-"


def cell_of(models: Sequence[Evaluated], paper: tuple[float | None, bool] = (None, False)) -> ResultCell:
    """The cell of all models of one condition on the same test rows (at least one).

    `paper` is the paper's accuracy for the condition, and whether it is printed under the wrong heading.
    """
    models = sorted(models, key=_origin)
    first, trained = models[0].evaluation, is_trained(models[0])
    scores = [model.evaluation.scores for model in models]
    groups = _group_models(models)
    score, accuracy = _intervals(models, scores, groups)
    sd_seeds, sd_sets = _spread(models)
    name = first.condition.name
    return ResultCell(
        **_test_set(first),
        trained_for=trained_for(models[0]),
        condition=name if trained else f"{name} {checkpoint_name(first.encoder, first.encoder_sha256)}",
        count=first.condition.count if trained else None,
        full=first.condition.full,
        models=len(models),
        examples=len({model.evaluation.condition.example for model in models} - {None}),
        sets=len({model.evaluation.condition.digest for model in models}) if trained else 0,
        seeds=len({model.evaluation.seed for model in models}) if trained else 0,
        score=nested_mean(groups, [model_scores.score for model_scores in scores]),
        score_low=score[0],
        score_high=score[1],
        accuracy=nested_mean(groups, [model_scores.accuracy for model_scores in scores]),
        accuracy_low=accuracy[0],
        accuracy_high=accuracy[1],
        sd_seeds=sd_seeds,
        sd_sets=sd_sets,
        degenerate=sum(model_scores.degenerate for model_scores in scores),
        not_above_chance=sum(not model_scores.above_chance for model_scores in scores),
        unanswered=max(model_scores.unanswered for model_scores in scores),
        truncated=max(model_scores.truncated for model_scores in scores),
        paper_accuracy=paper[0],
        paper_swapped=paper[1],
        sources=tuple(model.path for model in models),
    )


def constant_cell(model: Evaluated) -> ResultCell:
    """The best constant prediction on the test set of an evaluation."""
    scores = model.evaluation.scores
    low, high = wilson_interval(round(scores.constant * scores.rows), scores.rows)

    def score(accuracy: float) -> float:
        """For fixed labels the score is 0: a constant prediction has balanced accuracy equal to chance."""
        return (
            chance_corrected(accuracy, scores.classes) if model.evaluation.head == "multiple_choice" else 0.0
        )

    return ResultCell(
        **_test_set(model.evaluation),
        trained_for="-",
        condition=CONSTANT,
        full=model.evaluation.condition.full,
        score=score(scores.constant),
        score_low=score(low),
        score_high=score(high),
        accuracy=scores.constant,
        accuracy_low=low,
        accuracy_high=high,
    )


def _test_set(evaluation: Evaluation) -> dict[str, Any]:
    """The fields of a cell that describe its test set."""
    return {
        "test": evaluation.benchmark,
        "split": evaluation.split,
        "test_digest": evaluation.digest,
        "test_rows": evaluation.scores.rows,
        "classes": evaluation.scores.classes,
        "mde": minimum_detectable_effect(evaluation.scores.rows),
    }


def compare_cells(
    cells: Sequence[ResultCell], models: Sequence[Sequence[Evaluated]]
) -> tuple[Comparison, ...]:
    """Every comparable pair of cells by McNemar's exact test on majority votes, Holm-corrected together.

    `models`, as long as `cells`, holds the models of model_scores. Pairs have the same test rows, and the same number
    of training rows unless one of them is untrained or is all human rows. The test accounts for the sampling
    of test rows, not for how formatting examples differ. Smallest p first.
    """
    votes = [majority_vote(models_of_cell) for models_of_cell in models]
    pairs = [
        (first, second, discordant_counts(first_votes, second_votes))
        for (first, first_votes), (second, second_votes) in combinations(zip(cells, votes, strict=True), 2)
        if _comparable(first, second)
    ]
    tests = compare([discordant for _, _, discordant in pairs])
    comparisons = [
        Comparison(
            max(first.trained_for, second.trained_for),  # "-" sorts before every name
            first.test,
            first.split,
            first.label,
            first.count,
            second.label,
            second.count,
            (first_only - second_only) / first.test_rows,
            first_only,
            second_only,
            p,
            p_holm,
            p_holm < ALPHA,
        )
        for (first, second, (first_only, second_only)), (p, p_holm) in zip(pairs, tests, strict=True)
    ]
    return tuple(sorted(comparisons, key=lambda comparison: comparison.p))


def majority_vote(models: Sequence[Evaluated]) -> list[bool]:
    """Which rows the majority answer of some models gets right, of shape (rows,).

    A tie goes to the answer of the model with the lowest seed.
    """
    ranked = sorted(
        models, key=lambda model: (model.evaluation.seed, model.evaluation.condition.digest, model.path)
    )
    return [_vote(ranked, row) for row in range(len(ranked[0].correct))]


def _vote(models: Sequence[Evaluated], row: int) -> bool:
    # Counter keeps insertion order, so that `most_common` resolves a tie for the lowest seed.
    (answer, _), *_ = Counter(model.answers[row] for model in models).most_common(1)
    return next(model.correct[row] for model in models if model.answers[row] == answer)


def _comparable(first: ResultCell, second: ResultCell) -> bool:
    same_rows = first.test_digest == second.test_digest and "-" in (first.trained_for, second.trained_for)
    if not (same_rows or (first.test_digest, first.trained_for) == (second.test_digest, second.trained_for)):
        return False
    return first.count == second.count or _is_reference(first) or _is_reference(second)


def _is_reference(cell: ResultCell) -> bool:
    """Whether a cell is compared with every number of training rows."""
    return cell.count is None or (cell.full and cell.condition.partition("+")[0] == HUMAN)


def _origin(model: Evaluated) -> tuple[str, str, int, str]:
    e = model.evaluation
    return e.condition.example or "", e.condition.digest, e.seed, model.path


def _group_models(models: Sequence[Evaluated]) -> ModelGroups:
    """Indices into `models` (sorted by `_origin`): formatting examples of training sets of seeds."""
    indices = range(len(models))
    return [
        [list(seeds) for _, seeds in groupby(sets, lambda index: _origin(models[index])[:2])]
        for _, sets in groupby(indices, lambda index: _origin(models[index])[0])
    ]


def _intervals(
    models: Sequence[Evaluated], scores: Sequence[Scores], groups: ModelGroups
) -> tuple[Interval, Interval]:
    """Of the score and of accuracy: one model's own, or the bootstrap's over several models."""
    if len(models) == 1:
        return scores[0].score_interval, scores[0].accuracy_interval
    options = models[0].evaluation.head == "multiple_choice"
    labels = [label.strip().casefold() for label in models[0].truth]
    truth = [""] * len(labels) if options else labels  # positions of options are no classes
    accuracy, balanced = intervals(groups, [model.correct for model in models], truth)
    low, high = accuracy if options else balanced
    return (chance_corrected(low, scores[0].classes), chance_corrected(high, scores[0].classes)), accuracy


def _spread(models: Sequence[Evaluated]) -> tuple[float | None, float | None]:
    """Standard deviations of the score: between seeds, pooled over training sets; between means of sets."""
    sets: defaultdict[str, list[float]] = defaultdict(list)
    for model in models:
        sets[model.evaluation.condition.digest].append(model.evaluation.scores.score)
    several = [scores for scores in sets.values() if len(scores) > 1]
    freedom = sum(len(scores) - 1 for scores in several)
    pooled = sum((len(scores) - 1) * variance(scores) for scores in several)
    means = [mean(scores) for scores in sets.values()]
    return (pooled / freedom) ** 0.5 if freedom else None, stdev(means) if len(means) > 1 else None
