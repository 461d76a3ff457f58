"""The results of a report, and their comparisons.

A *condition* is what a model was trained on. A *result* is the mean score of all models of one condition on one test
set, and a *comparison* is the difference of two results on the same test rows.

Accuracies are shares in [0, 1]. Scores are chance-corrected: 0 is chance, 1 is perfect, negative is worse
than chance. Tables and plots show both times 100. Texts (labels, names) are untrusted and unescaped: each output
escapes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from typing import Any, Literal

import numpy as np

from datacreate.checkpoints.checkpoint import SERVED_AS
from datacreate.finetuning.records import HUMAN, MIXED, ZERO_SHOT, Evaluation, ModelSelection, NameIndices
from datacreate.finetuning.statistics import (
    ALPHA,
    ConditionModels,
    ScoreEstimate,
    TrainingOrigin,
    chance_corrected,
    difference,
    holm,
    mean_score,
)
from datacreate.intervals import IntervalEstimate
from datacreate.runs.stats import RunSummary

OWN_ROWS = "own rows"  # the benchmark name of training rows that were made for none


@dataclass(frozen=True, eq=False)
class EvaluationRows:
    """The evaluation of one model on one test set, with the rows of the test set."""

    path: str
    evaluation: Evaluation
    truth: tuple[str, ...]  # the right answer of each row, (rows,)
    correct: tuple[bool, ...]  # whether the model gave it, (rows,)

    @property
    def is_trained(self) -> bool:
        return self.evaluation.condition.name != ZERO_SHOT

    @property
    def trained_for(self) -> str:
        """The benchmark that the model was trained for; "-" if it was not trained."""
        return (self.evaluation.condition.benchmark or OWN_ROWS) if self.is_trained else "-"


Distribution = Literal["in", "out", "own", "untrained"]
"""Models are tested on the benchmark that they were trained for, on another one, or on a file; or are not trained."""


@dataclass(frozen=True, kw_only=True)
class ConditionResult:
    """The mean result of all models of one condition on one test set.

    Means are taken over the seeds of a training set, then over the training sets of a formatting example,
    then over formatting examples.
    """

    trained_for: str  # benchmark; "own rows" if the training rows were for none; "-" if not trained
    test: str  # benchmark
    split: str
    test_digest: str  # SHA-256 of the test rows
    test_rows: int
    classes: int  # labels that occur in the test set, or options per question
    constant_accuracy: float  # of the best constant prediction
    condition: str
    count: int | None  # training rows, validation rows included; None if not trained
    has_all_rows: bool  # whether these are all rows of the source, not a sample
    models: int
    examples: int  # distinct formatting examples; 0 for conditions without one
    training_sets: int  # distinct
    seeds: int  # distinct training seeds
    score: IntervalEstimate  # chance-corrected
    accuracy: IntervalEstimate
    pgr: IntervalEstimate | str = ""  # performance gap recovered, or why created rows have none; "" for other rows
    sd_seeds: float | None = None  # of the score, between seeds of one training set; None below two seeds
    sd_examples: float | None = None  # of the score, between the means of examples; None below two examples
    degenerate_models: int  # which predict one class for at least 95 % of the rows
    models_not_above_chance: int  # whose 95 % interval reaches down to chance
    unanswered_rows: int = 0  # without a prediction or a right answer that was learned, in the worst model
    truncated_rows: int = 0  # longer than the model's input, in the worst model
    paper_accuracy: float | None = None
    differing_settings: tuple[str, ...] = ()  # names of settings with which only some of the sets were created
    sources: tuple[str, ...]  # folders of the evaluations

    @property
    def label(self) -> str:
        """The condition with its number of training rows."""
        if self.count is None:
            return self.condition
        return f"{self.condition}, {self.count:,} {'rows' if self.has_all_rows else 'sampled'}"

    @property
    def test_set(self) -> str:
        """The name of the test set: `creak`, `bioasq → pubmedqa`, `creak (dev)`."""
        test = self.test if self.split == "test" else f"{self.test} ({self.split})"
        return test if self.trained_for in ("-", self.test) else f"{self.trained_for} → {test}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference of two results on the same test rows (`finetuning.statistics.difference`)."""

    test_set: str
    first: str  # label of the first result
    second: str  # label of the second result
    difference: IntervalEstimate  # chance-corrected score of the first less that of the second
    covers: str  # what the interval and p include: "examples, seeds, rows" or less
    mde: float  # minimum detectable effect: the true difference that is detected with 80 % power
    p: float
    p_holm: float  # corrected for all comparisons of the table
    is_significant: bool  # p_holm < 0.05


