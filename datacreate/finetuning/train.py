"""Fine-tune an encoder: one model per seed, with the best of the learning rates."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import BeforeValidator, Field, model_validator

from datacreate.benchmarks import find_benchmark
from datacreate.checkpoints.checkpoint import resolve
from datacreate.errors import UsageError
from datacreate.finetuning.encoder import encode, has_passages, load_config, load_tokenizer, max_input_tokens
from datacreate.finetuning.evaluate import TestSet, read_test_file, read_test_set
from datacreate.finetuning.hyperparameters import Count, Hyperparameters
from datacreate.finetuning.records import (
    HUMAN,
    MIXED,
    ZERO_SHOT,
    HeadSpec,
    ModelSelection,
    TrainedModel,
    TrainingDirectory,
    TrainingSpec,
    read_model,
)
from datacreate.finetuning.training_rows import (
    ClassificationExample,
    Source,
    TrainingSet,
    benchmark_head,
    check_distinct,
    make_training_set,
    read_source,
)
from datacreate.finetuning.trials import DEVICE_BATCH_SIZE, OnNamedStep, TrialInputs, train_best_models
from datacreate.formats import FormatOptions
from datacreate.formats.row_file import is_row_file
from datacreate.formats.task_format import read_format
from datacreate.hardware import check_build
from datacreate.libraries import quiet
from datacreate.locking import FolderLock
from datacreate.messages import Notify, Progress, no_notify
from datacreate.settings import CommaList, setting
from datacreate.signals import caught_signals

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as NumPy takes it
VALIDATION_FOLDS = 10  # one row in this many is a validation row: it chooses the best checkpoint
MIN_ROWS_TO_SPLIT = 40  # with fewer rows the last checkpoint is kept
FEW_ROWS = 20  # with fewer rows a warning is shown
FEW_ROWS_OF_LABEL = 5  # a label with fewer is named: it may be a misspelling
MAX_SHOWN_LABELS = 5
HIGH_LEARNING_RATE = 0.01  # ten times the largest default, that of adapters in small encoders


class TrainConfig(FormatOptions):
    """The settings of one training. The format options are for sources that are files."""

    sources: tuple[str, ...] = Field(min_length=1)  # run directories, files, names of benchmarks
    out: Path = setting("Folder for the models; the same command resumes there.", "output", default=...)
    encoder: str = setting("Preset or checkpoint folder.", "input", default="roberta-large")
    count: Count | None = setting("Rows to sample from the sources.", "input", shown_default="all")
    human_count: Count | None = setting(
        "Rows to sample from the train split of each benchmark; other sources are used whole.",
        "input",
        shown_default="all",
    )
    sample_seed: int = setting("Seed of the samples; samples of one seed are nested.", "input", default=0)
    benchmark: str | None = setting("The benchmark that the rows are for, if no source names it.", "input")
    condition: str | None = setting(
        "Name of the training set in reports.", "output", shown_default="human, the strategy, ..."
    )
    hyperparameters: Hyperparameters = Field(default_factory=Hyperparameters)
    seeds: Annotated[tuple[Seed, ...], CommaList] = setting(
        "Training seeds, one model each.",
        "training",
        default=(1, 2, 3),
        min_length=1,
        metavar="N,...",
        shown_default="1,2,3",
    )
    model_selection: ModelSelection | None = setting(
        "Rows that choose the best checkpoint: a tenth of the sources' rows, the benchmark's human dev split, those of "
        "--validation, or none.",
        "training",
        shown_default="file with --validation; else held-out, and human with --recipe paper",
    )
    validation: Path | None = setting(
        "File with rows that choose the best checkpoint, such as the validation part of `export --split`.",
        "training",
        metavar="FILE",
    )
    device_batch_size: Count = setting(
        "Rows per forward pass; gradients are accumulated.", "training", default=DEVICE_BATCH_SIZE
    )
    nproc: Annotated[Count | None, BeforeValidator(lambda value: None if value == "auto" else value)] = setting(
        "Training processes, one seed and learning rate each; auto: one per GPU.",
        "training",
        metavar="N|auto",
        shown_default="auto",
    )

    @property
    def selection(self) -> ModelSelection:
        default: ModelSelection = "human" if self.hyperparameters.name == "paper" else "held-out"
        return self.model_selection or ("file" if self.validation else default)

    @model_validator(mode="after")
    def _check_validation(self) -> Self:
        if self.selection == "file" and not self.validation:
            raise ValueError("--model-selection file: name the file with --validation FILE")
        if self.validation and self.selection != "file":
            raise ValueError(
                f"--validation: --model-selection {self.selection} takes other rows; remove one of the two"
            )
        return self


@dataclass(frozen=True)
class PreparedTraining:
    """A training whose rows are read and split, and not yet encoded as token ids."""

    training: TrainingSpec
    encoder: Path  # folder of its checkpoint
    rows: Sequence[ClassificationExample]
    validation_rows: Sequence[ClassificationExample]  # choose the best checkpoint; may be empty


def prepare(config: TrainConfig, notify: Notify = no_notify) -> PreparedTraining:
    """Read and split the rows, and find the encoder. Raises UsageError, TrainingError, CheckpointError."""
    found = _read_rows(config, notify)
    rows, validation_rows = found.examples, list[ClassificationExample]()
    selection, digest = config.selection, None
    if selection in ("human", "file"):
        chosen = _read_validation_set(config, found)
        validation_rows = [example for example in chosen.usable if example.answer_index is not None]
        digest = chosen.sha256
        if unusable := len(chosen.examples) - len(validation_rows):
            notify(f"skipped validation rows: {unusable} of {len(chosen.examples)}")
        trained = {row.inputs for row in rows}
        if config.validation and (repeated := sum(row.inputs in trained for row in validation_rows)):
            notify(
                f"warning: {config.validation} has rows that the model is trained on ({repeated} of "
                f"{len(validation_rows)}); their score does not hold for other rows"
            )
    elif selection == "held-out" and len(rows) >= MIN_ROWS_TO_SPLIT:
        split = make_held_out_splits(rows, found.head, VALIDATION_FOLDS)[0]
        validation_rows = [_with_most_probable_answer(rows[row]) for row in split.held_out]
        rows = tuple(rows[row] for row in split.trained)
    else:
        selection = "none"
    training, encoder = make_training_spec(found, config.encoder, config.hyperparameters, selection, digest)
    rates = len(training.hyperparameters.learning_rates)
    if rates > 1 and not validation_rows:
        few = "" if config.selection == "none" else f" ({len(found.examples)} rows)"
        more = f"{MIN_ROWS_TO_SPLIT} rows or more, " if few else ""
        raise UsageError(
            f"--learning-rates: --model-selection {config.selection} has no rows to choose one of {rates}{few}; "
            f"give one rate, {more}or another model selection"
        )
    _notify_unusual(training.hyperparameters, len(rows), notify)
    return PreparedTraining(training, encoder, rows, validation_rows)


def _read_validation_set(config: TrainConfig, rows: TrainingSet) -> TestSet:
    """The file of --validation, or the dev split of the benchmark. Raises UsageError, BenchmarkError."""
    if config.validation:
        return read_test_file(config.validation, rows.head, config, list(map(read_format, rows.formats)))
    if rows.condition.benchmark is None:
        option = "--model-selection human" if config.model_selection else f"--recipe {config.hyperparameters.name}"
        raise UsageError(
            f"{option} chooses the checkpoint by a benchmark's dev split: name it with --benchmark, give rows of your "
            "own with --validation FILE, or add --model-selection held-out"
        )
    return read_test_set(rows.condition.benchmark, "dev", rows.head)


def _notify_unusual(hyperparameters: Hyperparameters, rows: int, notify: Notify) -> None:
    """Notify values with which a model hardly learns."""
    steps, rate = hyperparameters.steps(rows), max(hyperparameters.learning_rates)
    if hyperparameters.warmup >= max(1, steps):
        notify(
            f"warning: {hyperparameters.warmup:g} warm-up steps of {steps} steps in total: the learning rate "
            "never gets to its full value; lower --warmup"
        )
    if rate > HIGH_LEARNING_RATE:
        notify(f"warning: a learning rate of {rate:g} is very high; usual are 1e-6 to 1e-3")


class HeldOutSplit(NamedTuple):
    """The indices of the rows that a model is trained on, and of the other rows."""

    trained: list[int]
    held_out: list[int]


def make_held_out_splits(examples: Sequence[ClassificationExample], head: HeadSpec, folds: int) -> list[HeldOutSplit]:
    """Splits of the rows into `folds` parts: each part is held out once.

    Stratified by label, where a label with fewer rows than folds counts as the most frequent one; the position of an
    option carries no meaning. Rows of one family stay together, since children resemble their siblings; those of a
    family larger than half a fold are split individually. Raises ValueError if there are fewer rows than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    family_sizes, total = Counter(example.family for example in examples), len(examples)
    groups = [
        example.family if 2 * folds * family_sizes[example.family] <= total else f"{example.family} {row}"
        for row, example in enumerate(examples)
    ]
    labels = [0 if head.is_multiple_choice else example.answer_index or 0 for example in examples]
    rows_per_label = Counter(labels)
    [(most_frequent, _)] = rows_per_label.most_common(1)
    labels = [label if rows_per_label[label] >= folds else most_frequent for label in labels]
    if len(set(groups)) == total:  # much faster, and the same without shared families
        splits = StratifiedKFold(folds, shuffle=True, random_state=0).split(groups, labels)
    else:
        splits = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(groups, labels, groups)
    return [HeldOutSplit(trained.tolist(), held_out.tolist()) for trained, held_out in splits]


