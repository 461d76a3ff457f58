"""The records of a report; evaluations -> results of conditions, and pairs of results -> comparisons.

CSV and JSON hold the records.

Accuracies are shares in [0, 1]. Scores are chance-corrected: 0 is chance, 1 is perfect, negative is worse
than chance. Tables and plots show both times 100. All intervals are 95 %. Texts (labels, names, samples) are
untrusted and unescaped: each output escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from datacreate.checkpoints import UNSEEN
from datacreate.finetuning.records import Evaluation, SelectionKind
from datacreate.finetuning.statistics import (
    ALPHA,
    ConditionModels,
    Estimate,
    Interval,
    chance_corrected,
    difference,
    holm,
    mean_interval,
    mean_score,
)
from datacreate.finetuning.training_rows import name_index
from datacreate.formats.example import Json


@dataclass(frozen=True, eq=False)
class EvaluationRows:
    """One model on one test set. `truth` and `correct` have shape (rows,)."""

    path: str
    evaluation: Evaluation
    truth: tuple[str, ...]
    correct: tuple[bool, ...]


Distribution = Literal["in", "out", "untrained"]
"""Tested on the benchmark that the model was trained for, on another, or not trained at all."""


@dataclass(frozen=True, kw_only=True)
class ConditionResult:
    """All models of one condition on one test set: a line of results.csv.

    Means are taken over the seeds of a training set, then over the training sets of a formatting example,
    then over formatting examples.
    """

    trained_for: str  # benchmark; "own rows" if the training rows were for none; "-" if not trained
    test: str  # benchmark
    split: str
    test_digest: str  # SHA-256 of the test rows
    test_rows: int
    classes: int  # labels that occur, or options of a question: chance is 1 / classes
    condition: str
    count: int | None = None  # training rows, selection rows included; None if not trained
    full: bool  # whether that is all rows of the source, not a sample
    models: int = 0  # 0 for the constant prediction, which needs no model
    examples: int = 0  # distinct formatting examples; 0 for conditions without one
    sets: int = 0  # distinct sets of training rows
    seeds: int = 0  # distinct training seeds
    score: float  # chance-corrected
    score_low: float
    score_high: float
    pgr: float | None = None  # performance gap recovered: the score / that of as many human rows
    pgr_low: float | None = None
    pgr_high: float | None = None
    pgr_missing: str = ""  # why a condition of created rows has none
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    sd_seeds: float | None = None  # of the score, between seeds of one training set; None below two seeds
    sd_examples: float | None = None  # of the score, between the means of examples; None below two examples
    degenerate: int = 0  # models that predict one class for at least 95 % of the rows
    not_above_chance: int = 0  # models whose 95 % interval reaches down to chance
    unanswered: int = 0  # test rows without a prediction or a right answer, in the worst model
    truncated: int = 0  # test rows longer than the encoder's input, in the worst model
    paper_accuracy: float | None = None
    sources: tuple[str, ...] = ()  # folders of the evaluations

    @property
    def is_sample(self) -> bool:
        return self.count is not None and not self.full

    @property
    def label(self) -> str:
        """The condition, with its number of training rows where they are a sample."""
        return f"{self.condition}, {self.count:,} sampled" if self.is_sample else self.condition


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two conditions on the same test rows (`finetuning.statistics.difference`): a line of comparisons.csv."""

    trained_for: str
    test: str
    split: str
    first: str  # label of the result
    first_count: int | None
    second: str
    second_count: int | None
    difference: float  # chance-corrected score of the first less that of the second
    low: float
    high: float
    covers: str  # what the interval and p include: "examples, seeds, rows" or less
    mde: float  # minimum detectable effect: the true difference that is detected with 80 % power
    p: float
    p_holm: float  # corrected for all comparisons of the table
    significant: bool  # p_holm < 0.05


def test_set_name(result: ConditionResult | Comparison) -> str:
    """`creak`, `bioasq → pubmedqa`, `creak (dev)`."""
    test = result.test if result.split == "test" else f"{result.test} ({result.split})"
    return test if result.trained_for in ("-", result.test) else f"{result.trained_for} → {test}"


@dataclass(frozen=True, kw_only=True)
class MeanGap:
    """The mean performance gap recovered of a condition over the benchmarks of a table, two or more."""

    condition: str
    count: int | None  # training rows; None if it differs between benchmarks
    tests: int  # test sets in the mean
    missing: tuple[str, ...]  # test sets without a PGR, which are not in the mean
    pgr: float
    pgr_low: float
    pgr_high: float


