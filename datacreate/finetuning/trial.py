"""One model: one seed and one learning rate, trained by transformers' Trainer.

It can be interrupted at any step. A signal saves a checkpoint; after SIGKILL, the steps since the last
checkpoint are repeated. Two checkpoints are kept, the last and the best.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from datacreate.errors import Stopped, StorageError, TrainingError
from datacreate.files import replace_file, storage_error
from datacreate.finetuning.encoder import Encoded, load_with_head, with_lora
from datacreate.finetuning.records import MODEL, Model, Training, read_model
from datacreate.finetuning.statistics import chance_corrected
from datacreate.hardware import device, has_bf16
from datacreate.logging_setup import quiet

COMPLETE = "complete"  # written into a checkpoint after all its other files, and removed before them

DEVICE_BATCH_SIZE = 16
"""Most rows per forward pass; larger batches accumulate gradients."""

SORTED_BATCHES = 50
"""Batches whose rows are sorted by length together. Larger: less padding; smaller: more random batches."""

Report = Callable[[int, int, float | None], None]
"""Called after each step: steps done, steps in total, best selection score."""

ShouldStop = Callable[[], bool]
"""Called after each step: whether to save a checkpoint and stop. An error that it raises stops without writing."""


@dataclass(frozen=True)
class Inputs:
    """What all trials of a training share."""

    training: Training
    encoder: Path
    tokenizer: Any
    collate: Any
    rows: Encoded
    selection: Encoded | None
    max_length: int  # tokens
    device_batch_size: int = DEVICE_BATCH_SIZE


def run_trial(
    inputs: Inputs, seed: int, learning_rate: float, folder: Path, report: Report, should_stop: ShouldStop
) -> Model:
    """Train to the end and save the best model in `folder`/model; resume from the last checkpoint there.

    Raises Stopped when `should_stop` asks for it, TrainingError if the encoder does not fit or memory runs
    out, StorageError.
    """
    if (folder / "model" / MODEL).is_file():
        return read_model(folder / "model")
    if should_stop():
        raise Stopped("stopped by a signal; run the same command to resume")
    import transformers

    recipe = inputs.training.recipe
    with quiet(), one_line_errors("--device-batch-size or --max-length", folder):
        transformers.set_seed(seed)  # before the new head is initialized
        model = load_with_head(inputs.encoder, inputs.training.task)
        if recipe.lora:
            model = with_lora(model, recipe)
        checkpoint = last_checkpoint(folder)
        trainer = make_trainer(inputs, model, seed, learning_rate, folder)
        watch = _watch(report, should_stop)
        trainer.add_callback(watch)
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        state = trainer.state
        should_stop()  # raises if another process has taken over; a finished training is saved in any case
        if watch.stopped:
            raise Stopped(
                f"stopped by a signal at step {state.global_step} of {state.max_steps}; "
                "run the same command to resume"
            )
        packages = ("datacreate", "torch", "transformers", "datasets", "peft", "accelerate")
        record = Model(
            training=inputs.training,
            seed=seed,
            learning_rate=learning_rate,
            step=state.best_global_step or min(state.global_step, state.max_steps),
            steps=state.max_steps,
            selection_score=state.best_metric,
            trained_rows=len(inputs.rows.dataset),
            selection_rows=len(inputs.selection.dataset) if inputs.selection else 0,
            max_length=inputs.max_length,
            seconds=round(result.metrics["train_runtime"], 1),
            versions={package: metadata.version(package) for package in packages},
        )
        _save(trainer.accelerator.unwrap_model(trainer.model), inputs.tokenizer, folder, record)
    return record


def _save(model: Any, tokenizer: Any, folder: Path, record: Model) -> None:
    """Save the model, adapters merged. The record is written last and marks it as complete."""
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    _sync(folder / "model")
    replace_file(folder / "model" / MODEL, record.model_dump_json(indent=2) + "\n")
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Return when all files of the folder are on the disk."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint whose best model is complete too; others newer than it are removed."""
    steps = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}
    for step in sorted(steps, reverse=True):
        complete = (steps[step] / COMPLETE).is_file()
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # a damaged state
            state = json.loads((steps[step] / "trainer_state.json").read_text(encoding="utf-8"))
            best = folder / f"checkpoint-{state['best_global_step'] or step}"
            if complete and (best / COMPLETE).is_file():
                return steps[step]
        _remove_checkpoint(steps[step])
    return None