def make_training_spec(
    rows: TrainingSet,
    encoder_name: str,
    hyperparameters: Hyperparameters,
    selection: ModelSelection = "none",
    validation_digest: str | None = None,
) -> tuple[TrainingSpec, Path]:
    """The record of what decides the models of a training, and the folder of the encoder. Raises CheckpointError."""
    encoder = resolve(encoder_name, "encoder")
    encoder_config = json.loads((encoder.path / "config.json").read_text(encoding="utf-8"))
    spec = TrainingSpec(
        condition=rows.condition,
        head=rows.head,
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        hyperparameters=hyperparameters.for_encoder(encoder_config),
        selection=selection,
        validation_digest=validation_digest,
        probabilities_digest=rows.probabilities_digest,
        formats=rows.formats,
    )
    return spec, encoder.path


def _read_rows(config: TrainConfig, notify: Notify) -> TrainingSet:
    """The rows of all sources; `notify` gets what is unusual about them. Raises UsageError for unusable ones."""
    check_distinct(config.sources)
    needed = benchmark_head(find_benchmark(config.benchmark)) if config.benchmark else None
    format_flag = config.first_changed_flag(FormatOptions.model_fields)
    if format_flag and not config.validation and not any(is_row_file(Path(source)) for source in config.sources):
        raise UsageError(f"{format_flag} only applies to files; runs and benchmarks have their own format")
    soft_labels = config.hyperparameters.soft_labels
    sources = [
        read_source(source, with_verifier_probabilities=soft_labels, options=config) for source in config.sources
    ]
    if config.condition:
        _check_condition(config.condition, sources)
    if config.human_count is not None:  # of a benchmark alone, these are the rows of `--count`
        if not any(source.is_human for source in sources):
            raise UsageError("--human-count: no source is a benchmark; name one, or remove the option")
        count, seed = config.human_count, config.sample_seed
        sources = [source.sample(count, seed) if source.is_human else source for source in sources]
    rows = make_training_set(
        sources,
        count=config.count,
        sample_seed=config.sample_seed,
        condition=config.condition,
        benchmark=config.benchmark,
    )
    if needed and config.benchmark:
        rows.head.check_same(needed, config.sources[0], config.benchmark)
    for reason, count in rows.skipped.items():
        notify(f"skipped rows: {count}, {reason}")
    if not rows.head.is_multiple_choice:
        _notify_rare_labels(rows, notify)
    unverified, total = sum(row.probabilities is None for row in rows.examples), len(rows.examples)
    if total < FEW_ROWS:
        notify(f"warning: only {total} row{'s' * (total != 1)}; a model learns little from fewer than {FEW_ROWS}")
    if soft_labels and unverified == total:
        raise UsageError(
            f"{', '.join(config.sources)}: no row was verified, so there are no soft labels; add a run that was made "
            "with --recipe best or --verifier, or remove --soft-labels"
        )
    if soft_labels and unverified:
        notify(f"rows that were not verified: {unverified} of {total}; they are trained on their label alone")
    return rows


