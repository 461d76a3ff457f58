"""One model: one seed and one learning rate, trained by transformers' Trainer.

It can be interrupted at any step. A signal saves a checkpoint; after SIGKILL, the steps since the last
checkpoint are repeated.
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
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from datacreate.errors import Stopped, StorageError, TrainingError
from datacreate.files import replace_file, storage_error, write_synced
from datacreate.finetuning.encoder import Encoded, load_with_head, with_lora
from datacreate.finetuning.recipe import Recipe
from datacreate.finetuning.records import Task
from datacreate.finetuning.statistics import chance_corrected
from datacreate.hardware import device, has_bf16
from datacreate.logging_setup import quiet

OUTCOME = "outcome.json"
COMPLETE = "complete"  # written into a checkpoint after all its other files

DEVICE_BATCH_SIZE = 16
"""Rows per forward pass; larger batches accumulate gradients."""

SORTED_BATCHES = 50
"""Batches whose rows are sorted by length together. Larger: less padding; smaller: more random batches."""

Report = Callable[[int, int, float | None], None]
"""Called after each step: steps done, steps in total, best selection score."""


class Interrupt(IntEnum):
    """What a trial should do at the next step."""

    NONE = 0
    SAVE = 1  # save a checkpoint and stop
    ABANDON = 2  # stop without writing: another process owns the folder


@dataclass(frozen=True)
class Outcome:
    """The result of a trial."""

    score: float | None  # chance-corrected, on the selection rows; None without selection
    step: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Inputs:
    """What all trials of a training share."""

    encoder: Path
    task: Task
    tokenizer: Any
    collate: Any
    rows: Encoded
    selection: Encoded | None
    recipe: Recipe
    max_length: int  # tokens
    device_batch_size: int = DEVICE_BATCH_SIZE


def run_trial(
    inputs: Inputs,
    seed: int,
    learning_rate: float,
    folder: Path,
    report: Report,
    interrupt: Callable[[], Interrupt],
) -> Outcome:
    """Train to the end and save the best model in `folder`/model; resume from the last checkpoint there.

    Raises Stopped when `interrupt` asks for it, TrainingError if the encoder does not fit or memory runs
    out, StorageError.
    """
    if (folder / OUTCOME).is_file():
        return Outcome(**json.loads((folder / OUTCOME).read_text(encoding="utf-8")))
    if interrupt():
        raise Stopped("stopped by a signal; run the same command to resume")
    import transformers

    with quiet(), one_line_errors("--device-batch-size or --max-length", folder):
        transformers.set_seed(seed)  # before the new head is initialized
        model = load_with_head(inputs.encoder, inputs.task)
        if inputs.recipe.lora:
            model = with_lora(model, inputs.recipe)
        checkpoint = last_checkpoint(folder)
        epochs_done = int(_trainer_state(checkpoint)["epoch"]) if checkpoint else 0
        trainer = make_trainer(inputs, model, seed, learning_rate, folder, epochs_done)
        watch = _watch(report, interrupt)
        trainer.add_callback(watch)
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        state = trainer.state
        if watch.stopped or interrupt() is Interrupt.ABANDON:
            raise Stopped(
                f"stopped by a signal at step {state.global_step} of {state.max_steps}; "
                "run the same command to resume"
            )
        outcome = Outcome(
            state.best_metric,
            state.best_global_step or min(state.global_step, state.max_steps),
            state.max_steps,
            result.metrics["train_runtime"],
        )
        _save(trainer.accelerator.unwrap_model(trainer.model), inputs.tokenizer, folder, outcome)
    return outcome


def _save(model: Any, tokenizer: Any, folder: Path, outcome: Outcome) -> None:
    """Save the model, adapters merged. The outcome is written last and marks it as complete."""
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    replace_file(folder / OUTCOME, json.dumps(asdict(outcome)))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint whose best model is complete too; others newer than it are removed."""
    steps = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}
    complete = {step: path for step, path in steps.items() if (path / COMPLETE).is_file()}
    for step in sorted(steps, reverse=True):
        if step in complete and (_trainer_state(complete[step])["best_global_step"] or step) in complete:
            return complete[step]
        shutil.rmtree(steps[step], ignore_errors=True)
    return None


