"""Models x benchmarks -> predictions and scores, kept beside each model."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from datacreate.benchmarks import find_benchmark, has_split, load_registry, read_split, split_sha256
from datacreate.errors import TrainingError, UsageError
from datacreate.files import refuse_links, replace_files
from datacreate.finetuning.encoder import (
    Encoded,
    OnNamedStep,
    TrialInputs,
    collator,
    encode,
    load_tokenizer,
    load_with_head,
    run_trial,
)
from datacreate.finetuning.records import (
    EVALUATION,
    PREDICTIONS,
    Evaluation,
    HeadSpec,
    Prediction,
    Scores,
    TrainedModel,
    read_evaluation,
    read_model,
)
from datacreate.finetuning.statistics import compute_scores
from datacreate.finetuning.training_rows import (
    ClassificationExample,
    infer_head,
    json_sha256,
    name_index,
    read_file,
    to_classification_example,
)
from datacreate.formats.example import Json, dotted, field_at
from datacreate.formats.options import FormatOptions
from datacreate.formats.roles import label_text
from datacreate.formats.task_format import TaskFormat, load_format, read_format
from datacreate.hardware import device, has_bf16
from datacreate.libraries import quiet, training_errors
from datacreate.locking import LOCK_FILE, locked
from datacreate.messages import Notify, SilentProgress, StepProgress, no_notify
from datacreate.signals import caught_signals

BATCH_TOKENS = 16_384  # tokens per batch, padding included: many short rows or few long ones


@dataclass(frozen=True)
class TestSet:
    """The rows of one split of a benchmark, or of a file."""

    __test__ = False  # pytest: not a test

    name: str
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
    format, rows = load_format(benchmark.format_name), read_split(benchmark, split)
    own = infer_head(format, rows, name)
    if head is not None:
        head.check_same(own, "the model", name)
    return _test_set(name, split, split_sha256(benchmark, split), head or own, format, rows)


def read_test_file(
    path: Path, head: HeadSpec, options: FormatOptions, known: Sequence[TaskFormat] = ()
) -> TestSet:
    """A file with rows for a model with this head; UsageError if no row has an answer that the model knows.

    Rows with the fields of `known`, the formats that the model was trained on, are read with it.
    """
    source = read_file(path, options, known)
    answer, format = source.format.roles.answer, source.format
    has_labels = answer and format.head != "multiple_choice"
    if head.is_multiple_choice or not has_labels:  # labels may be fewer, or in another order
        head.check_same(infer_head(format, source.rows, source.name), "the model", source.name)
    # What was learned is no part of the hash: models of other texts and labels have the same test set.
    chosen = [dotted(answer or ()), list(options.inputs), list(options.ignore)]
    sha256 = json_sha256([chosen, format.document() if options.format else None, *source.rows])
    test = _test_set(path.name, "test", sha256, head, format, source.rows)
    if all(example.answer is None for example in test.usable):
        answers = ", ".join(sorted(set(test.labels))[:5])
        raise UsageError(
            f"{path}: the model has {head.description}, and no row has one as its answer: {answers}"
        )
    return test


def _test_set(
    name: str, split: str, sha256: str, head: HeadSpec, format: TaskFormat, rows: Sequence[dict[str, Json]]
) -> TestSet:
    labels = [""] * len(rows)
    for number, row in enumerate(rows):
        with suppress(KeyError, TypeError):  # `to_classification_example` says that it is missing
            labels[number] = label_text(field_at(row, format.roles.answer or ()))
    return TestSet(
        name, split, sha256, head, labels, [to_classification_example(row, format, head) for row in rows]
    )


def benchmarks_for(
    model: TrainedModel, requested: Sequence[str], split: str = "test", notify: Notify = no_notify
) -> list[str]:
    """The benchmarks to test a model on: those requested; with `all` every imported one with its head.

    By default the benchmark that its rows are for, and the imported out-of-distribution ones of that. Raises
    UsageError or TrainingError if there is none, BenchmarkError for an unknown name.
    """
    if "all" in requested:
        imported = [name for name, benchmark in load_registry().items() if has_split(benchmark, split)]
        fitting = [name for name in imported if model.training.task.is_same(read_test_set(name, split).head)]
        if not fitting:
            needed = model.training.task.description
            raise TrainingError(
                f"no imported benchmark has {needed}; import one: `datacreate benchmarks import NAME`"
            )
        return fitting
    if requested:
        return list(dict.fromkeys(find_benchmark(name).name for name in requested))
    benchmark = model.training.condition.benchmark
    if benchmark is None:
        raise UsageError(
            "the model was trained on rows of no benchmark; give --test FILE or --benchmark NAME"
        )
    others = find_benchmark(benchmark).out_of_distribution
    if missing := [name for name in others if not has_split(find_benchmark(name), split)]:
        notify(f"without {', '.join(missing)}: the {split} split is not imported")
    return [benchmark, *(name for name in others if name not in missing)]


def evaluate(
    folder: Path,
    names: Sequence[str] = (),
    split: str = "test",
    progress: StepProgress | None = None,
    *,
    files: Sequence[Path] = (),
    options: FormatOptions | None = None,
) -> list[Evaluation]:
    """Evaluate the model in `folder` on benchmarks and on files, which `options` say how to read.

    Existing evaluations on the same rows are read, not repeated. Raises TrainingError for a damaged model, UsageError
    for a test set that needs another head; Stopped after SIGINT or SIGTERM: finished evaluations are kept.
    """
    model, progress = read_model(folder), progress or SilentProgress()
    training, head = model.training, model.training.task
    benchmarks = benchmarks_for(model, names, split, progress.notify) if names or not files else []
    sources: list[str | Path] = [*benchmarks, *files]
    if len({path.name for path in files}) < len({*files}):
        raise UsageError("--test: two files have one name, by which evaluations are kept; rename one of them")
    load = cache(lambda: (load_with_head(folder, head), load_tokenizer(folder)))
    evaluation = partial(
        Evaluation,
        condition=training.condition,
        encoder=training.encoder,
        encoder_sha256=training.encoder_sha256,
        recipe=training.recipe.description,
        selection=training.selection,
        seed=model.seed,
    )

    def measure(test: TestSet) -> Measured:
        with quiet():
            rows = f"{len(test.labels)} row{'s' * (len(test.labels) != 1)}"
            progress.notify(f"evaluating {folder} on {rows} of {test.name} ({test.split})")
            network, tokenizer = load()
            encoded = encode(test.usable, head, tokenizer, model.max_length)
            predicted = probabilities(network, encoded.dataset, collator(head, tokenizer))
        return predicted.tolist(), encoded.truncated

    found = []
    with caught_signals():
        for source in sources:
            if isinstance(source, str):
                test = read_test_set(source, split, head)
            else:
                known = [read_format(document) for document in training.formats]
                test = read_test_file(source, head, options or FormatOptions(), known)
            found.append(load_or_measure_evaluation(folder, test, evaluation, measure, progress.notify))
    return found


Measured = tuple[Iterable[Sequence[float] | None], int]
"""Probabilities and the number of truncated rows, as `grade` takes them."""


def load_or_measure_evaluation(
    folder: Path,
    test: TestSet,
    evaluation: Callable[..., Evaluation],
    measure: Callable[[TestSet], Measured],
    notify: Notify,
) -> Evaluation:
    """The evaluation of a test set in `folder`/evaluations; measured and written if there is no complete one.

    `evaluation` makes one from what depends on the test set.
    Raises RunLocked if another process measures it, StorageError, and what `measure` raises.
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
        predictions, scores = grade(test, *measure(test))
        of_test = {"benchmark": test.name, "split": test.split, "head": test.head.head, "digest": test.sha256}
        found = evaluation(**of_test, scores=scores)
        lock.check()
        write_evaluation(target, found, predictions)
    return found


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
    batches, at = list[Any](), 0
    with torch.inference_mode(), training_errors("the --max-length of its `train`"):
        while at < len(order):
            size = max(1, batch_tokens // (int(lengths[order[at]]) * inputs_per_row))
            batch = collate([rows[int(i)] for i in order[at : at + size]])
            batch.pop("labels")
            batch = {name: tensor.to(device(), non_blocking=True) for name, tensor in batch.items()}
            with torch.autocast(device().type, torch.bfloat16, enabled=has_bf16()):
                logits = model(**batch).logits
            batches.append(torch.softmax(logits.float(), -1).cpu().numpy())
            at += size
    found = np.concatenate(batches)[np.argsort(order)]
    if not np.isfinite(found).all():
        raise TrainingError("the model diverged in training, it predicts no numbers; lower --learning-rates")
    return found


def held_out_probabilities(
    inputs: TrialInputs,
    splits: Sequence[tuple[Sequence[int], Sequence[int]]],
    folder: Path,
    report: OnNamedStep,
) -> dict[int, list[float]]:
    """The probabilities that students give to rows that they were not trained on, by the index of the row.

    A student is trained in `folder` for each pair of training rows and held-out rows (indices into `inputs.rows`).
    Finished students are kept, so that the same call resumes. Raises what `run_trial` raises.
    """
    import torch

    dataset, head = inputs.rows.dataset, inputs.training.task
    rate = inputs.training.recipe.learning_rates[0]
    found: dict[int, list[float]] = {}
    for number, (trained, held_out) in enumerate(splits, 1):
        place, name = folder / f"student-{number}", f"student {number} of {len(splits)}"
        rows = Encoded(dataset.select(trained), 0)
        run_trial(replace(inputs, rows=rows), 1, rate, place, partial(report, name))
        with quiet():
            student, pad = load_with_head(place / "model", head), collator(head, inputs.tokenizer)
            given = probabilities(student, dataset.select(held_out), pad)
        found |= zip(held_out, given.tolist(), strict=True)
        del student, pad
        gc.collect()  # of a Trainer, which is part of reference cycles
    torch.cuda.empty_cache()  # a server may need the memory next
    return found


def grade(
    test: TestSet, probabilities: Iterable[Sequence[float] | None], truncated: int = 0
) -> tuple[list[Prediction], Scores]:
    """A prediction for every row, and the scores.

    `probabilities` has, for each usable row, one number per option or label, or None without an answer.
    Answers are compared as texts: of two identical options either is right. A row without a prediction, or
    whose right answer is not among its options, counts as wrong.
    """
    labels = not test.head.is_multiple_choice
    remaining = iter(probabilities)
    predictions, truth, given = list[Prediction](), list[int](), list[int]()
    for number, (label, example) in enumerate(zip(test.labels, test.examples, strict=True)):
        row_probabilities, said = None, -1
        answer = name_index(label, test.head.names) if labels else None
        predicted, correct, scores = None, False, list[float]()
        if isinstance(example, ClassificationExample):
            row_probabilities, answer = next(remaining), example.answer
            names = test.head.names if labels else example.options
        if row_probabilities is not None:
            best = max(range(len(row_probabilities)), key=row_probabilities.__getitem__)
            predicted, correct = names[best], answer is not None and names[best] == names[answer]
            scores = [round(float(probability), 4) for probability in row_probabilities]
            said = -1 if answer is None else answer if correct else best
        truth.append(-1 if answer is None else answer)
        given.append(said)
        predictions.append(
            Prediction(row=number, label=label, predicted=predicted, correct=correct, scores=scores)
        )
    return predictions, compute_scores(truth, given, test.head.names, balanced=labels, truncated=truncated)


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
    return existing if existing.digest == test.sha256 else None
