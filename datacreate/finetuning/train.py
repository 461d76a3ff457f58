"""Fine-tune an encoder: one model per seed, with the best of the recipe's learning rates.

A trial is one seed and one learning rate. With several GPUs, or with `nproc` above 1, each runs in a process
of its own that sees one GPU; otherwise they run here, one after the other.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from datacreate import signals
from datacreate.benchmarks import find_benchmark
from datacreate.checkpoints import resolve
from datacreate.errors import DatacreateError, TrainingError, UsageError
from datacreate.finetuning.encoder import (
    DEVICE_BATCH_SIZE,
    OnNamedStep,
    TrialInputs,
    encode,
    has_passages,
    load_config,
    load_tokenizer,
    max_input_tokens,
    run_trial,
)
from datacreate.finetuning.evaluate import read_test_set
from datacreate.finetuning.hyperparameters import Count, Hyperparameters
from datacreate.finetuning.records import (
    SelectionKind,
    TrainedModel,
    TrainingDirectory,
    TrainingSpec,
    read_model,
)
from datacreate.finetuning.training_rows import (
    MIN_ROWS_TO_SPLIT,
    SELECTION_FOLDS,
    ClassificationExample,
    Source,
    TrainingSet,
    check_distinct,
    held_out_splits,
    read_source,
    training_set,
)
from datacreate.formats.options import FormatOptions
from datacreate.formats.reader import is_row_file
from datacreate.hardware import check_build, usable_cores, visible_gpus
from datacreate.libraries import configure_process, quiet
from datacreate.messages import Notify, SilentProgress, StepProgress, no_notify
from datacreate.settings import CommaList, setting
from datacreate.signals import caught_signals

Seed = Annotated[int, Field(ge=0, lt=2**32)]  # as NumPy takes it
FEW_ROWS = 20  # with fewer rows a warning is shown


class TrainConfig(FormatOptions):
    """One training as requested; the format options are for sources that are files."""

    sources: tuple[str, ...] = Field(min_length=1)  # run directories, files, names of benchmarks
    out: Path = setting("Folder for the models; the same command resumes there.", "output", default=...)
    encoder: str = setting("Preset or checkpoint folder.", "input", default="roberta-large")
    count: Count | None = setting("Rows to sample from the sources.", "input", shown_default="all")
    human_count: Count | None = setting(
        "Rows to sample from the train split of a benchmark, of all sources only from this one.",
        "input",
        shown_default="all",
    )
    sample_seed: int = setting("Seed of the samples; samples of one seed are nested.", "input", default=0)
    benchmark: str | None = setting("The benchmark that the rows are for, if no source says it.", "input")
    condition: str | None = setting(
        "Name of the training set in reports.", "output", shown_default="human, the strategy, ..."
    )
    recipe: Hyperparameters = Field(default_factory=Hyperparameters)
    seeds: Annotated[tuple[Seed, ...], CommaList] = setting(
        "Training seeds, one model each.",
        "training",
        default=(1, 2, 3),
        min_length=1,
        metavar="N,...",
        shown_default="1,2,3",
    )
    model_selection: SelectionKind | None = setting(
        "Rows that choose the best checkpoint: a tenth of the sources' rows, the benchmark's human dev split, or none.",
        "training",
        shown_default="held-out; human with --recipe paper",
    )
    device_batch_size: Count = setting(
        "Rows per forward pass; gradients are accumulated.", "training", default=DEVICE_BATCH_SIZE
    )
    nproc: Annotated[Count | None, BeforeValidator(lambda n: None if n == "auto" else n)] = setting(
        "Training processes, one seed and learning rate each; auto: one per GPU.",
        "training",
        metavar="N|auto",
        shown_default="auto",
    )

    @property
    def selection(self) -> SelectionKind:
        return self.model_selection or ("human" if self.recipe.name == "paper" else "held-out")


@dataclass(frozen=True)
class Prepared:
    """A training before its rows are encoded; `encoder` is a folder."""

    training: TrainingSpec
    encoder: Path
    rows: Sequence[ClassificationExample]
    selection_rows: Sequence[ClassificationExample]  # choose the best checkpoint


def prepare(config: TrainConfig, notify: Notify = no_notify) -> Prepared:
    """Read and split the rows, and find the encoder. Raises UsageError, TrainingError, CheckpointError."""
    rows = _read_rows(config, notify)
    trained, selection_rows, selection, digest = _split_rows(config, rows)
    training, encoder = training_spec(rows, config.encoder, config.recipe, selection, digest)
    if (rates := len(training.recipe.learning_rates)) > 1 and not selection_rows:
        raise UsageError(
            f"--learning-rates: --model-selection {config.selection} has no rows to choose one of {rates} "
            f"({len(rows.examples)} rows); give one rate, {MIN_ROWS_TO_SPLIT} rows or more, or another selection"
        )
    return Prepared(training, encoder, trained, selection_rows)


def training_spec(
    rows: TrainingSet,
    encoder_name: str,
    recipe: Hyperparameters,
    selection: SelectionKind = "none",
    selection_digest: str | None = None,
) -> tuple[TrainingSpec, Path]:
    """What decides the models of a training, and the folder of the encoder. Raises CheckpointError."""
    encoder = resolve(encoder_name, "encoder")
    settings = json.loads((encoder.path / "config.json").read_text(encoding="utf-8"))
    spec = TrainingSpec(
        condition=rows.condition,
        task=rows.head,
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        recipe=recipe.for_encoder(settings),
        selection=selection,
        selection_digest=selection_digest,
        probabilities_digest=rows.probabilities_digest,
        formats=rows.formats,
    )
    return spec, encoder.path


def _read_rows(config: TrainConfig, notify: Notify) -> TrainingSet:
    check_distinct(config.sources)
    if config.benchmark is not None:
        find_benchmark(config.benchmark)
    flag = config.first_changed_flag(FormatOptions.model_fields)
    if flag and not any(is_row_file(Path(source)) for source in config.sources):
        raise UsageError(f"{flag} only applies to files; runs and benchmarks have their own format")
    soft_labels = config.recipe.soft_labels
    read = partial(read_source, verifier_probabilities=soft_labels, options=config)
    sources = list(map(read, config.sources))
    if config.human_count is not None:
        sources = _with_human_sample(sources, config.human_count, config.sample_seed)
    rows = training_set(
        sources,
        count=config.count,
        sample_seed=config.sample_seed,
        condition=config.condition,
        benchmark=config.benchmark,
    )
    for why, number in rows.skipped.items():
        notify(f"skipped rows: {number}, {why}")
    unverified, total = sum(row.probabilities is None for row in rows.examples), len(rows.examples)
    if total < FEW_ROWS:
        only = f"only {total} row{'s' * (total != 1)}"
        notify(f"warning: {only}; a model learns little from fewer than {FEW_ROWS}")
    if soft_labels and unverified == total:
        raise UsageError(
            f"{', '.join(config.sources)}: no row was verified, so there are no soft labels; add a run that was made "
            "with --recipe best or --verifier, or remove --soft-labels"
        )
    if soft_labels and unverified:
        notify(f"rows that were not verified: {unverified} of {total}; they are trained on their label alone")
    return rows


def _with_human_sample(sources: Sequence[Source], count: int, seed: int) -> list[Source]:
    """The sources, with `count` rows of each that is a benchmark: those of `--count` with the benchmark alone."""
    if not any(source.is_human for source in sources):
        raise UsageError("--human-count: no source is a benchmark; name one, or remove the option")
    return [source.sample(count, seed) if source.is_human else source for source in sources]


def train(config: TrainConfig, progress: StepProgress | None = None) -> list[TrainedModel]:
    """Train a model for every seed of `config`; finished trials are kept, an interrupted one starts again.

    Raises a DatacreateError: UsageError for unusable rows, TrainingError for encoders, RunMismatch if the folder holds
    another training; Stopped after SIGINT or SIGTERM, LockLost if another process has taken the folder
    over: after these two the same call resumes.
    """
    progress = progress or SilentProgress()
    check_build(progress.notify)
    progress.notify("reading the rows and the encoder")
    prepared = prepare(config, progress.notify)
    training, directory = prepared.training, TrainingDirectory(config.out)
    with caught_signals(), directory.locked(training, progress.notify) as lock:

        def report(what: str, done: int, total: int, score: float | None) -> None:
            lock.check()
            progress.step(what, done, total, score)

        if missing := [seed for seed in config.seeds if not directory.model(seed).is_dir()]:
            rows = f"{len(prepared.rows)} rows to train on, {len(prepared.selection_rows)} selection rows"
            steps = training.recipe.steps(len(prepared.rows))
            progress.notify(f"{training.encoder}, {training.task.description}: {rows}, {steps} steps")
            progress.notify(f"loading {training.encoder}")
            inputs = encode_inputs(prepared, config.device_batch_size)
            if (limit := training.recipe.max_length or 0) > inputs.max_length:
                progress.notify(f"--max-length {limit}: the encoder reads {inputs.max_length} tokens at most")
            if cut := inputs.rows.truncated:
                progress.notify(
                    f"rows that are cut to {inputs.max_length} tokens: {cut} of {len(prepared.rows)}"
                )
            for best in _best_models(inputs, missing, config.nproc, directory, report):
                lock.check()
                directory.keep(best)
        return [read_model(directory.model(seed)) for seed in config.seeds]


def _split_rows(
    config: TrainConfig, rows: TrainingSet
) -> tuple[Sequence[ClassificationExample], Sequence[ClassificationExample], SelectionKind, str | None]:
    """The rows to train on, those that choose the best checkpoint, their kind, and their digest if human."""
    examples = rows.examples
    if config.selection == "held-out" and len(examples) >= MIN_ROWS_TO_SPLIT:
        training, selection = held_out_splits(examples, rows.families, rows.head, SELECTION_FOLDS)[0]
        judged = [_judged(examples[i]) for i in selection]
        return [examples[i] for i in training], judged, "held-out", None
    if config.selection != "human":
        return examples, (), "none", None
    if rows.condition.benchmark is None:
        raise UsageError("--model-selection human needs a benchmark's dev split: name it with --benchmark")
    dev = read_test_set(rows.condition.benchmark, "dev", rows.head)
    chosen = [example for example in dev.usable if example.answer is not None]
    return examples, chosen, "human", dev.sha256


def _judged(example: ClassificationExample) -> ClassificationExample:
    """A selection row: if it has a soft label, with the most probable answer, since an assigned one may be wrong."""
    soft, own = example.probabilities or (), example.answer
    best = max(range(len(soft)), key=lambda answer: (soft[answer], answer == own), default=own)
    return replace(example, answer=best)


def encode_inputs(prepared: Prepared, device_batch_size: int = DEVICE_BATCH_SIZE) -> TrialInputs:
    """The token ids of a training. TrainingError if the encoder cannot be read."""
    training, path, trained = prepared.training, prepared.encoder, prepared.rows
    recipe, head, tokenizer = training.recipe, training.task, load_tokenizer(path)
    length = max_input_tokens(tokenizer, load_config(path), recipe, has_passages(trained))
    encoded = partial(encode, head=head, tokenizer=tokenizer, max_length=length)
    with quiet():
        rows = encoded(trained, soft_labels=recipe.soft_labels)
        selection = encoded(prepared.selection_rows) if prepared.selection_rows else None
    return TrialInputs(training, path, tokenizer, rows, selection, length, device_batch_size)


Trial = tuple[int, float]  # seed and learning rate


def _best_models(
    inputs: TrialInputs,
    seeds: Sequence[int],
    nproc: int | None,
    directory: TrainingDirectory,
    report: OnNamedStep,
) -> Iterator[TrainedModel]:
    """Run all trials; the best model of a seed, as soon as the trials of the seed have ended."""
    rates = inputs.training.recipe.learning_rates
    trials = [(seed, rate) for seed in seeds for rate in rates]
    gpus = visible_gpus()
    nproc = min(nproc or len(gpus) or 1, len(trials))
    run = partial(_in_processes, nproc, gpus) if nproc > 1 else _in_this_process
    ended: defaultdict[int, dict[float, TrainedModel]] = defaultdict(dict)
    for model in run(inputs, trials, directory, report):
        models = ended[model.seed]
        models[model.learning_rate] = model
        if len(models) == len(rates):
            yield max((models[rate] for rate in rates), key=lambda each: each.selection_score or 0.0)


def _in_this_process(
    inputs: TrialInputs, trials: Sequence[Trial], directory: TrainingDirectory, report: OnNamedStep
) -> Iterator[TrainedModel]:
    for seed, rate in trials:
        several = len(inputs.training.recipe.learning_rates) > 1
        named = partial(report, f"seed {seed}" + (f", lr {rate:g}" if several else ""))
        yield run_trial(inputs, seed, rate, directory.trial(seed, rate), named)


def _in_processes(
    nproc: int,
    gpus: Sequence[str],
    inputs: TrialInputs,
    trials: Sequence[Trial],
    directory: TrainingDirectory,
    report: OnNamedStep,
) -> Iterator[TrainedModel]:
    """Run the trials in `nproc` processes. Whatever ends this generator, also an error, kills them."""
    context = multiprocessing.get_context("spawn")
    events, pickled = context.SimpleQueue(), pickle.dumps(inputs)
    workers = []
    for number in range(nproc):
        folders = {trial: directory.trial(*trial) for trial in trials[number::nproc]}
        gpu = gpus[number % len(gpus)] if gpus else ""
        arguments = (run_trial, pickled, folders, gpu, nproc, events)
        workers.append(context.Process(target=_run_trials, args=arguments))
    total = inputs.training.recipe.steps(len(inputs.rows.dataset)) * len(trials)
    left, done, best = len(trials), 0, None
    try:
        for worker in workers:
            worker.start()
        while left:
            time.sleep(0.2)
            killed = any(worker.exitcode for worker in workers)
            while not events.empty():
                if isinstance(event := events.get(), DatacreateError):
                    raise event
                if isinstance(event, TrainedModel):
                    left -= 1
                    yield event
                else:
                    done, best = done + 1, max(filter(None, (best, event)), default=None)
            report(f"{len(trials)} models", done, total, best)
            if killed:
                raise TrainingError(
                    "a training process was killed (probably out of memory); run the same command to resume, "
                    "with a lower --device-batch-size or --nproc if it happens again"
                )
    finally:
        for worker in workers:
            if worker.pid:
                worker.kill()
                worker.join()


def _run_trials(
    run: Any, pickled: bytes, folders: Mapping[Trial, Path], gpu: str, nproc: int, events: Any
) -> None:
    """Run trials on one GPU, or with a share of the cores; this process ends when its parent ends.

    `events` gets the score of each step, each model, and the error that ends the last trial. The inputs are unpickled
    here, since that imports torch, which reads the environment.
    """
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // nproc)))
    configure_process()
    signals.ignore()  # the parent handles them
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        for trial, folder in folders.items():
            events.put(run(pickle.loads(pickled), *trial, folder, lambda *step: events.put(step[-1])))
    except DatacreateError as error:
        events.put(error)


def _exit_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