def _remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint; one that is removed in part is not complete."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def make_trainer(inputs: Inputs, model: Any, seed: int, learning_rate: float, folder: Path) -> Any:
    """A Trainer for one model: batches grouped by length, evaluated on the selection rows at intervals.

    A step has exactly the recipe's batch size, whatever the device batch size and the number of GPUs: the
    rows of a forward pass are the largest divisor of it that is not above the device batch size.
    """
    from torch.nn.functional import cross_entropy
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments

    recipe, rows = inputs.training.recipe, len(inputs.rows.dataset)
    steps = recipe.steps(rows)
    fits = range(1, min(recipe.batch_size, inputs.device_batch_size) + 1)
    per_device = max(size for size in fits if recipe.batch_size % size == 0)
    interval = math.ceil(rows / recipe.batch_size)  # an epoch, or longer
    if recipe.max_evaluations is not None:
        interval = max(interval, math.ceil(steps / recipe.max_evaluations))
    warmup = math.ceil(recipe.warmup_ratio * steps) if recipe.warmup_steps is None else recipe.warmup_steps
    selects = inputs.selection is not None
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=per_device,
        per_device_eval_batch_size=4 * inputs.device_batch_size,
        gradient_accumulation_steps=recipe.batch_size // per_device,
        learning_rate=learning_rate,
        warmup_steps=warmup,
        weight_decay=recipe.weight_decay,
        optim="adamw_torch_fused",
        bf16=has_bf16(),
        tf32=True if device().type == "cuda" else None,
        use_cpu=device().type == "cpu",
        train_sampling_strategy="group_by_length",  # of evaluations
        length_column_name="length",
        eval_strategy="steps" if selects else "no",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        load_best_model_at_end=selects,
        metric_for_best_model="selection" if selects else None,
        greater_is_better=True if selects else None,
        restore_callback_states_from_checkpoint=True,
        dataloader_pin_memory=device().type == "cuda",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    if arguments.n_gpu > 1:  # the Trainer would split batches over all GPUs of this process
        arguments._n_gpu = 1

    class LengthGroupedTrainer(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return LengthGroupedSampler(inputs.rows.dataset["length"], recipe.batch_size, seed)

        def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            if not inputs["labels"].is_floating_point():
                return super().compute_loss(model, inputs, *args, **kwargs)
            # Soft labels: the models' own loss would treat probabilities as multi-label targets.
            features = {name: value for name, value in inputs.items() if name != "labels"}
            outputs = model(**features)
            loss = cross_entropy(outputs["logits"].float(), inputs["labels"])
            return (loss, outputs) if kwargs.get("return_outputs") else loss

    trainer = LengthGroupedTrainer(
        model=model,
        args=arguments,
        data_collator=_soft_collator(inputs.collate) if recipe.soft_labels else inputs.collate,
        train_dataset=inputs.rows.dataset,
        eval_dataset=inputs.selection.dataset if inputs.selection else None,
        compute_metrics=_selection_metric(inputs) if selects else None,
        callbacks=[EarlyStoppingCallback(recipe.patience)] if selects and recipe.patience else [],
    )
    # The loss is a mean over the rows of one forward pass. For models that accept any keyword argument the
    # Trainer assumes a mean over the whole step, and would add up accumulated gradients.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    return trainer


def _soft_collator(collate: Any) -> Callable[[Sequence[Mapping[str, Any]]], Any]:
    """A collator for labels that are probabilities, of shape (rows, classes)."""

    def call(rows: Sequence[Mapping[str, Any]]) -> Any:
        import torch

        batch = collate([{**row, "label": 0} for row in rows])  # it casts labels to integers
        batch["labels"] = torch.tensor([row["label"] for row in rows])
        return batch

    return call


def _selection_metric(inputs: Inputs) -> Callable[[Any], dict[str, float]]:
    """What chooses the best checkpoint: the chance-corrected score; in the paper's recipe accuracy.

    Ties are common on few rows and go to the lower loss, which is subtracted with a weight of 1e-6.
    """
    task = inputs.training.task
    balanced = inputs.training.recipe.name != "paper" and task.head == "sequence_classification"

    def metric(prediction: Any) -> dict[str, float]:
        import numpy as np
        from scipy.special import log_softmax
        from sklearn.metrics import accuracy_score, recall_score

        truth, logits = prediction.label_ids, np.asarray(prediction.predictions)
        answers = logits.argmax(-1)
        if balanced:
            present = sorted(set(truth.tolist()))
            share = recall_score(truth, answers, average="macro", labels=present, zero_division=0)
        else:
            share = accuracy_score(truth, answers)
        loss = -log_softmax(logits, axis=-1)[np.arange(len(truth)), truth].mean()
        if not np.isfinite(loss):  # diverged; NaN would never be replaced as the best
            return {"selection": -1.0}
        return {"selection": chance_corrected(float(share), task.classes) - 1e-6 * float(loss)}

    return metric


class LengthGroupedSampler:
    """Every row once per epoch, in batches of similar length, in an order fixed by the seed and the epoch.

    Unlike transformers' own sampler it does not use the global random state, so a training resumed within
    an epoch sees the remaining rows once each; and batches come in random order, not from long to short.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self._lengths, self._batch, self._seed, self._epoch = list(lengths), batch, seed, 0

    def __len__(self) -> int:
        return len(self._lengths)

    def set_epoch(self, epoch: int) -> None:
        """The Trainer calls this before each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self._seed}:{self._epoch}")
        rows, batch = len(self._lengths), self._batch
        shuffled = rng.sample(range(rows), rows)
        pool = batch * max(1, min(SORTED_BATCHES, rows // (4 * batch)))
        ordered = [
            row
            for at in range(0, rows, pool)
            for row in sorted(shuffled[at : at + pool], key=lambda row: -self._lengths[row])
        ]
        rest = rows - rows % batch
        batches = [ordered[at : at + batch] for at in range(0, rest, batch)]
        rng.shuffle(batches)
        if self._epoch == 0 and batches:  # the longest first, so that running out of memory shows at once
            longest = max(batches, key=lambda part: max(self._lengths[row] for row in part))
            batches.remove(longest)
            batches.insert(0, longest)
        return iter([*(row for part in batches for row in part), *ordered[rest:]])


def _watch(report: Report, should_stop: ShouldStop) -> Any:
    """A callback that reports each step, stops when asked to, and keeps the last and the best checkpoint."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        stopped = False  # before the end

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.best_global_step:  # the folder may have been moved since
                state.best_model_checkpoint = f"{args.output_dir}/checkpoint-{state.best_global_step}"

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            report(state.global_step, state.max_steps, state.best_metric)
            if should_stop() and not control.should_training_stop:
                self.stopped = control.should_save = True

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            should_stop()  # an evaluation takes long, and a checkpoint follows

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if (
                control.should_training_stop
            ):  # the end: a training killed before _save repeats the last interval
                self.stopped = False
                return
            folder = Path(args.output_dir)
            last, best = (
                folder / f"checkpoint-{step}" for step in (state.global_step, state.best_global_step)
            )
            _sync(last)
            replace_file(last / COMPLETE, "")
            for checkpoint in folder.glob(
                "checkpoint-*"
            ):  # the Trainer would do it before the last is complete
                if checkpoint not in (last, best):
                    _remove_checkpoint(checkpoint)
            control.should_training_stop = self.stopped

    return Watch()


@contextmanager
def one_line_errors(options_to_lower: str, folder: Path | None = None) -> Iterator[None]:
    """Turn out-of-memory errors into a TrainingError that names `options_to_lower`, and failed
    writes into a StorageError."""
    from safetensors import SafetensorError

    try:
        yield
    except OSError as error:
        raise storage_error(folder or Path(error.filename or "."), error) from None
    except (MemoryError, RuntimeError, SafetensorError) as error:
        text = str(error)
        if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
            first = (text.splitlines() or ["no memory left"])[0][:160]
            raise TrainingError(
                f"out of memory ({first}); lower {options_to_lower}, or choose a smaller encoder"
            ) from None
        # torch (inline_container) and safetensors (os error) hide the OSError of a failed write.
        if "os error" in text or ("inline_container" in text and "Reader" not in text):
            raise StorageError(
                f"{folder}: the disk is full or not writable; fix that and run the command again"
            ) from None
        raise


_NO_MEMORY = ("not enough memory", "out of memory", "can't allocate memory")


def configure_process() -> None:
    """Set up threads and memory of this process for training; call it before torch is imported.

    Idle OpenMP threads sleep, which is faster beside other busy processes. glibc keeps freed memory for the
    next step and does not return it to the kernel.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with suppress(AttributeError, OSError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX, M_ARENA_MAX of malloc.h
        for parameter, value in {-1: -1, -2: 2**26, -4: 0, -8: 1}.items():
            mallopt(parameter, value)
