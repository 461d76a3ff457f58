"""Evaluates models on test sets: predictions and scores, which are kept next to each model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from datacreate.benchmarks import find_benchmark, has_split, load_registry, split_sha256
from datacreate.checkpoints.folder import check_loadable
from datacreate.errors import TrainingError, UsageError
from datacreate.files import refuse_links, replace_files
from datacreate.finetuning.encoder import collator, encode, load_tokenizer, load_with_head
from datacreate.finetuning.records import (
    EVALUATION,
    PREDICTIONS,
    Evaluation,
    HeadSpec,
    NameIndices,
    Prediction,
    Scores,
    TrainedModel,
    read_evaluation,
    read_model,
)
from datacreate.finetuning.statistics import compute_scores
from datacreate.finetuning.training_rows import (
    ClassificationExample,
    Source,
    benchmark_head,
    infer_head,
    json_sha256,
    read_benchmark,
    read_file,
    row_label,
    rows_digest,
    to_classification_example,
    with_varying_inputs,
)
from datacreate.formats import FormatOptions
from datacreate.formats.example import dotted
from datacreate.formats.task_format import TaskFormat, load_format, read_format
from datacreate.hardware import device, has_bf16
from datacreate.libraries import quiet, training_errors
from datacreate.locking import LOCK_FILE, locked
from datacreate.messages import Notify, did_you_mean, no_notify
from datacreate.signals import caught_signals

BATCH_TOKENS = 16_384  # tokens per batch, padding included: many short rows or few long ones


@dataclass(frozen=True)
class TestSet:
    """Rows that models are tested on: one split of a benchmark, or a file."""

    __test__ = False  # pytest: not a test

    name: str  # of the benchmark; of a file, its name and the beginning of the hash
    split: str
    sha256: str
    head: HeadSpec
    labels: Sequence[str]  # the right answer of each row
    examples: Sequence[ClassificationExample | str]  # per row; a string says why the row cannot be encoded

    @property
    def usable(self) -> list[ClassificationExample]:
        """The examples that can be encoded, in order."""
        return [example for example in self.examples if isinstance(example, ClassificationExample)]


def read_test_set(name: str, split: str = "test", head: HeadSpec | None = None) -> TestSet:
    """A benchmark's split, for a model with this head if there is one.

    BenchmarkError if it is not imported, UsageError if it needs another head.
    """
    benchmark = find_benchmark(name)
    own = benchmark_head(benchmark)
    if head is not None:
        head.check_same(own, "the model", name)
    return _test_set(name, split, split_sha256(benchmark, split), head or own, read_benchmark(name, split))


def read_test_file(
    path: Path, head: HeadSpec, options: FormatOptions, known_formats: Sequence[TaskFormat] = ()
) -> TestSet:
    """A file with rows for a model with this head. Raises UsageError if no row has an answer that the model knows.

    Rows that have the fields of one of the `known_formats`, in which the model was trained, are read in that format,
    others as for a training.
    """
    source = read_file(path, options, known_formats)
    if source.format not in known_formats:
        source = replace(source, format=with_varying_inputs(source.format, source.values))
    answer_path, task_format = source.format.roles.answer, source.format
    if answer_path is None:
        raise UsageError(
            f"{path}: no field is recognized as the label of a test row; the model has {head.description}: "
            "give every row its right answer, or name its field with --labels FIELD=a,b,c"
        )
    has_labels = task_format.head != "multiple_choice"
    if head.is_multiple_choice or not has_labels:  # labels may be fewer, or in another order
        head.check_same(infer_head(source), "the model", source.name)
    # What was learned is not part of the hash: models of other texts and labels have the same test set.
    chosen_fields = [dotted(answer_path), list(options.inputs), list(options.ignore)]
    given_format = load_format(options.format).document() if options.format else None
    sha256 = json_sha256([chosen_fields, given_format, *source.values])
    # Its hash keeps the name apart from those of benchmarks and of other files.
    test = _test_set(f"{path.stem}-{sha256[:8]}", "test", sha256, head, source)
    if all(example.answer_index is None for example in test.usable):
        answers = ", ".join(sorted(set(test.labels))[:5])
        raise UsageError(f"{path}: the model has {head.description}, and no row has one as its answer: {answers}")
    return test


def _test_set(name: str, split: str, sha256: str, head: HeadSpec, source: Source) -> TestSet:
    """The rows as a test set for a model with this head."""
    labels = [""] * len(source.rows)
    for row, values in enumerate(source.values):
        with suppress(KeyError, TypeError):  # `to_classification_example` says that it is missing
            labels[row] = row_label(values, source.format)
    examples = [to_classification_example(values, source.format, head) for values in source.values]
    return TestSet(name, split, sha256, head, labels, examples)


def benchmarks_for(model: TrainedModel, requested: Sequence[str], split: str, notify: Notify) -> list[str]:
    """The benchmarks to test a model on: those requested; with `all` every imported one with its head.

    By default the benchmark that its rows are for, and the imported out-of-distribution ones of that. Raises
    UsageError or TrainingError if there is none, BenchmarkError for an unknown name.
    """
    if "all" in requested:
        head = model.training.head
        alike = {name: each for name, each in load_registry().items() if head.is_same(benchmark_head(each))}
        if fitting := [name for name, benchmark in alike.items() if has_split(benchmark, split)]:
            return fitting
        advice = "import one: `datacreate benchmarks import NAME`"
        raise TrainingError(f"no imported benchmark has {head.description}; {advice}")
    if requested:
        return list(dict.fromkeys(find_benchmark(name).name for name in requested))
    benchmark = model.training.condition.benchmark
    if benchmark is None:
        raise UsageError("the model was trained on rows of no benchmark; give --test FILE or --benchmark NAME")
    others = find_benchmark(benchmark).out_of_distribution
    if missing := [name for name in others if not has_split(find_benchmark(name), split)]:
        notify(f"without {', '.join(missing)}: the {split} split is not imported")
    return [benchmark, *(name for name in others if name not in missing)]


class ModelAnswers(NamedTuple):
    """The answers of a model to the usable rows of a test set."""

    probabilities: Iterable[Sequence[float] | None]  # per row, of each option or label; None without an answer
    truncated: int  # rows that were cut to the model's input length


def evaluate(
    folder: Path,
    names: Sequence[str] = (),
    split: str = "test",
    notify: Notify = no_notify,
    *,
    files: Sequence[Path] = (),
    options: FormatOptions | None = None,
    on_evaluation: Callable[[Evaluation], object] = lambda _: None,
) -> list[Evaluation]:
    """Evaluate the model in `folder` on benchmarks and on files, which `options` say how to read.

    `on_evaluation` gets each evaluation as soon as it is made: a later test set may fail. Existing evaluations on the
    same rows are read, not repeated. Raises TrainingError or CheckpointError for a damaged model, UsageError for a test
    set that needs another head; Stopped after SIGINT or SIGTERM: finished evaluations are kept.
    """
    model = read_model(folder)
    training = model.training
    benchmarks = benchmarks_for(model, names, split, notify) if names or not files else []
    new_evaluation = partial(
        Evaluation,
        condition=training.condition,
        encoder=training.encoder,
        encoder_sha256=training.encoder_sha256,
        hyperparameters=training.hyperparameters.description,
        selection=training.selection,
        seed=model.seed,
    )
    known_formats = [read_format(document) for document in training.formats if files]

    @cache
    def network_and_tokenizer() -> tuple[Any, Any]:  # not needed if all evaluations exist
        check_loadable(folder, "encoder", trust_remote_code=False)
        return load_with_head(folder, training.head, is_trained=True), load_tokenizer(folder)

    def answer(test: TestSet) -> ModelAnswers:
        rows = len(test.labels)
        notify(f"evaluating {folder} on {rows} row{'s' * (rows != 1)} of {test.name} ({test.split})")
        with quiet():
            network, tokenizer = network_and_tokenizer()
            encoded = encode(test.usable, training.head, tokenizer, model.max_length)
            predicted = probabilities(network, encoded.dataset, collator(training.head, tokenizer))
        return ModelAnswers(predicted.tolist(), encoded.truncated)

    def own_test_set(path: Path) -> TestSet:
        test = read_test_file(path, training.head, options or FormatOptions(), known_formats)
        if rows_digest(test.usable) == training.condition.digest:
            notify(f"warning: {path} has the rows that {folder} was trained on; its score does not hold for other rows")
        if not (head := training.head).is_multiple_choice:
            unknown = [label for label in sorted(set(test.labels)) if label and head.index(label) is None]
            if misspelt := [label + hint for label in unknown if (hint := did_you_mean(label, head.names))]:
                notify(f"warning: {path}: each is a class that the model has not learned: {', '.join(misspelt[:5])}")
        return test

    tests = chain(
        (read_test_set(name, split, training.head) for name in benchmarks), map(own_test_set, dict.fromkeys(files))
    )
    evaluations = []
    with caught_signals():
        for test in tests:
            evaluations.append(load_or_evaluate(folder, test, new_evaluation, answer, notify))
            on_evaluation(evaluations[-1])
    return evaluations


def load_or_evaluate(
    folder: Path,
    test: TestSet,
    new_evaluation: Callable[..., Evaluation],
    answer: Callable[[TestSet], ModelAnswers],
    notify: Notify,
) -> Evaluation:
    """The evaluation of a model on a test set, read from `folder`/evaluations; if none is complete, made and written.

    `answer` returns the model's answers to the test set. `new_evaluation` makes an `Evaluation` of this model; it
    gets the fields that depend on the test set. Raises RunLocked if another process evaluates the model on this test
    set, StorageError, and what `answer` raises.
    """
    target = folder / "evaluations" / f"{test.name}-{test.split}"
    refuse_links(target.parent, target)
    existing = _existing_evaluation(target, test)
    if existing and not (target / LOCK_FILE).exists():  # a killed process leaves one, and more to remove
        return existing
    if not test.usable:
        raise TrainingError(f"{test.name}: no usable row in its {test.split} split; import it again")
    with locked(target, notify) as lock:
        if existing := _existing_evaluation(target, test):  # another process was faster
            return existing
        if (target / EVALUATION).exists():
            notify(f"{target} had an evaluation on other rows of that name; it is replaced")
        predictions, scores = grade(test, *answer(test))
        made = new_evaluation(
            benchmark=test.name, split=test.split, head=test.head.head, digest=test.sha256, scores=scores
        )
        lock.check()
        write_evaluation(target, made, predictions)
    return made


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
    batches, start = list[Any](), 0
    with torch.inference_mode(), training_errors("the --max-length of its `train`"):
        while start < len(order):
            size = max(1, batch_tokens // (int(lengths[order[start]]) * inputs_per_row))
            batch = collate([rows[int(row)] for row in order[start : start + size]])
            batch.pop("labels")
            batch = {name: tensor.to(device(), non_blocking=True) for name, tensor in batch.items()}
            with torch.autocast(device().type, torch.bfloat16, enabled=has_bf16()):
                logits = model(**batch).logits
            batches.append(torch.softmax(logits.float(), -1).cpu().numpy())
            start += size
    in_row_order = np.concatenate(batches)[np.argsort(order)]
    if not np.isfinite(in_row_order).all():
        raise TrainingError("the model diverged in training: its outputs are no numbers (NaN); lower --learning-rates")
    return in_row_order


def most_probable(row_probabilities: Sequence[float]) -> int:
    """The index of the highest probability; of equal ones the first."""
    return max(range(len(row_probabilities)), key=row_probabilities.__getitem__)


def grade(
    test: TestSet, probabilities_of_rows: Iterable[Sequence[float] | None], truncated: int = 0
) -> tuple[list[Prediction], Scores]:
    """A prediction for every row of a test set, and the scores of a model; the other arguments are its `ModelAnswers`.

    Answers are compared as texts: if two options are identical, either is right. A row without a prediction, or
    whose right answer is not among its options, counts as wrong. So does one whose label the model has not learned:
    the label is a class of the scores.
    """
    has_labels, learned = not test.head.is_multiple_choice, test.head.names
    classes = NameIndices(learned)
    for label in test.labels if has_labels else ():
        if label and classes.find(label) is None:
            classes.add(label)
    remaining = iter(probabilities_of_rows)
    predictions, truth, answers = list[Prediction](), list[int](), list[int]()
    for row, (label, example) in enumerate(zip(test.labels, test.examples, strict=True)):
        names, right, row_probabilities = learned, None, None
        if isinstance(example, ClassificationExample):
            names, right, row_probabilities = example.options or learned, example.answer_index, next(remaining)
        if has_labels:
            right = classes.find(label)
        predicted, is_correct, answer = None, False, -1
        if row_probabilities is not None:
            best = most_probable(row_probabilities)
            predicted = names[best]
            if right is not None:
                is_correct = right < len(names) and predicted == names[right]
                answer = right if is_correct else best
        truth.append(-1 if right is None else right)
        answers.append(answer)
        scores = [round(float(probability), 4) for probability in row_probabilities or ()]
        predictions.append(Prediction(row=row, label=label, predicted=predicted, correct=is_correct, scores=scores))
    unlearned = sum(right >= len(learned) for right in truth) if has_labels else 0
    return predictions, compute_scores(
        truth, answers, classes.names, balanced=has_labels, unlearned=unlearned, truncated=truncated
    )


def write_evaluation(folder: Path, evaluation: Evaluation, predictions: Sequence[Prediction]) -> None:
    """Write an evaluation; evaluation.json comes last and marks it as complete. Raises StorageError."""
    lines = (json.dumps(prediction.model_dump(), ensure_ascii=False) + "\n" for prediction in predictions)
    record = evaluation.model_dump_json(indent=2) + "\n"
    replace_files({folder / PREDICTIONS: "".join(lines), folder / EVALUATION: record})


def _existing_evaluation(folder: Path, test: TestSet) -> Evaluation | None:
    """A complete evaluation on the same rows; None if there is none, or it is damaged."""
    try:
        existing = read_evaluation(folder)
    except TrainingError:
        return None
    return existing if existing.digest == test.sha256 else None
