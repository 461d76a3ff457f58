"""One model: one encoder, one seed, one learning rate, trained by transformers' Trainer.

It can be stopped at any step: a signal saves a checkpoint, a kill loses what came after the
last one, and the next call goes on from there.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datacreate.errors import Stopped
from datacreate.files import replace_file
from datacreate.finetuning.encode import Encoded
from datacreate.finetuning.encoder import load_with_head, with_lora, without_lora
from datacreate.finetuning.hardware import (
    enough_memory,
    is_first_process,
    world_size,
)
from datacreate.finetuning.order import ByLength
from datacreate.finetuning.resume import last_checkpoint, passes_of, room_for
from datacreate.finetuning.settings import Settings
from datacreate.finetuning.soft_labels import collated, judged_by
from datacreate.finetuning.statistics import centred
from datacreate.finetuning.task import Task
from datacreate.finetuning.together import with_the_others
from datacreate.hardware import device, has_bf16
from datacreate.locking import FolderLock
from datacreate.logging_setup import quiet
from datacreate.signals import Signals

OUTCOME = "outcome.json"

DEVICE_ROWS = 16
"""Rows that a device works on at once, unless told: a larger batch is gathered over several goes."""

Tell = Callable[[int, int, float | None], None]
"""Told after each step: steps done, steps in all, the last selection score."""


@dataclass(frozen=True)
class Outcome:
    """How a trial came out."""

    score: float | None  # centred, on the rows that choose; None if none do
    step: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Inputs:
    """What every trial of a training shares."""

    encoder: Path
    task: Task
    tokenizer: Any
    collate: Any
    rows: Encoded
    selection: Encoded | None
    settings: Settings
    longest: int  # tokens
    device_rows: int = DEVICE_ROWS


def run_trial(
    materials: Inputs,
    seed: int,
    learning_rate: float,
    folder: Path,
    tell: Tell,
    signals: Signals,
    lock: FolderLock | None = None,
) -> Outcome:
    """Train to the end and leave the best model in `folder`/model; go on where an earlier call stopped.

    The first process has the `lock` of what is written. Raises Stopped after a signal, in the first process
    LockLost when another one has taken the folder over, TrainingError if the encoder does not fit or memory
    runs out.
    """
    if (folder / OUTCOME).is_file():
        return Outcome(**json.loads((folder / OUTCOME).read_text(encoding="utf-8")))
    import transformers

    with quiet(), enough_memory("--device-batch-size or --max-length"), with_the_others(), signals.deferred():
        transformers.set_seed(seed)  # the new head is drawn here
        model = load_with_head(materials.encoder, materials.task)
        if materials.settings.lora:
            model = with_lora(model, materials.settings.lora)
        with room_for(folder):
            last = last_checkpoint(folder)
            trainer = make_trainer(materials, model, seed, learning_rate, folder, passes_of(last))
            watch = _watch(tell, signals, lock)
            trainer.add_callback(watch)
            result = trainer.train(resume_from_checkpoint=str(last) if last else None)
            state = trainer.state
            if lock:
                lock.check()
            if watch.stopped:
                raise Stopped(
                    f"stopped by a signal at step {state.global_step} of {state.max_steps}; "
                    "run the same command to go on"
                )
            outcome = Outcome(
                state.best_metric,
                state.best_global_step or min(state.global_step, state.max_steps),
                state.max_steps,
                result.metrics["train_runtime"],
            )
            if is_first_process():
                _keep(
                    without_lora(trainer.accelerator.unwrap_model(trainer.model)), materials, folder, outcome
                )
            trainer.accelerator.wait_for_everyone()
    return outcome


def _keep(model: Any, materials: Inputs, folder: Path, outcome: Outcome) -> None:
    """Save a model; its outcome comes last and says that it is there."""
    model.save_pretrained(folder / "model")
    materials.tokenizer.save_pretrained(folder / "model")
    replace_file(folder / OUTCOME, json.dumps(vars(outcome)))
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint, ignore_errors=True)


def make_trainer(
    materials: Inputs, model: Any, seed: int, learning_rate: float, folder: Path, passes: int = 0
) -> Any:
    """transformers' Trainer for one model: batches by length, padded to the longest, judged in between.

    So many `passes` over the rows are behind it.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments

    settings, rows = materials.settings, len(materials.rows.dataset)
    steps = settings.steps(rows)
    goes = math.ceil(settings.batch_size / (materials.device_rows * world_size()))
    per_check = math.ceil(rows / settings.batch_size)  # after each pass, or less often
    if settings.checks is not None:
        per_check = max(per_check, math.ceil(steps / settings.checks))
    chosen = materials.selection is not None
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=math.ceil(settings.batch_size / (goes * world_size())),
        per_device_eval_batch_size=4 * materials.device_rows,
        gradient_accumulation_steps=goes,
        learning_rate=learning_rate,
        warmup_steps=settings.warmup_steps
        if settings.warmup_steps is not None
        else math.ceil(settings.warmup_share * steps),
        weight_decay=settings.weight_decay,
        optim="adamw_torch_fused",
        bf16=has_bf16(),
        tf32=True if device().type == "cuda" else None,
        use_cpu=device().type == "cpu",
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        eval_strategy="steps" if chosen else "no",
        eval_steps=per_check,
        save_strategy="steps",
        save_steps=per_check,
        save_total_limit=2,  # the last and the best: with 1, a stop would leave the best alone
        load_best_model_at_end=chosen,
        metric_for_best_model="selection" if chosen else None,
        greater_is_better=True if chosen else None,
        restore_callback_states_from_checkpoint=True,
        dataloader_pin_memory=device().type == "cuda",
        ddp_find_unused_parameters=False,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
    )
    callbacks = []
    if chosen and settings.patience is not None:
        callbacks.append(EarlyStoppingCallback(settings.patience))

    class InOrder(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            if self.args.train_sampling_strategy != "group_by_length":
                return super()._get_train_sampler(train_dataset)
            a_step = self.args.train_batch_size * self.args.gradient_accumulation_steps * world_size()
            return ByLength(materials.rows.dataset["length"], a_step, seed, passes)

        def compute_loss(self, model: Any, inputs: dict[str, Any], *more: Any, **told: Any) -> Any:
            if inputs["labels"].is_floating_point():
                # The models' own loss would take probabilities for labels of which several hold at once.
                inputs = dict(inputs)
                model = judged_by(model, inputs.pop("labels"))
            return super().compute_loss(model, inputs, *more, **told)

    trainer = InOrder(
        model=model,
        args=arguments,
        data_collator=collated(materials.collate) if settings.soft_labels else materials.collate,
        train_dataset=materials.rows.dataset,
        eval_dataset=materials.selection.dataset if materials.selection else None,
        compute_metrics=_selection(materials) if chosen else None,
        callbacks=callbacks,
    )
    # The loss is a mean over the rows of one go. Of a model that takes any argument the Trainer believes
    # it to be one over the whole step's, and would add up the gradients of all goes and processes.
    trainer.model_accepts_loss_kwargs = False
    trainer.remove_callback(PrinterCallback)  # stdout is for results
    return trainer


def _selection(materials: Inputs) -> Callable[[Any], dict[str, float]]:
    """What chooses the best model: accuracy in the paper's way, else the primary figure.

    Ties are common on a small slice, and go to the lower loss: a millionth of it decides no more.
    """
    balanced = materials.settings.name != "paper" and materials.task.head == "sequence_classification"

    def judge(prediction: Any) -> dict[str, float]:
        import numpy as np
        from scipy.special import log_softmax
        from sklearn.metrics import accuracy_score, recall_score

        truth, logits = prediction.label_ids, np.asarray(prediction.predictions)
        answers = logits.argmax(-1)
        share = (
            recall_score(truth, answers, average="macro", labels=sorted(set(truth.tolist())), zero_division=0)
            if balanced
            else accuracy_score(truth, answers)
        )
        loss = -log_softmax(logits, axis=-1)[np.arange(len(truth)), truth].mean()
        if not np.isfinite(loss):  # diverged: NaN would compare with nothing that comes after it
            return {"selection": -1.0}
        return {"selection": centred(float(share), materials.task.classes) - 1e-6 * float(loss)}

    return judge


def _watch(tell: Tell, signals: Signals, lock: FolderLock | None) -> Any:
    """A callback that tells how far it is, and stops at the step in which a signal came.

    Where the lock is lost nothing is saved any more.
    """
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        stopped = False  # by a signal, before the end
        over = False  # already when it began: killed after the last step, before the model was kept

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.over = state.global_step >= state.max_steps or _out_of_patience(state)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.over:  # the Trainer makes a step before it looks; the best model is loaded after it
                control.should_training_stop = True
                control.should_evaluate = control.should_save = False
                return
            tell(state.global_step, state.max_steps, state.best_metric)
            why = _anywhere(_LOST if lock and lock.is_lost else _SIGNAL if signals.received else 0)
            if why == _LOST:
                self.stopped = control.should_training_stop = True
                control.should_evaluate = control.should_save = False
            elif why == _SIGNAL and state.global_step < state.max_steps:
                self.stopped = control.should_save = control.should_training_stop = True

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # It takes a while, and the checkpoint is written after it.
            if _anywhere(_LOST if lock and lock.is_lost else 0):
                self.stopped = control.should_training_stop = True
                control.should_save = False

    return Watch()


def _out_of_patience(state: Any) -> bool:
    """Whether early stopping had ended the training that a checkpoint is of."""
    kept = state.stateful_callbacks.get("EarlyStoppingCallback")
    if not kept:
        return False
    counted: int = kept["attributes"]["early_stopping_patience_counter"]
    patience: int = kept["args"]["early_stopping_patience"]
    return counted >= patience


_SIGNAL, _LOST = 1, 2
"""Why a training stops before its end; the latter goes before the former."""


def _anywhere(reason: int) -> int:
    """The greatest reason to stop that any of the processes has, or 0: they must stop at the same step."""
    if world_size() == 1:
        return reason
    import torch

    flag = torch.tensor(reason, device=device())
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return int(flag.item())
