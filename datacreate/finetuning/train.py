"""Fine-tune an encoder: one model per seed, the best learning rate of each kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Protocol

from datacreate.benchmarks import digest, find_benchmark, read_split
from datacreate.checkpoints import Checkpoint, resolve
from datacreate.errors import TrainingError, UsageError
from datacreate.finetuning.directory import Model, Training, TrainingDirectory, read_model
from datacreate.finetuning.encode import collator, encode, has_passages, load_tokenizer, longest_input
from datacreate.finetuning.encoder import load_shape
from datacreate.finetuning.hardware import is_first_process, padding_multiple
from datacreate.finetuning.record import Selection
from datacreate.finetuning.rows import TrainingSet, read_source, refuse_unverified, training_set
from datacreate.finetuning.settings import Settings
from datacreate.finetuning.split import hold_out
from datacreate.finetuning.task import Question, Task, question_of, task_of
from datacreate.finetuning.trial import DEVICE_ROWS, Inputs, Outcome, run_trial
from datacreate.formats.task_format import load_format
from datacreate.locking import FolderLock
from datacreate.logging_setup import quiet
from datacreate.signals import Signals, caught_signals

_VERSIONS = ("datacreate", "torch", "transformers", "datasets", "peft", "accelerate")


@dataclass(frozen=True)
class TrainConfig:
    """One training, as the user asks for it."""

    sources: tuple[str, ...]  # run directories, JSONL files, names of benchmarks
    out: Path
    encoder: str = "roberta-large"
    seeds: tuple[int, ...] = (1,)
    count: int | None = None  # rows to draw from the sources; None: all
    sample_seed: int = 0
    model_selection: Selection = "held-out"
    condition: str | None = None
    benchmark: str | None = None  # what the rows are for, where the sources do not say
    settings: Settings = field(default_factory=Settings)
    device_rows: int = DEVICE_ROWS


class Progress(Protocol):
    """Whoever wants to know how a training is going, or how a model answers."""

    def notify(self, text: str) -> None:
        """A line worth reading, once."""

    def step(self, what: str, done: int, total: int, score: float | None) -> None:
        """After each step of `what`; `score` is the best so far on the rows that choose, if any do."""


class Silent:
    """A `Progress` that says nothing."""

    def notify(self, text: str) -> None: ...

    def step(self, what: str, done: int, total: int, score: float | None) -> None: ...


def train(config: TrainConfig, progress: Progress | None = None) -> list[Model]:
    """Train a model for every seed of `config`, or go on training; those finished are left as they are.

    Raises a DatacreateError: TrainingError for rows or encoders that cannot be used, RunMismatch for
    a folder of another training, Stopped after SIGINT or SIGTERM, LockLost when another process has
    taken the folder over; after these the same call goes on.
    Under torchrun the first process alone returns the models.
    """
    progress = progress or Silent()
    if not config.sources or not config.seeds:
        raise UsageError("nothing to train: give at least one source and one seed")
    if config.benchmark is not None:
        find_benchmark(config.benchmark)
    if config.model_selection == "none" and len(config.settings.learning_rates) > 1:
        raise UsageError(
            "--model-selection none cannot choose between learning rates; give one, or let rows choose"
        )
    soft = config.settings.soft_labels
    sources = [read_source(source, verdicts=soft) for source in config.sources]
    if soft:
        refuse_unverified(sources)
    rows = training_set(
        sources,
        count=config.count,
        sample_seed=config.sample_seed,
        condition=config.condition,
        benchmark=config.benchmark,
    )
    for why, number in rows.left_out.items():
        progress.notify(f"{number} rows cannot be trained on and are left out: {why}")
    if soft and (bare := sum(one.verdict is None for one in rows.questions)):
        progress.notify(f"{bare} of {len(rows.questions)} rows have no verdict and keep their label")
    encoder = resolve(config.encoder, "encoder")
    used, choosing, selection, selection_digest = _divided(config, rows)
    training = Training(
        condition=rows.condition,
        task=rows.task,
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        settings=config.settings,
        selection=selection,
        selection_digest=selection_digest,
        verdicts_digest=rows.verdicts_digest,
    )
    directory = TrainingDirectory(config.out)
    with caught_signals() as signals, directory.locked(training, progress.notify) as lock:
        missing = [seed for seed in config.seeds if not directory.model(seed).is_dir()]
        if missing:
            progress.notify(_said(training, used, choosing))
            materials = _materials(config, rows.task, encoder, used, choosing)
        for seed in missing:
            _train_seed(seed, training, materials, directory, progress, signals, lock)
        if is_first_process():  # the others may be here before the last model is
            return [read_model(directory.model(seed)) for seed in config.seeds]
        return []


def _train_seed(
    seed: int,
    training: Training,
    materials: Inputs,
    directory: TrainingDirectory,
    progress: Progress,
    signals: Signals,
    lock: FolderLock | None,
) -> None:
    """Train a model with every learning rate and keep the best."""
    trials: dict[float, Outcome] = {}
    rates = training.settings.learning_rates
    for rate in rates:
        what = f"seed {seed}" + (f", lr {rate:g}" if len(rates) > 1 else "")
        tell = partial(progress.step, what)
        trials[rate] = run_trial(materials, seed, rate, directory.trial(seed, rate), tell, signals, lock)
    best = max(trials, key=lambda rate: trials[rate].score or 0.0)
    outcome = trials[best]
    model = Model(
        training=training,
        seed=seed,
        learning_rate=best,
        step=outcome.step,
        steps=outcome.steps,
        selection_score=None if outcome.score is None else round(outcome.score, 4) + 0.0,  # no -0
        trained_rows=len(materials.rows.dataset),
        selection_rows=len(materials.selection.dataset) if materials.selection else 0,
        longest=materials.longest,
        seconds=round(sum(trial.seconds for trial in trials.values()), 1),
        versions=_versions(),
    )
    if lock:
        lock.check()
        directory.keep(directory.trial(seed, best), model)


def _divided(
    config: TrainConfig, rows: TrainingSet
) -> tuple[Sequence[Question], Sequence[Question], Selection, str | None]:
    """The rows that are trained on, those that choose, what the latter are, and their digest."""
    if config.model_selection == "human":
        choosing, digest_ = _human_dev(rows)
        return rows.questions, choosing, "human", digest_
    if config.model_selection == "held-out":
        kept, held = hold_out(rows.questions, rows.families, rows.task)
        if held:
            return [rows.questions[i] for i in kept], [rows.questions[i] for i in held], "held-out", None
    return rows.questions, (), "none", None


def _human_dev(rows: TrainingSet) -> tuple[Sequence[Question], str]:
    """The dev split of the rows' benchmark."""
    name = rows.condition.benchmark
    if name is None:
        raise UsageError("--model-selection human needs a benchmark's dev split: name it with --benchmark")
    benchmark = find_benchmark(name)
    format, dev = load_format(benchmark.format_name), read_split(benchmark, "dev")
    rows.task.refuse_other(task_of(format, dev, name), "what is trained on", f"{name}'s dev split")
    found = [question_of(row, format, rows.task) for row in dev]
    asked = [q for q in found if isinstance(q, Question) and q.answer is not None]
    return asked, digest(benchmark, "dev")


