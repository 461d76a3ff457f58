"""One model: one seed and one learning rate, trained by transformers' Trainer."""

from __future__ import annotations

import ctypes
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from datacreate.errors import StorageError, TrainingError
from datacreate.files import replace_file, storage_error
from datacreate.finetuning.encoder import Encoded, collator, load_with_head, with_lora
from datacreate.finetuning.records import MODEL, Model, Training, read_model
from datacreate.finetuning.statistics import chance_corrected
from datacreate.hardware import device, has_bf16
from datacreate.libraries import quiet

DEVICE_BATCH_SIZE = 16
"""Most rows per forward pass; larger batches accumulate gradients."""

OnStep = Callable[[int, int, float | None], None]
"""Called after each step: steps done, steps in total, best selection score. An error that it raises ends the trial."""


@dataclass(frozen=True)
class Inputs:
    """What all trials of a training share."""

    training: Training
    encoder: Path
    tokenizer: Any
    rows: Encoded
    selection: Encoded | None
    max_length: int  # tokens
    device_batch_size: int = DEVICE_BATCH_SIZE


def run_trial(inputs: Inputs, seed: int, learning_rate: float, folder: Path, on_step: OnStep) -> Model:
    """Train and save the best model in `folder`/model. A finished trial is read, an interrupted one starts again.

    Raises TrainingError if the encoder does not fit or memory runs out, StorageError.
    """
    if (folder / "model" / MODEL).is_file():
        return read_model(folder / "model")
    import transformers

    shutil.rmtree(folder, ignore_errors=True)
    recipe = inputs.training.recipe
    with quiet(), one_line_errors("--device-batch-size or --max-length", folder):
        transformers.set_seed(seed)  # before the new head is initialized
        model = load_with_head(inputs.encoder, inputs.training.task)
        if recipe.lora:
            model = with_lora(model, recipe)
        trainer = make_trainer(inputs, model, seed, learning_rate, folder)
        trainer.add_callback(_step_callback(on_step))
        result, state = trainer.train(), trainer.state
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
        _save(trainer.accelerator.unwrap_model(trainer.model), inputs.tokenizer, folder / "model", record)
    return record


def _step_callback(on_step: OnStep) -> Any:
    from transformers import TrainerCallback

    class StepCallback(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            on_step(state.global_step, state.max_steps, state.best_metric)

    return StepCallback()


def _save(model: Any, tokenizer: Any, folder: Path, record: Model) -> None:
    """Save the model, adapters merged. The record is written last and marks it as complete."""
    model = model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    replace_file(folder / MODEL, record.model_dump_json(indent=2) + "\n")
    for checkpoint in folder.parent.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


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
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        eval_strategy="steps" if selects else "no",
        eval_steps=interval,
        save_strategy="best" if selects else "no",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=selects,
        metric_for_best_model="selection" if selects else None,
        greater_is_better=True if selects else None,
        dataloader_pin_memory=device().type == "cuda",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    if arguments.n_gpu > 1:  # the Trainer would split batches over all GPUs of this process
        arguments._n_gpu = 1

    def loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        """The mean over the rows of a step, of which a forward pass has a part; soft labels are (rows, classes)."""
        rows = len(labels) if num_items_in_batch is None else num_items_in_batch / labels[0].numel()
        return cross_entropy(outputs.logits.float(), labels, reduction="sum") / rows

    trainer = Trainer(
        model=model,
        args=arguments,
        data_collator=collator(inputs.training.task, inputs.tokenizer),
        train_dataset=inputs.rows.dataset,
        eval_dataset=inputs.selection.dataset if inputs.selection else None,
        compute_loss_func=loss,
        compute_metrics=_selection_metric(inputs) if selects else None,
        callbacks=[EarlyStoppingCallback(recipe.patience)] if selects and recipe.patience else [],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout
    return trainer


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