@dataclass(frozen=True, kw_only=True)
class MeanPGR:
    """The mean performance gap recovered of a condition over the benchmarks of a table, two or more."""

    condition: str
    count: int | None  # training rows; None if it differs between benchmarks
    tests: int  # test sets in the mean
    tests_without_pgr: tuple[str, ...]  # which are not in the mean
    pgr: IntervalEstimate


@dataclass(frozen=True)
class ResultTable:
    """Results that may be compared: one encoder, set of hyperparameters, model selection and generator."""

    distribution: Distribution
    encoder: str
    encoder_sha256: str
    hyperparameters: str
    selection: ModelSelection
    generator: str | None  # the model that wrote the created training rows
    results: tuple[ConditionResult, ...]  # test set by test set
    comparisons: tuple[Comparison, ...]  # smallest p first
    mean_pgrs: tuple[MeanPGR, ...]  # of the conditions with created rows


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    version: str  # of datacreate
    paths: tuple[str, ...]  # folders that were searched
    evaluations: int
    tables: tuple[ResultTable, ...]  # in distribution first
    runs: Mapping[str, RunSummary]  # by folder
    skipped: Mapping[str, str]  # folder that could not be used -> reason
    paper_citation: str


def checkpoint_name(name: str, sha256: str) -> str:
    """The name with the beginning of its hash, where the weights are known."""
    return name if sha256.startswith(SERVED_AS) else f"{name} ({sha256[:8]})"


def make_condition_result(
    models: Sequence[EvaluationRows], group: ConditionModels, paper_accuracy: float | None
) -> ConditionResult:
    """The result of all models of one condition on the same test rows (at least one); `group` has the same models."""
    first, trained = models[0].evaluation, models[0].is_trained
    all_scores, name = [model.evaluation.scores for model in models], first.condition.name
    if not trained:
        name += f" {checkpoint_name(first.encoder, first.encoder_sha256)}"
    accuracies = replace(group, labels=np.zeros_like(group.labels), classes=None)
    lowest = chance_corrected(0, first.scores.classes)
    settings = [found for model in models if (found := model.evaluation.condition.settings) is not None]
    differing = (text for text, count in Counter(chain.from_iterable(settings)).items() if count < len(settings))
    sd_seeds, sd_examples = _spread(group, np.array([scores.score for scores in all_scores]))
    return ConditionResult(
        trained_for=models[0].trained_for,
        test=first.benchmark,
        split=first.split,
        test_digest=first.digest,
        test_rows=first.scores.rows,
        classes=first.scores.classes,
        constant_accuracy=first.scores.constant,
        condition=name,
        count=first.condition.count if trained else None,
        has_all_rows=first.condition.full,
        models=len(models),
        examples=len({model.evaluation.condition.example for model in models} - {None}),
        training_sets=len({model.evaluation.condition.digest for model in models}) if trained else 0,
        seeds=len({model.evaluation.seed for model in models}) if trained else 0,
        score=_with_interval(group, mean_score(group), first.scores.score_interval, lowest),
        accuracy=_with_interval(group, mean_score(accuracies), first.scores.accuracy_interval, 0.0),
        sd_seeds=sd_seeds,
        sd_examples=sd_examples,
        degenerate_models=sum(scores.degenerate for scores in all_scores),
        models_not_above_chance=sum(not scores.above_chance for scores in all_scores),
        unanswered_rows=max(scores.unanswered + scores.unlearned for scores in all_scores),
        truncated_rows=max(scores.truncated for scores in all_scores),
        paper_accuracy=paper_accuracy,
        differing_settings=tuple(sorted({text.partition("=")[0] for text in differing})),
        sources=tuple(model.path for model in models),
    )


