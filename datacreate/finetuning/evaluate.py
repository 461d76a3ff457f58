"""Models x benchmarks -> predictions and scores, kept beside each model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from datacreate.benchmarks import Benchmark, digest, find_benchmark, has_split, load_registry, read_split
from datacreate.errors import TrainingError
from datacreate.files import replace_file, storage_error
from datacreate.finetuning.directory import Model, read_model
from datacreate.finetuning.encode import Encoded, collator, encode, load_tokenizer
from datacreate.finetuning.encoder import load_with_head
from datacreate.finetuning.hardware import padding_multiple
from datacreate.finetuning.predict import probabilities
from datacreate.finetuning.record import (
    EVALUATION,
    PREDICTIONS,
    Evaluation,
    Prediction,
    Scores,
    read_evaluation,
)
from datacreate.finetuning.statistics import scores
from datacreate.finetuning.task import Question, Task, question_of, task_of
from datacreate.formats.example import Json
from datacreate.formats.task_format import load_format
from datacreate.logging_setup import quiet
from datacreate.signals import caught_signals


class Progress(Protocol):
    """Whoever wants to know how an evaluation is going."""

    def notify(self, text: str) -> None:
        """A line worth reading, once."""


@dataclass(frozen=True)
class TestSet:
    """One split of one benchmark, every row of it."""

    __test__ = False  # pytest: no test

    benchmark: Benchmark
    split: str
    digest: str
    task: Task
    rows: Sequence[dict[str, Json]]
    questions: Sequence[Question | str]  # in the order of the rows; a text says why a row cannot be asked

    @property
    def asked(self) -> list[Question]:
        """The questions that can be asked, in order."""
        return [question for question in self.questions if isinstance(question, Question)]


def read_test_set(name: str, split: str = "test") -> TestSet:
    """A benchmark's split as questions; BenchmarkError if it is not imported."""
    benchmark = find_benchmark(name)
    format, rows = load_format(benchmark.format_name), read_split(benchmark, split)
    task = task_of(format, rows, name)
    questions = [question_of(row, format, task) for row in rows]
    return TestSet(benchmark, split, digest(benchmark, split), task, rows, questions)


def benchmarks_for(model: Model, asked: Sequence[str], split: str = "test") -> list[str]:
    """The benchmarks to test a model on: those asked for, `all` that are here and have its head, or its own.

    Without a word it is the benchmark its rows are for and those out of distribution.
    """
    registry = load_registry()
    if "all" in asked:
        here = [name for name, benchmark in registry.items() if has_split(benchmark, split)]
        fits = [name for name in here if read_test_set(name, split).task == model.training.task]
        if not fits:
            raise TrainingError(
                f"no imported benchmark has {model.training.task.described}: `datacreate benchmarks list`"
            )
        return fits
    if asked:
        return list(dict.fromkeys(find_benchmark(name).name for name in asked))
    own = model.training.condition.benchmark
    if own is None:
        raise TrainingError("it is not known what the model was trained for; name --benchmark to test it on")
    return [own, *find_benchmark(own).out_of_distribution]


def evaluate(
    folder: Path, names: Sequence[str] = (), split: str = "test", progress: Progress | None = None
) -> list[Evaluation]:
    """Measure the model in `folder`; what was measured on the same rows before is read, not redone.

    Raises TrainingError for a damaged model or a benchmark that needs another head; Stopped after
    SIGINT or SIGTERM: what has been measured is kept.
    """
    with caught_signals():
        return list(_measured(folder, names, split, progress))


def _measured(
    folder: Path, names: Sequence[str], split: str, progress: Progress | None
) -> Iterator[Evaluation]:
    model = read_model(folder)
    loaded: tuple[Any, Any] | None = None
    for name in benchmarks_for(model, names, split):
        test = read_test_set(name, split)
        model.training.task.refuse_other(test.task, str(folder), name)
        place = folder / "evaluations" / f"{name}-{split}"
        if (known := known_evaluation(place, test)) is not None:
            yield known
            continue
        with quiet():
            if loaded is None:
                loaded = load_with_head(folder, model.training.task), load_tokenizer(folder)
            if progress:
                progress.notify(f"{folder}: {len(test.rows)} rows of {name} ({split})")
            encoded = _encoded(test, model, loaded[1])
            collate = collator(test.task, loaded[1], padding_multiple())
            label_ratio = probabilities(loaded[0], encoded.dataset, collate)
        predictions, figures = judged(test, label_ratio.tolist(), encoded.truncated)
        training = model.training
        evaluation = Evaluation(
            benchmark=name,
            split=split,
            head=test.task.head,
            digest=test.digest,
            condition=training.condition,
            encoder=training.encoder,
            encoder_sha256=training.encoder_sha256,
            settings=training.settings.described,
            selection=training.selection,
            seed=model.seed,
            scores=figures,
        )
        keep(place, evaluation, predictions)
        yield evaluation


def _encoded(test: TestSet, model: Model, tokenizer: Any) -> Encoded:
    settings = model.training.settings
    if not test.asked:
        raise TrainingError(
            f"{test.benchmark.name}: no row of its {test.split} split can be asked; import it again"
        )
    return encode(test.asked, test.task, tokenizer, model.longest, show_context=settings.show_context)


def judged(
    test: TestSet, answers: Iterable[Sequence[float] | None], truncated: int = 0
) -> tuple[list[Prediction], Scores]:
    """What was said of every row, and the scores.

    `answers` holds, for each row that was asked, a share per option or label, or None where there
    was no answer. Answers are compared as texts: of two options that read the same, either is
    right. A row without an answer, or whose right answer is none of its options, counts as wrong.
    """
    labels = test.task.head == "sequence_classification"
    each = iter(answers)
    predictions: list[Prediction] = []
    truth: list[int] = []
    given: list[int] = []
    for number, (row, question) in enumerate(zip(test.rows, test.questions, strict=True)):
        label = str(row.get("label"))
        label_ratio = next(each) if isinstance(question, Question) else None
        place = question.answer if isinstance(question, Question) else None
        truth.append(-1 if place is None else place)
        if label_ratio is None or not isinstance(question, Question):
            predictions.append(Prediction(row=number, label=label, predicted=None, correct=False))
            given.append(-1)
            continue
        names = test.task.names if labels else question.options
        said = max(range(len(label_ratio)), key=label_ratio.__getitem__)
        right = place is not None and names[said] == names[place]
        predictions.append(
            Prediction(
                row=number,
                label=label,
                predicted=names[said],
                correct=right,
                scores=[round(float(share), 4) for share in label_ratio],
            )
        )
        given.append(-1 if place is None else place if right else said)
    return predictions, scores(truth, given, test.task.names, balanced=labels, truncated=truncated)


def keep(place: Path, evaluation: Evaluation, predictions: Sequence[Prediction]) -> None:
    """Write an evaluation into its folder; evaluation.json comes last and makes it one."""
    try:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
    except OSError as error:
        raise storage_error(place, error) from None
    lines = (json.dumps(prediction.model_dump(), ensure_ascii=False) + "\n" for prediction in predictions)
    replace_file(place / PREDICTIONS, "".join(lines))
    replace_file(place / EVALUATION, evaluation.model_dump_json(indent=2) + "\n")


def known_evaluation(place: Path, test: TestSet) -> Evaluation | None:
    """An evaluation on these very rows that is there already; a damaged one is none."""
    try:
        known = read_evaluation(place)
    except (OSError, ValueError):
        return None
    return known if known.digest == test.digest else None
