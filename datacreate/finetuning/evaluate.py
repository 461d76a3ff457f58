"""Models x benchmarks -> predictions and scores, kept beside each model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from datacreate.benchmarks import Benchmark, digest, find_benchmark, has_split, load_registry, read_split
from datacreate.errors import TrainingError
from datacreate.files import refuse_links, replace_files
from datacreate.finetuning.encoder import collator, encode, load_tokenizer, load_with_head
from datacreate.finetuning.records import (
    EVALUATION,
    PREDICTIONS,
    Evaluation,
    Model,
    Prediction,
    Scores,
    Task,
    read_evaluation,
    read_model,
)
from datacreate.finetuning.rows import Question, question_of, task_of
from datacreate.finetuning.statistics import compute_scores
from datacreate.finetuning.train import Progress
from datacreate.finetuning.trial import one_line_errors
from datacreate.formats.example import Json
from datacreate.formats.task_format import load_format
from datacreate.hardware import device, has_bf16
from datacreate.locking import LOCK_FILE, locked
from datacreate.logging_setup import quiet
from datacreate.messages import Notify, SilentProgress
from datacreate.signals import caught_signals

BATCH_TOKENS = 16_384
"""Tokens per batch, padding included: many short rows or few long ones."""


@dataclass(frozen=True)
class TestSet:
    """All rows of one split of one benchmark."""

    __test__ = False  # pytest: not a test

    benchmark: Benchmark
    split: str
    digest: str
    task: Task
    rows: Sequence[dict[str, Json]]
    questions: Sequence[Question | str]  # per row; a string says why the row cannot be encoded

    @property
    def usable(self) -> list[Question]:
        """The questions that can be encoded, in order."""
        return [question for question in self.questions if isinstance(question, Question)]


def read_test_set(name: str, split: str = "test") -> TestSet:
    """A benchmark's split as questions; BenchmarkError if it is not imported."""
    benchmark = find_benchmark(name)
    format, rows = load_format(benchmark.format_name), read_split(benchmark, split)
    task = task_of(format, rows, name)
    questions = [question_of(row, format, task) for row in rows]
    return TestSet(benchmark, split, digest(benchmark, split), task, rows, questions)


def benchmarks_for(model: Model, requested: Sequence[str], split: str = "test") -> list[str]:
    """The benchmarks to test a model on: those requested; with `all` every imported one with its head.

    By default the benchmark that its rows are for, and the out-of-distribution ones of that. Raises
    TrainingError if there is none, BenchmarkError for an unknown name.
    """
    if "all" in requested:
        imported = [name for name, benchmark in load_registry().items() if has_split(benchmark, split)]
        fitting = [name for name in imported if read_test_set(name, split).task == model.training.task]
        if not fitting:
            raise TrainingError(
                f"no imported benchmark has {model.training.task.description}: `datacreate benchmarks list`"
            )
        return fitting
    if requested:
        return list(dict.fromkeys(find_benchmark(name).name for name in requested))
    benchmark = model.training.condition.benchmark
    if benchmark is None:
        raise TrainingError(
            "the model was trained on rows without a benchmark; name --benchmark to test it on"
        )
    return [benchmark, *find_benchmark(benchmark).out_of_distribution]


def evaluate(
    folder: Path, names: Sequence[str] = (), split: str = "test", progress: Progress | None = None
) -> list[Evaluation]:
    """Evaluate the model in `folder`; existing evaluations on the same rows are read, not repeated.

    Raises TrainingError for a damaged model or a benchmark that needs another head; Stopped after SIGINT
    or SIGTERM: finished evaluations are kept.
    """
    model, shown = read_model(folder), progress or SilentProgress()
    training = model.training
    load = cache(lambda: (load_with_head(folder, training.task), load_tokenizer(folder)))

    def measure(test: TestSet) -> tuple[Evaluation, list[Prediction]]:
        name, show_context = test.benchmark.name, training.recipe.show_context
        with quiet():
            network, tokenizer = load()
            shown.notify(f"{folder}: {len(test.rows)} rows of {name} ({split})")
            encoded = encode(test.usable, test.task, tokenizer, model.max_length, show_context=show_context)
            predicted = probabilities(network, encoded.dataset, collator(test.task, tokenizer))
        predictions, scores = grade(test, predicted.tolist(), encoded.truncated)
        evaluation = Evaluation(
            benchmark=name,
            split=split,
            head=test.task.head,
            digest=test.digest,
            condition=training.condition,
            encoder=training.encoder,
            encoder_sha256=training.encoder_sha256,
            recipe=training.recipe.description,
            selection=training.selection,
            seed=model.seed,
            scores=scores,
        )
        return evaluation, predictions

    found = []
    with caught_signals():
        for name in benchmarks_for(model, names, split):
            test = read_test_set(name, split)
            training.task.check_same(test.task, str(folder), name)
            found.append(evaluation_of(folder, test, measure, shown.notify))
    return found