def _with_interval(
    models: ConditionModels, mean: ScoreEstimate, ends_of_first: tuple[float, float], lowest: float
) -> IntervalEstimate:
    """The mean of some models with its interval, which ends at `lowest` and 1.

    If there is one model, or no row changes the mean, the interval is that of the first model: models that are all
    right, or that all predict one class, have an error of 0 on these test rows and not on others.
    """
    if len(models.origins) == 1 or not mean.has_error:
        return IntervalEstimate(mean.value, *ends_of_first)
    interval = mean.interval
    return replace(interval, low=max(lowest, interval.low), high=min(1.0, interval.high))


ResultModels = Mapping[ConditionResult, ConditionModels]
"""Results, each with its models for comparisons with others."""


def compare_results(results: ResultModels) -> tuple[Comparison, ...]:
    """Every comparable pair of results; Holm-corrected together, smallest p first.

    Pairs have the same test rows, of two labels or more, and the same number of training rows unless one of them is
    untrained or is all human rows.
    """
    pairs = [pair for pair in combinations(results, 2) if _comparable(*pair)]
    estimates = [difference(results[first], results[second]) for first, second in pairs]
    corrected = holm([estimate.p for estimate in estimates])
    comparisons = [
        Comparison(
            # That of the trained one: `trained_for` of an untrained result is "-", which is before every name.
            test_set=max(first, second, key=lambda result: result.trained_for).test_set,
            first=first.label,
            second=second.label,
            difference=estimate.interval,
            covers=estimate.covers,
            mde=estimate.minimum_detectable,
            p=estimate.p,
            p_holm=p_holm,
            is_significant=p_holm < ALPHA,
        )
        for (first, second), estimate, p_holm in zip(pairs, estimates, corrected, strict=True)
    ]
    return tuple(sorted(comparisons, key=lambda comparison: comparison.p))


def _comparable(first: ConditionResult, second: ConditionResult) -> bool:
    same_training = first.trained_for == second.trained_for or "-" in (first.trained_for, second.trained_for)
    same_count = first.count == second.count or _is_reference(first) or _is_reference(second)
    return first.test_digest == second.test_digest and first.classes > 1 and same_training and same_count


def _is_reference(result: ConditionResult) -> bool:
    """Whether a result is compared with results of any number of training rows: all human rows, or a mixed set."""
    is_mixed = result.condition.startswith(MIXED)
    return result.count is None or is_mixed or (result.has_all_rows and result.condition == HUMAN)


def make_condition_models(models: Sequence[EvaluationRows]) -> ConditionModels:
    """Which rows of a test set the models of one condition got right, for their statistics."""
    first, evaluations = models[0].evaluation, [model.evaluation for model in models]
    labels = dict.fromkeys(models[0].truth, 0)  # the same for all rows with options
    if first.head != "multiple_choice":
        names = NameIndices(first.scores.predicted)
        for label in labels:
            index = names.find(label)
            labels[label] = -1 if index is None else index
    return ConditionModels(
        correct=np.array([model.correct for model in models]),
        origins=[TrainingOrigin(e.condition.example or "", e.condition.digest, str(e.seed)) for e in evaluations],
        labels=np.array([labels[label] for label in models[0].truth]),
        classes=first.scores.classes,
        trained=models[0].is_trained,
    )


def _spread(models: ConditionModels, scores: Any) -> tuple[float | None, float | None]:
    """Standard deviations of the score: between seeds, pooled over training sets; between means of examples."""
    _, of_examples = models.units(0)
    _, of_sets = models.units(1)
    residuals = scores - (of_sets > 0).T @ (of_sets @ scores)
    degrees_of_freedom = len(scores) - len(of_sets)
    return (
        float(((residuals**2).sum() / degrees_of_freedom) ** 0.5) if degrees_of_freedom else None,
        float((of_examples @ scores).std(ddof=1)) if len(of_examples) > 1 else None,
    )