def _check_condition(name: str, sources: Sequence[Source]) -> None:
    """Raise UsageError if reports use the name of a condition for other rows."""
    are_created = [source.generator is not None for source in sources]  # files may have human rows
    meaning = ""
    if name == HUMAN and any(are_created):
        meaning = "human rows alone"
    elif name.startswith(MIXED) and all(are_created):
        meaning = "created rows together with human rows"
    elif name == ZERO_SHOT:
        meaning = "models that are not trained"
    if meaning:
        raise UsageError(f"--condition {name}: reports use this name for {meaning}; choose another name")


def _notify_rare_labels(rows: TrainingSet, notify: Notify) -> None:
    """Notify the labels without rows, and among enough rows those with few, which may be misspellings."""
    by_index = Counter(example.answer_index for example in rows.examples)
    counts = {name: by_index[index] for index, name in enumerate(rows.head.names)}
    if absent := ", ".join(name for name, count in counts.items() if not count):
        notify(f"warning: no row has the label {absent}, so the model does not learn it")
    rare = [f"{name!r} ({count})" for name, count in counts.items() if 0 < count < FEW_ROWS_OF_LABEL]
    if rare and len(rows.examples) >= FEW_ROWS:
        more = f" and {len(rare) - MAX_SHOWN_LABELS} more" if len(rare) > MAX_SHOWN_LABELS else ""
        notify(
            f"labels with fewer than {FEW_ROWS_OF_LABEL} rows: {', '.join(rare[:MAX_SHOWN_LABELS])}{more}; they are "
            "hardly learned, or misspelled"
        )