def _trainer_state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return state


def make_trainer(
    inputs: Inputs, model: Any, seed: int, learning_rate: float, folder: Path, epochs_done: int = 0
) -> Any:
    """A Trainer for one model: batches grouped by length, evaluated on the selection rows at intervals."""
    from torch.nn.functional import cross_entropy
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments

    recipe, rows = inputs.recipe, len(inputs.rows.dataset)
    steps = recipe.steps(rows)
    accumulated = math.ceil(recipe.batch_size / inputs.device_batch_size)
    interval = math.ceil(rows / recipe.batch_size)  # an epoch, or longer
    if recipe.max_evaluations is not None:
        interval = max(interval, math.ceil(steps / recipe.max_evaluations))
    warmup = math.ceil(recipe.warmup_ratio * steps) if recipe.warmup_steps is None else recipe.warmup_steps
    selects = inputs.selection is not None
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=math.ceil(recipe.batch_size / accumulated),
        per_device_eval_batch_size=4 * inputs.device_batch_size,
        gradient_accumulation_steps=accumulated,
        learning_rate=learning_rate,
        warmup_steps=warmup,
        weight_decay=recipe.weight_decay,
        optim="adamw_torch_fused",
        bf16=has_bf16(),
        tf32=True if device().type == "cuda" else None,
        use_cpu=device().type == "cpu",
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        eval_strategy="steps" if selects else "no",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,  # the last and the best; with 1 a stop would keep only the best
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

    class LengthGroupedTrainer(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            if self.args.train_sampling_strategy != "group_by_length":
                return super()._get_train_sampler(train_dataset)
            batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
            return LengthGroupedSampler(inputs.rows.dataset["length"], batch, seed, epochs_done)

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
    balanced = inputs.recipe.name != "paper" and inputs.task.head == "sequence_classification"

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
        return {"selection": chance_corrected(float(share), inputs.task.classes) - 1e-6 * float(loss)}

    return metric


class LengthGroupedSampler:
    """Every row once per epoch, in batches of similar length, in an order fixed by the seed and the epoch.

    Unlike transformers' own sampler it does not use the global random state, so a training resumed within
    an epoch sees the remaining rows once each; and batches come in random order, not from long to short.
    """

    def __init__(self, lengths: Sequence[int], batch: int, seed: int, epochs_done: int = 0) -> None:
        self._lengths, self._batch, self._seed, self._epoch = list(lengths), batch, seed, epochs_done

    def __len__(self) -> int:
        return len(self._lengths)

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
            longest = max(range(len(batches)), key=lambda i: max(self._lengths[row] for row in batches[i]))
            batches.insert(0, batches.pop(longest))
        self._epoch += 1
        yield from (row for rows_ in batches for row in rows_)
        yield from ordered[rest:]


def _watch(report: Report, interrupt: Callable[[], Interrupt]) -> Any:
    """A callback that reports each step, stops when interrupted, and marks complete checkpoints."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        stopped = False  # interrupted before the last step
        finished = False  # resumed after the last step: the previous process was killed before _save

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            early = state.stateful_callbacks.get("EarlyStoppingCallback")
            self.finished = state.global_step >= state.max_steps or bool(
                early
                and early["attributes"]["early_stopping_patience_counter"]
                >= early["args"]["early_stopping_patience"]
            )

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.finished:  # the Trainer runs one step first, then loads the best model
                control.should_training_stop = True
                control.should_evaluate = control.should_save = False
                return
            report(state.global_step, state.max_steps, state.best_metric)
            request = interrupt()
            if request is Interrupt.SAVE and state.global_step < state.max_steps:
                self.stopped = control.should_training_stop = control.should_save = True
            self._abandon(request, control)

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._abandon(interrupt(), control)  # an evaluation takes long, and a checkpoint follows

        def _abandon(self, request: Interrupt, control: Any) -> None:
            if request is Interrupt.ABANDON:
                self.stopped = control.should_training_stop = True
                control.should_evaluate = control.should_save = False

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            for path in checkpoint.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            write_synced(checkpoint / COMPLETE, b"")

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