def evaluation_of(
    folder: Path,
    test: TestSet,
    measure: Callable[[TestSet], tuple[Evaluation, list[Prediction]]],
    notify: Notify,
) -> Evaluation:
    """The evaluation of a test set in `folder`/evaluations; measured and written if there is no complete one.

    Raises RunLocked if another process measures it, StorageError, and what `measure` raises.
    """
    target = folder / "evaluations" / f"{test.benchmark.name}-{test.split}"
    refuse_links(target.parent, target)
    existing = _existing_evaluation(target, test)
    if existing is not None and not (target / LOCK_FILE).exists():  # else: a killed process has left more
        return existing
    if not test.usable:
        raise TrainingError(
            f"{test.benchmark.name}: no usable row in its {test.split} split; import it again"
        )
    with locked(target, notify) as lock:
        if (existing := _existing_evaluation(target, test)) is not None:  # another process was faster
            return existing
        evaluation, predictions = measure(test)
        lock.check()
        write_evaluation(target, evaluation, predictions)
    return evaluation


def probabilities(model: Any, dataset: Any, collate: Any, batch_tokens: int = BATCH_TOKENS) -> Any:
    """Softmax over the head's outputs, a numpy array of shape (rows, classes), in the order of the rows.

    Batches hold rows of similar length, the longest first, so that there is little padding and running
    out of memory shows at once.
    """
    import numpy as np
    import torch

    model = model.to(device()).eval()
    lengths = np.asarray(dataset["length"])
    rows = dataset.remove_columns("length")
    ids = rows[0]["input_ids"]
    inputs_per_row = len(ids) if isinstance(ids[0], list) else 1
    order = np.argsort(-lengths, kind="stable")
    batches: list[Any] = []
    at = 0
    with torch.inference_mode(), one_line_errors("the --max-length of its `train`"):
        while at < len(order):
            size = max(1, batch_tokens // (int(lengths[order[at]]) * inputs_per_row))
            batch = collate([rows[int(i)] for i in order[at : at + size]])
            batch.pop("labels")
            batch = {name: tensor.to(device(), non_blocking=True) for name, tensor in batch.items()}
            with torch.autocast(device().type, torch.bfloat16, enabled=has_bf16()):
                logits = model(**batch).logits
            batches.append(torch.softmax(logits.float(), -1).cpu().numpy())
            at += size
    sorted_rows = np.concatenate(batches)
    unsorted = np.empty_like(sorted_rows)
    unsorted[order] = sorted_rows
    return unsorted


def grade(
    test: TestSet, probabilities: Iterable[Sequence[float] | None], truncated: int = 0
) -> tuple[list[Prediction], Scores]:
    """A prediction for every row, and the scores.

    `probabilities` has, for each usable row, one number per option or label, or None without an answer.
    Answers are compared as texts: of two identical options either is right. A row without an answer, or
    whose right answer is not among its options, counts as wrong.
    """
    labels = test.task.head == "sequence_classification"
    remaining = iter(probabilities)
    predictions: list[Prediction] = []
    truth: list[int] = []
    given: list[int] = []
    for number, (row, question) in enumerate(zip(test.rows, test.questions, strict=True)):
        label = str(row.get("label"))
        row_probabilities = next(remaining) if isinstance(question, Question) else None
        answer = question.answer if isinstance(question, Question) else None
        truth.append(-1 if answer is None else answer)
        if row_probabilities is None or not isinstance(question, Question):
            predictions.append(Prediction(row=number, label=label, predicted=None, correct=False))
            given.append(-1)
            continue
        names = test.task.names if labels else question.options
        predicted = max(range(len(row_probabilities)), key=row_probabilities.__getitem__)
        correct = answer is not None and names[predicted] == names[answer]
        rounded = [round(float(probability), 4) for probability in row_probabilities]
        predictions.append(
            Prediction(row=number, label=label, predicted=names[predicted], correct=correct, scores=rounded)
        )
        given.append(-1 if answer is None else answer if correct else predicted)
    return predictions, compute_scores(truth, given, test.task.names, balanced=labels, truncated=truncated)


def write_evaluation(folder: Path, evaluation: Evaluation, predictions: Sequence[Prediction]) -> None:
    """Write an evaluation; evaluation.json comes last and marks it as complete. StorageError."""
    lines = (json.dumps(prediction.model_dump(), ensure_ascii=False) + "\n" for prediction in predictions)
    record = evaluation.model_dump_json(indent=2) + "\n"
    replace_files({folder / PREDICTIONS: "".join(lines), folder / EVALUATION: record})


def _existing_evaluation(folder: Path, test: TestSet) -> Evaluation | None:
    """A complete evaluation on the same rows; None if there is none, or it is damaged."""
    try:
        existing = read_evaluation(folder)
    except TrainingError:
        return None
    return existing if existing.digest == test.digest else None