def _with_most_probable_answer(example: ClassificationExample) -> ClassificationExample:
    """The example with the most probable answer of its soft label, if it has one: its assigned answer may be wrong."""
    probabilities, assigned = example.probabilities, example.answer_index
    if not probabilities:
        return example
    best = max(range(len(probabilities)), key=lambda answer: (probabilities[answer], answer == assigned))
    return replace(example, answer_index=best)


def checked_steps(progress: Progress, lock: FolderLock) -> OnNamedStep:
    """A callback that shows each step. It raises LockLost, which ends the training, if another process has the lock."""

    def on_step(trial: str, done: int, total: int, score: float | None) -> None:
        lock.check()
        progress.step(trial, done, total, score)

    return on_step


def train(config: TrainConfig, progress: Progress | None = None) -> list[TrainedModel]:
    """Train a model for every seed of `config`; finished trials are kept, an interrupted one starts again.

    Raises a DatacreateError: UsageError for unusable rows, TrainingError for encoders, RunMismatch if the folder holds
    another training; Stopped after SIGINT or SIGTERM, LockLost if another process has taken the folder
    over: after these two the same call resumes.
    """
    progress = progress or Progress()
    check_build(progress.notify)
    progress.notify("reading the rows and the encoder")
    prepared, directory = prepare(config, progress.notify), TrainingDirectory(config.out)
    with caught_signals(), directory.locked(prepared.training, progress.notify) as lock:
        seeds = [seed for seed in config.seeds if not directory.model(seed).is_dir()]
        if seeds:
            inputs = encode_inputs(prepared, config.device_batch_size, progress.notify)
            for model in train_best_models(inputs, seeds, config.nproc, directory, checked_steps(progress, lock)):
                lock.check()
                directory.keep(model)
        return [read_model(directory.model(seed)) for seed in config.seeds]


def encode_inputs(
    prepared: PreparedTraining, device_batch_size: int = DEVICE_BATCH_SIZE, notify: Notify = no_notify
) -> TrialInputs:
    """The token ids of a training; `notify` gets what is trained, and how many rows are cut.

    Raises TrainingError if the encoder cannot be read.
    """
    training, folder, row_count = prepared.training, prepared.encoder, len(prepared.rows)
    hyperparameters, head = training.hyperparameters, training.head
    split = f"{row_count} rows to train on, {len(prepared.validation_rows)} validation rows"
    notify(f"{training.encoder}, {head.description}: {split}, {hyperparameters.steps(row_count)} steps")
    notify(f"loading {training.encoder}")
    tokenizer = load_tokenizer(folder)
    length = max_input_tokens(tokenizer, load_config(folder), hyperparameters, with_passage=has_passages(prepared.rows))
    with quiet():
        rows = encode(prepared.rows, head, tokenizer, length, soft_labels=hyperparameters.soft_labels)
        validation = encode(prepared.validation_rows, head, tokenizer, length) if prepared.validation_rows else None
    if hyperparameters.max_length and hyperparameters.max_length > length:
        notify(f"--max-length {hyperparameters.max_length}: the encoder reads {length} tokens at most")
    if rows.truncated:
        notify(f"rows that are cut to {length} tokens: {rows.truncated} of {row_count}")
    return TrialInputs(training, folder, tokenizer, rows, validation, length, device_batch_size)
