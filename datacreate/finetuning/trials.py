"""Trials: a trial is the training of one model, with one seed and one learning rate.

With several GPUs, or with `nproc` above 1, trials run in several processes, each of which sees one GPU. Otherwise they
run in this process, one after the other.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import product
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

from datacreate import signals
from datacreate.errors import DatacreateError, TrainingError
from datacreate.files import replace_file
from datacreate.finetuning.encoder import Encoded, collator, load_with_head, with_lora
from datacreate.finetuning.records import MODEL, TrainedModel, TrainingDirectory, TrainingSpec, read_model
from datacreate.finetuning.statistics import compute_scores
from datacreate.hardware import device, has_bf16, usable_cores, visible_gpus
from datacreate.libraries import configure_process, quiet, training_errors

DEVICE_BATCH_SIZE = 16  # maximum number of rows per forward pass; larger batches accumulate gradients

_LOSS_WEIGHT = 1e-6  # of the loss in the score that chooses a checkpoint: it decides between equal scores
_DIVERGED = -1.0  # that score without a finite loss; NaN would never be replaced as the best
_POLL_SECONDS = 0.2

OnStep = Callable[[int, int, float | None], None]
"""A function that is called after each optimizer step of a trial. An error that it raises ends the trial.

It gets the number of steps done, the number of all steps, and the best validation score so far (None before the first).
"""

OnNamedStep = Callable[[str, int, int, float | None], None]
"""Like `OnStep`, for several trials: it first gets the name of the trial, such as "seed 1"."""


Trial = tuple[int, float]
"""The seed and the learning rate of a training."""


@dataclass(frozen=True)
class TrialInputs:
    """What all trials of a training have in common."""

    training: TrainingSpec
    encoder: Path
    tokenizer: Any
    rows: Encoded
    validation: Encoded | None
    max_length: int  # tokens
    device_batch_size: int = DEVICE_BATCH_SIZE


TrialEvent = float | None | TrainedModel | DatacreateError
"""What a process reports about its trials: the third argument of `OnStep` after each step, each trained model, and the
error that ended the process."""


def train_best_models(
    inputs: TrialInputs, seeds: Sequence[int], nproc: int | None, directory: TrainingDirectory, on_step: OnNamedStep
) -> Iterator[TrainedModel]:
    """Run a trial for each seed and learning rate; yield the best model of each seed when it is known."""
    rates = inputs.training.hyperparameters.learning_rates
    trials = list(product(seeds, rates))
    gpus = visible_gpus()
    nproc = min(nproc or len(gpus) or 1, len(trials))
    run_all = partial(_in_processes, nproc, gpus) if nproc > 1 else _in_this_process
    models_of_seed: defaultdict[int, dict[float, TrainedModel]] = defaultdict(dict)
    for model in run_all(inputs, trials, directory, on_step):
        models = models_of_seed[model.seed]
        models[model.learning_rate] = model
        if len(models) == len(rates):  # of equal scores the one with the first rate is kept
            yield max((models[rate] for rate in rates), key=lambda model: model.validation_score or 0.0)


def _in_this_process(
    inputs: TrialInputs, trials: Sequence[Trial], directory: TrainingDirectory, on_step: OnNamedStep
) -> Iterator[TrainedModel]:
    has_several_rates = len(inputs.training.hyperparameters.learning_rates) > 1
    for seed, rate in trials:
        name = f"seed {seed}, lr {rate:g}" if has_several_rates else f"seed {seed}"
        yield run_trial(inputs, seed, rate, directory.trial(seed, rate), partial(on_step, name))


def _in_processes(
    nproc: int,
    gpus: Sequence[str],
    inputs: TrialInputs,
    trials: Sequence[Trial],
    directory: TrainingDirectory,
    on_step: OnNamedStep,
) -> Iterator[TrainedModel]:
    """Run the trials in `nproc` processes, which are killed when this generator ends, even by an error."""
    context = multiprocessing.get_context("spawn")
    events: SimpleQueue[TrialEvent] = context.SimpleQueue()
    run = pickle.dumps(partial(run_trial, inputs))
    workers = []
    for number in range(nproc):
        folders = {trial: directory.trial(*trial) for trial in trials[number::nproc]}
        gpu = gpus[number % len(gpus)] if gpus else ""
        workers.append(context.Process(target=_run_trials, args=(run, folders, gpu, nproc, events)))
    steps = inputs.training.hyperparameters.steps(len(inputs.rows.dataset)) * len(trials)
    try:
        for worker in workers:
            worker.start()
        yield from _models_of_workers(workers, events, len(trials), steps, on_step)
    finally:
        for worker in workers:
            if worker.pid:
                worker.kill()
                worker.join()


def _models_of_workers(
    workers: Sequence[BaseProcess], events: SimpleQueue[TrialEvent], trials: int, steps: int, on_step: OnNamedStep
) -> Iterator[TrainedModel]:
    """Yield the models of all trials as the workers finish them; `steps` is the number of steps of all trials together.

    Raises the error of a trial, and TrainingError if a worker is killed.
    """
    unfinished, done = trials, 0
    best: float | None = None
    error: DatacreateError | None = None
    while unfinished:
        time.sleep(_POLL_SECONDS)
        was_killed = any(worker.exitcode for worker in workers)
        while not events.empty():
            match events.get():
                case TrainedModel() as model:
                    unfinished -= 1
                    yield model
                case DatacreateError() as error:
                    pass
                case best_score:
                    done += 1
                    best = max((score for score in (best, best_score) if score is not None), default=None)
        on_step(f"{trials} models", done, steps, best)
        if error:
            raise error
        if was_killed:
            raise TrainingError(
                "a training process was killed (probably out of memory); run the same command to resume, "
                "with a lower --device-batch-size or --nproc if it happens again"
            )


def _run_trials(
    pickled_run: bytes, folders: Mapping[Trial, Path], gpu: str, nproc: int, events: SimpleQueue[TrialEvent]
) -> None:
    """Run trials on one GPU, or with a share of the cores; this process ends when its parent ends.

    `pickled_run` is `run_trial` with its inputs. It is unpickled here, since that imports torch, which reads the
    environment.
    """
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // nproc)))
    configure_process()
    signals.ignore()  # the parent handles them
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        run: Callable[[int, float, Path, OnStep], TrainedModel] = pickle.loads(pickled_run)
        for trial, folder in folders.items():
            events.put(run(*trial, folder, lambda *step: events.put(step[-1])))
    except DatacreateError as error:
        events.put(error)


def _exit_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def run_trial(inputs: TrialInputs, seed: int, learning_rate: float, folder: Path, on_step: OnStep) -> TrainedModel:
    """Train one model, and save its best checkpoint in `folder`/model; returns the record of the model.

    The model of a finished trial is kept; an interrupted trial starts again.

    Raises TrainingError if the encoder does not fit or memory runs out, StorageError.
    """
    if (folder / "model" / MODEL).is_file():
        return read_model(folder / "model")
    import transformers

    class StepCallback(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            on_step(state.global_step, state.max_steps, state.best_metric)

    shutil.rmtree(folder, ignore_errors=True)
    hyperparameters = inputs.training.hyperparameters
    with quiet(), training_errors("--device-batch-size or --max-length", folder):
        transformers.set_seed(seed)  # before the new head is initialized
        model = load_with_head(inputs.encoder, inputs.training.head)
        if hyperparameters.lora:
            model = with_lora(model)
        trainer = make_trainer(inputs, model, seed, learning_rate, folder)
        trainer.add_callback(StepCallback())
        result, state = trainer.train(), trainer.state
        packages = ("datacreate", "torch", "transformers", "datasets", "peft", "accelerate")
        record = TrainedModel(
            training=inputs.training,
            seed=seed,
            learning_rate=learning_rate,
            step=state.best_global_step or min(state.global_step, state.max_steps),
            steps=state.max_steps,
            validation_score=state.best_metric,
            trained_rows=len(inputs.rows.dataset),
            validation_rows=len(inputs.validation.dataset) if inputs.validation else 0,
            max_length=inputs.max_length,
            seconds=round(result.metrics["train_runtime"], 1),
            versions={package: metadata.version(package) for package in packages},
        )
        _save(trainer.accelerator.unwrap_model(trainer.model), inputs.tokenizer, folder / "model", record)
    return record


def _save(model: Any, tokenizer: Any, folder: Path, record: TrainedModel) -> None:
    """Save a trained model with its adapters merged. The record is written last: it marks the model as complete."""
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    replace_file(folder / MODEL, record.model_dump_json(indent=2) + "\n")
    for checkpoint in folder.parent.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def make_trainer(inputs: TrialInputs, model: Any, seed: int, learning_rate: float, folder: Path) -> Any:
    """A Trainer for one model: batches grouped by length, evaluated on the validation rows at intervals."""
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer

    validation, patience = inputs.validation, inputs.training.hyperparameters.patience
    trainer = Trainer(
        model=model,
        args=_training_arguments(inputs, seed, learning_rate, folder),
        data_collator=collator(inputs.training.head, inputs.tokenizer),
        train_dataset=inputs.rows.dataset,
        eval_dataset=validation.dataset if validation else None,
        compute_loss_func=_loss,
        compute_metrics=partial(_validation_metric, inputs.training) if validation else None,
        callbacks=[EarlyStoppingCallback(patience)] if validation and patience else [],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    return trainer


def _training_arguments(inputs: TrialInputs, seed: int, learning_rate: float, folder: Path) -> Any:
    """The settings of a Trainer.

    A step has exactly `batch_size` rows, whatever the device batch size and the number of GPUs: the
    rows of a forward pass are the largest divisor of it that is not above the device batch size.
    """
    from transformers import TrainingArguments

    hyperparameters, rows = inputs.training.hyperparameters, len(inputs.rows.dataset)
    steps = hyperparameters.steps(rows)
    sizes = range(1, min(hyperparameters.batch_size, inputs.device_batch_size) + 1)
    per_device = max(size for size in sizes if hyperparameters.batch_size % size == 0)
    interval = math.ceil(rows / hyperparameters.batch_size)  # an epoch, or longer
    if hyperparameters.max_evaluations is not None:
        interval = max(interval, math.ceil(steps / hyperparameters.max_evaluations))
    has_validation = inputs.validation is not None
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=per_device,
        per_device_eval_batch_size=4 * inputs.device_batch_size,
        gradient_accumulation_steps=hyperparameters.batch_size // per_device,
        learning_rate=learning_rate,
        warmup_steps=hyperparameters.warmup,
        weight_decay=hyperparameters.weight_decay,
        optim="adamw_torch_fused",
        bf16=has_bf16(),
        use_cpu=device().type == "cpu",
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        eval_strategy="steps" if has_validation else "no",
        eval_steps=interval,
        save_strategy="best" if has_validation else "no",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=has_validation,
        metric_for_best_model="validation" if has_validation else None,
        greater_is_better=True if has_validation else None,
        dataloader_pin_memory=device().type == "cuda",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    if arguments.n_gpu > 1:  # the Trainer would split batches over all GPUs of this process
        arguments._n_gpu = 1
    return arguments


def _loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    """The mean cross-entropy over the rows of a step, of which a forward pass has a part.

    `labels` has shape (rows,), or (rows, classes) with soft labels. The name of the last parameter is the Trainer's.
    """
    from torch.nn.functional import cross_entropy

    rows = len(labels) if num_items_in_batch is None else num_items_in_batch / labels[0].numel()
    return cross_entropy(outputs.logits.float(), labels, reduction="sum") / rows


def _validation_metric(training: TrainingSpec, prediction: Any) -> dict[str, float]:
    """The number that chooses the best checkpoint: the chance-corrected score, or accuracy as in the paper.

    Ties are common on few rows and go to the lower loss.
    """
    import numpy as np
    from scipy.special import log_softmax

    truth, logits = prediction.label_ids, prediction.predictions
    loss = -log_softmax(logits, axis=-1)[np.arange(len(truth)), truth].mean()
    if not np.isfinite(loss):
        return {"validation": _DIVERGED}
    head, answers = training.head, logits.argmax(-1).tolist()
    balanced = training.hyperparameters.name != "paper" and not head.is_multiple_choice
    scores = compute_scores(truth.tolist(), answers, head.names, balanced=balanced)
    return {"validation": scores.score - _LOSS_WEIGHT * float(loss)}