def _materials(
    config: TrainConfig,
    task: Task,
    encoder: Checkpoint,
    used: Sequence[Question],
    choosing: Sequence[Question],
) -> Inputs:
    tokenizer = load_tokenizer(encoder.path)
    settings = config.settings
    longest = longest_input(tokenizer, load_shape(encoder.path), settings, has_passages(used))
    with quiet():
        encoded, chooses = (
            encode(part, task, tokenizer, longest, show_context=settings.show_context, soft_labels=soft)
            if part
            else None
            for part, soft in ((used, settings.soft_labels), (choosing, False))
        )
    if encoded is None:
        raise TrainingError("no row is left to train on; give more rows")
    return Inputs(
        encoder.path,
        task,
        tokenizer,
        collator(task, tokenizer, padding_multiple()),
        encoded,
        chooses,
        settings,
        longest,
        config.device_rows,
    )


def _said(training: Training, used: Sequence[Question], choosing: Sequence[Question]) -> str:
    """One line on what is about to be trained."""
    by = {
        "held-out": f"{len(choosing)} of them held out to choose the best model",
        "human": f"the best model chosen on {len(choosing)} human dev rows",
        "none": "no rows to choose on: the last model is kept",
    }[training.selection]
    shown = len(used) + (len(choosing) if training.selection == "held-out" else 0)
    steps = training.settings.steps(len(used))
    return f"{training.encoder} on {shown} rows ({training.task.described}), {steps} steps; {by}"


def _versions() -> dict[str, str]:
    return {package: metadata.version(package) for package in _VERSIONS}
