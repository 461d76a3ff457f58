"""The records of a report; evaluations -> results of conditions, and pairs of results -> comparisons.

Accuracies are shares in [0, 1]. Scores are chance-corrected: 0 is chance, 1 is perfect, negative is worse
than chance. Tables and plots show both times 100. Texts (labels, names) are untrusted and unescaped: each output
escapes them.
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
    mean_score,
)
from datacreate.finetuning.training_rows import name_index

ZERO_SHOT, HUMAN = "zero-shot", "human"

OWN_ROWS = "own rows"  # the benchmark name of training rows that were made for none


@dataclass(frozen=True, eq=False)
class EvaluationRows:
    """One model on one test set. `truth` and `correct` have shape (rows,)."""

    path: str
    evaluation: Evaluation
    truth: tuple[str, ...]
    correct: tuple[bool, ...]

    @property
    def is_trained(self) -> bool:
        return self.evaluation.condition.name != ZERO_SHOT

    @property
    def trained_for(self) -> str:
        """The benchmark that the model was trained for; "-" if it was not trained."""
        return (self.evaluation.condition.benchmark or OWN_ROWS) if self.is_trained else "-"


@dataclass(frozen=True)
class Measured:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


Distribution = Literal["in", "out", "untrained"]
"""Tested on the benchmark that the model was trained for, on another, or not trained at all."""


@dataclass(frozen=True, kw_only=True)
class ConditionResult:
    """All models of one condition on one test set.

    Means are taken over the seeds of a training set, then over the training sets of a formatting example,
    then over formatting examples.
    """

    trained_for: str  # benchmark; "own rows" if the training rows were for none; "-" if not trained
    test: str  # benchmark
    split: str
    test_digest: str  # SHA-256 of the test rows
    test_rows: int
    constant: float  # accuracy of the best constant prediction
    condition: str
    count: int | None  # training rows, selection rows included; None if not trained
    full: bool  # whether that is all rows of the source, not a sample
    models: int
    examples: int  # distinct formatting examples; 0 for conditions without one
    sets: int  # distinct sets of training rows
    seeds: int  # distinct training seeds
    score: Measured  # chance-corrected
    accuracy: Measured
    pgr: Measured | str = ""  # performance gap recovered, or why a condition of created rows has none
    sd_seeds: float | None = None  # of the score, between seeds of one training set; None below two seeds
    sd_examples: float | None = None  # of the score, between the means of examples; None below two examples
    degenerate: int  # models that predict one class for at least 95 % of the rows
    not_above_chance: int  # models whose 95 % interval reaches down to chance
    unanswered: int = 0  # test rows without a prediction or a right answer, in the worst model
    truncated: int = 0  # test rows longer than the model's input, in the worst model
    paper_accuracy: float | None = None
    sources: tuple[str, ...]  # folders of the evaluations

    @property
    def label(self) -> str:
        """The condition with its number of training rows."""
        if self.count is None:
            return self.condition
        return f"{self.condition}, {self.count:,} {'rows' if self.full else 'sampled'}"

    @property
    def test_set(self) -> str:
        """`creak`, `bioasq → pubmedqa`, `creak (dev)`."""
        test = self.test if self.split == "test" else f"{self.test} ({self.split})"
        return test if self.trained_for in ("-", self.test) else f"{self.trained_for} → {test}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two conditions on the same test rows (`finetuning.statistics.difference`)."""

    test_set: str
    first: str  # label of the result
    second: str
    difference: Measured  # chance-corrected score of the first less that of the second
    covers: str  # what the interval and p include: "examples, seeds, rows" or less
    mde: float  # minimum detectable effect: the true difference that is detected with 80 % power
    p: float
    p_holm: float  # corrected for all comparisons of the table
    significant: bool  # p_holm < 0.05


@dataclass(frozen=True, kw_only=True)
class MeanGap:
    """The mean performance gap recovered of a condition over the benchmarks of a table, two or more."""

    condition: str
    count: int | None  # training rows; None if it differs between benchmarks
    tests: int  # test sets in the mean
    missing: tuple[str, ...]  # test sets without a PGR, which are not in the mean
    pgr: Measured


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


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    version: str  # of datacreate
    paths: tuple[str, ...]  # folders that were searched
    evaluations: int
    tables: tuple[ResultTable, ...]  # in distribution first
    runs: Mapping[str, Mapping[str, Any]]  # folder -> summary, as in summary.json
    skipped: Mapping[str, str]  # folder that could not be used -> reason
    paper_citation: str


def checkpoint_name(name: str, sha256: str) -> str:
    """The name with the beginning of its hash, where the weights are known."""
    return name if sha256.startswith(UNSEEN) else f"{name} ({sha256[:8]})"