@dataclass(frozen=True, kw_only=True)
class RowsToMatch:
    """The smallest number of created rows whose mean score is at least that of a number of human rows."""

    trained_for: str
    test: str
    split: str
    test_digest: str
    condition: str
    human_count: int
    human_score: float
    count: int | None  # None if no measured number of created rows reaches the score
    largest: int  # the largest measured number


@dataclass(frozen=True)
class ResultTable:
    """Results that may be compared: one encoder, recipe, model selection and generator."""

    distribution: Distribution
    encoder: str
    encoder_sha256: str
    recipe: str  # of the training
    selection: SelectionKind
    generator: str | None  # the model that wrote the created training rows
    cells: tuple[ConditionResult, ...]  # test set by test set
    comparisons: tuple[Comparison, ...]  # smallest p first
    gaps: tuple[MeanGap, ...]
    matches: tuple[RowsToMatch, ...]  # empty if there is only one number of training rows


@dataclass(frozen=True)
class CreatedSet:
    """What a report shows of one run."""

    path: str
    examples: tuple[Mapping[str, Json], ...]  # the formatting examples
    summary: Mapping[str, Any]  # as in summary.json
    metrics: Mapping[str, Any] | None  # shortcuts and diversity, see `dataset_metrics`; None without examples
    samples: tuple[Mapping[str, Json], ...]  # a few accepted examples, spread evenly over the run


@dataclass(frozen=True)
class Skipped:
    """A folder that could not be used."""

    path: str
    reason: str


def checkpoint_name(name: str, sha256: str) -> str:
    """The name with the beginning of its hash, where the weights are known."""
    return name if sha256.startswith(UNSEEN) else f"{name} ({sha256[:8]})"


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    version: str  # of datacreate
    paths: tuple[str, ...]  # folders that were searched
    evaluations: int
    tables: tuple[ResultTable, ...]  # in distribution first
    created: tuple[CreatedSet, ...]
    skipped: tuple[Skipped, ...]
    paper_citation: str


CONSTANT, ZERO_SHOT, HUMAN = "constant", "zero-shot", "human"

OWN_ROWS = "own rows"  # the benchmark name of training rows that were made for none


def is_trained(model: EvaluationRows) -> bool:
    return model.evaluation.condition.name != ZERO_SHOT


def trained_for(model: EvaluationRows) -> str:
    """The benchmark that a model was trained for."""
    return (model.evaluation.condition.benchmark or OWN_ROWS) if is_trained(model) else "-"


def condition_result(
    models: Sequence[EvaluationRows], paper_accuracy: float | None = None
) -> ConditionResult:
    """The result of all models of one condition on the same test rows (at least one)."""
    first, trained = models[0].evaluation, is_trained(models[0])
    scores = [model.evaluation.scores for model in models]
    group, worst = condition_models(models), chance_corrected(0, first.scores.classes)
    score = mean_score(group)
    score_low, score_high = _interval(group, score, first.scores.score_interval, worst)
    accuracy = mean_score(replace(group, labels=np.zeros_like(group.labels), classes=None))
    accuracy_low, accuracy_high = _interval(group, accuracy, first.scores.accuracy_interval, 0.0)
    sd_seeds, sd_examples = _spread(group, np.array([one.score for one in scores]))
    name = first.condition.name
    return ConditionResult(
        **_test_set(first),
        trained_for=trained_for(models[0]),
        condition=name if trained else f"{name} {checkpoint_name(first.encoder, first.encoder_sha256)}",
        count=first.condition.count if trained else None,
        full=first.condition.full,
        models=len(models),
        examples=len({model.evaluation.condition.example for model in models} - {None}),
        sets=len({model.evaluation.condition.digest for model in models}) if trained else 0,
        seeds=len({model.evaluation.seed for model in models}) if trained else 0,
        score=score.value,
        score_low=score_low,
        score_high=score_high,
        accuracy=accuracy.value,
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        sd_seeds=sd_seeds,
        sd_examples=sd_examples,
        degenerate=sum(one.degenerate for one in scores),
        not_above_chance=sum(not one.above_chance for one in scores),
        unanswered=max(one.unanswered for one in scores),
        truncated=max(one.truncated for one in scores),
        paper_accuracy=paper_accuracy,
        sources=tuple(model.path for model in models),
    )


def _interval(models: ConditionModels, mean: Estimate, of_one: Interval, lowest: float) -> Interval:
    """The interval of the mean of some models: that of one model, if it is the only one or no row changes the mean.

    Models that are all right, or that all predict one class, have an error of 0 here and not on other test rows.
    """
    if len(models.origins) == 1 or mean.error < 1e-9:
        return of_one
    return max(lowest, mean.interval[0]), min(1.0, mean.interval[1])


def constant_result(model: EvaluationRows) -> ConditionResult:
    """The best constant prediction on the test set of an evaluation."""
    scores = model.evaluation.scores
    low, high = mean_interval([round(scores.constant * scores.rows)], [scores.rows])
    # With fixed labels a constant prediction has a balanced accuracy equal to chance.
    options = model.evaluation.head == "multiple_choice"
    score = chance_corrected(scores.constant, scores.classes) if options else 0.0
    return ConditionResult(
        **_test_set(model.evaluation),
        trained_for="-",
        condition=CONSTANT,
        full=model.evaluation.condition.full,
        score=score,
        score_low=score,
        score_high=score,
        accuracy=scores.constant,
        accuracy_low=low,
        accuracy_high=high,
    )


def _test_set(evaluation: Evaluation) -> dict[str, Any]:
    """The fields of a result that describe its test set."""
    return {
        "test": evaluation.benchmark,
        "split": evaluation.split,
        "test_digest": evaluation.digest,
        "test_rows": evaluation.scores.rows,
        "classes": evaluation.scores.classes,
    }


ResultWithModels = tuple[ConditionResult, ConditionModels]


def compare_results(rows: Sequence[ResultWithModels]) -> tuple[Comparison, ...]:
    """Every comparable pair of results; Holm-corrected together, smallest p first.

    Pairs have the same test rows, and the same number of training rows unless one of them is untrained or
    is all human rows.
    """
    pairs = [pair for pair in combinations(rows, 2) if _comparable(pair[0][0], pair[1][0])]
    found = [difference(ours, theirs) for (_, ours), (_, theirs) in pairs]
    comparisons = [
        Comparison(
            trained_for=max(first.trained_for, second.trained_for),  # "-" sorts before every name
            test=first.test,
            split=first.split,
            first=first.label,
            first_count=first.count,
            second=second.label,
            second_count=second.count,
            difference=estimate.value,
            low=estimate.interval[0],
            high=estimate.interval[1],
            covers=estimate.covers,
            mde=estimate.minimum_detectable,
            p=estimate.p,
            p_holm=p_holm,
            significant=p_holm < ALPHA,
        )
        for ((first, _), (second, _)), estimate, p_holm in zip(
            pairs, found, holm([estimate.p for estimate in found]), strict=True
        )
    ]
    return tuple(sorted(comparisons, key=lambda comparison: comparison.p))


def _comparable(first: ConditionResult, second: ConditionResult) -> bool:
    same_training = first.trained_for == second.trained_for or "-" in (first.trained_for, second.trained_for)
    same_count = first.count == second.count or _is_reference(first) or _is_reference(second)
    return first.test_digest == second.test_digest and same_training and same_count


def _is_reference(result: ConditionResult) -> bool:
    """Whether a result is compared with those of every number of training rows."""
    return result.count is None or (result.full and result.condition.partition("+")[0] == HUMAN)


def _label_numbers(model: EvaluationRows) -> Any:
    """The number of each test row's label, of shape (rows,); -1 without one. With options it is always 0."""
    if model.evaluation.head == "multiple_choice":
        return np.zeros(len(model.truth), dtype=int)
    names = list(model.evaluation.scores.predicted)
    numbers = {label: name_index(label, names) for label in set(model.truth)}
    return np.array([-1 if (at := numbers[label]) is None else at for label in model.truth])


def condition_models(models: Sequence[EvaluationRows]) -> ConditionModels:
    """The models as `finetuning.statistics` takes them."""
    conditions = [(model.evaluation.condition, str(model.evaluation.seed)) for model in models]
    return ConditionModels(
        np.array([model.correct for model in models]),
        [(condition.example or "", condition.digest, seed) for condition, seed in conditions],
        _label_numbers(models[0]),
        models[0].evaluation.scores.classes,
        is_trained(models[0]),
    )


def _spread(models: ConditionModels, scores: Any) -> tuple[float | None, float | None]:
    """Standard deviations of the score: between seeds, pooled over training sets; between means of examples."""
    (_, examples), (_, sets) = models.units(0), models.units(1)
    residuals, degrees_of_freedom = scores - (sets > 0).T @ (sets @ scores), len(scores) - len(sets)
    return (
        float(((residuals**2).sum() / degrees_of_freedom) ** 0.5) if degrees_of_freedom else None,
        float((examples @ scores).std(ddof=1)) if len(examples) > 1 else None,
    )