def condition_result(
    models: Sequence[EvaluationRows], group: ConditionModels, paper_accuracy: float | None
) -> ConditionResult:
    """The result of all models of one condition on the same test rows (at least one); `group` has the same models."""
    first, trained = models[0].evaluation, models[0].is_trained
    scores, name = [model.evaluation.scores for model in models], first.condition.name
    if not trained:
        name += f" {checkpoint_name(first.encoder, first.encoder_sha256)}"
    accuracies = replace(group, labels=np.zeros_like(group.labels), classes=None)
    lowest = chance_corrected(0, first.scores.classes)
    sd_seeds, sd_examples = _spread(group, np.array([one.score for one in scores]))
    return ConditionResult(
        trained_for=models[0].trained_for,
        test=first.benchmark,
        split=first.split,
        test_digest=first.digest,
        test_rows=first.scores.rows,
        constant=first.scores.constant,
        condition=name,
        count=first.condition.count if trained else None,
        full=first.condition.full,
        models=len(models),
        examples=len({model.evaluation.condition.example for model in models} - {None}),
        sets=len({model.evaluation.condition.digest for model in models}) if trained else 0,
        seeds=len({model.evaluation.seed for model in models}) if trained else 0,
        score=_mean(group, mean_score(group), first.scores.score_interval, lowest),
        accuracy=_mean(group, mean_score(accuracies), first.scores.accuracy_interval, 0.0),
        sd_seeds=sd_seeds,
        sd_examples=sd_examples,
        degenerate=sum(one.degenerate for one in scores),
        not_above_chance=sum(not one.above_chance for one in scores),
        unanswered=max(one.unanswered for one in scores),
        truncated=max(one.truncated for one in scores),
        paper_accuracy=paper_accuracy,
        sources=tuple(model.path for model in models),
    )


def _mean(models: ConditionModels, mean: Estimate, of_one: Interval, lowest: float) -> Measured:
    """The mean of some models. Its interval is that of one model, if it is the only one or no row changes the mean.

    Models that are all right, or that all predict one class, have an error of 0 here and not on other test rows.
    """
    if len(models.origins) == 1 or mean.error < 1e-9:
        return Measured(mean.value, *of_one)
    return Measured(mean.value, max(lowest, mean.interval[0]), min(1.0, mean.interval[1]))


ResultWithModels = tuple[ConditionResult, ConditionModels]


def compare_results(rows: Sequence[ResultWithModels]) -> tuple[Comparison, ...]:
    """Every comparable pair of results; Holm-corrected together, smallest p first.

    Pairs have the same test rows, and the same number of training rows unless one of them is untrained or
    is all human rows.
    """
    pairs = [pair for pair in combinations(rows, 2) if _comparable(pair[0][0], pair[1][0])]
    found = [difference(ours, theirs) for (_, ours), (_, theirs) in pairs]
    corrected = holm([estimate.p for estimate in found])
    comparisons = [
        Comparison(
            test_set=max(first, second, key=lambda one: one.trained_for).test_set,  # "-" before every name
            first=first.label,
            second=second.label,
            difference=Measured(estimate.value, *estimate.interval),
            covers=estimate.covers,
            mde=estimate.minimum_detectable,
            p=estimate.p,
            p_holm=p_holm,
            significant=p_holm < ALPHA,
        )
        for ((first, _), (second, _)), estimate, p_holm in zip(pairs, found, corrected, strict=True)
    ]
    return tuple(sorted(comparisons, key=lambda comparison: comparison.p))


def _comparable(first: ConditionResult, second: ConditionResult) -> bool:
    same_training = first.trained_for == second.trained_for or "-" in (first.trained_for, second.trained_for)
    same_count = first.count == second.count or _is_reference(first) or _is_reference(second)
    return first.test_digest == second.test_digest and same_training and same_count


def _is_reference(result: ConditionResult) -> bool:
    """Whether a result is compared with those of every number of training rows."""
    return result.count is None or (result.full and result.condition.partition("+")[0] == HUMAN)


def condition_models(models: Sequence[EvaluationRows]) -> ConditionModels:
    """The models as `finetuning.statistics` takes them."""
    conditions = [(model.evaluation.condition, str(model.evaluation.seed)) for model in models]
    return ConditionModels(
        np.array([model.correct for model in models]),
        [(condition.example or "", condition.digest, seed) for condition, seed in conditions],
        _label_numbers(models[0]),
        models[0].evaluation.scores.classes,
        models[0].is_trained,
    )


def _label_numbers(model: EvaluationRows) -> Any:
    """The number of each test row's label, of shape (rows,); -1 without one. With options it is always 0."""
    if model.evaluation.head == "multiple_choice":
        return np.zeros(len(model.truth), dtype=int)
    names = list(model.evaluation.scores.predicted)
    numbers = {label: name_index(label, names) for label in set(model.truth)}
    return np.array([-1 if (at := numbers[label]) is None else at for label in model.truth])


def _spread(models: ConditionModels, scores: Any) -> tuple[float | None, float | None]:
    """Standard deviations of the score: between seeds, pooled over training sets; between means of examples."""
    (_, examples), (_, sets) = models.units(0), models.units(1)
    residuals, degrees_of_freedom = scores - (sets > 0).T @ (sets @ scores), len(scores) - len(sets)
    return (
        float(((residuals**2).sum() / degrees_of_freedom) ** 0.5) if degrees_of_freedom else None,
        float((examples @ scores).std(ddof=1)) if len(examples) > 1 else None,
    )
