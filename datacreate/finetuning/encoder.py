"""Examples -> token ids, the encoder with the classification head that reads them, and one training of it.

Multiple choice encodes each option as the pair (text, option); an example with a passage is the pair
(text, passage); of any other the text stands alone. Truncation takes tokens from the longer part.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from datacreate.errors import TrainingError
from datacreate.files import replace_file
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import MODEL, HeadSpec, TrainedModel, TrainingSpec, read_model
from datacreate.finetuning.statistics import compute_scores
from datacreate.finetuning.training_rows import ClassificationExample
from datacreate.hardware import device, has_bf16
from datacreate.libraries import quiet, training_errors

MAX_MISSING = 0.5
"""A checkpoint that lacks a larger share of the model's weights is not an encoder of this family."""

LORA_RANK = 16

_OFFSET_POSITIONS = frozenset(
    "roberta xlm-roberta xlm-roberta-xl roberta-prelayernorm camembert mpnet data2vec-text longformer".split()
)
"""Families whose positions start after the padding id, so that the first ones are never used."""


@dataclass(frozen=True)
class Encoded:
    """Token ids: a `datasets.Dataset` with input_ids, attention_mask, ..., `label` and `length`."""

    dataset: Any
    truncated: int  # rows that were cut


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint; TrainingError if it does not load."""
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, folder, "the tokenizer does not load")


def load_config(folder: Path) -> Any:
    """config.json of a checkpoint, read by transformers; TrainingError if it cannot be."""
    from transformers import AutoConfig

    return _load(AutoConfig, folder, "config.json is not the configuration of an encoder")


def _load(kind: Any, folder: Path, failure: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # noqa: BLE001 - damaged files raise errors without a common class
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise TrainingError(f"{folder}: {failure} ({reason}); restore it, or use another encoder") from None


def max_input_tokens(tokenizer: Any, config: Any, recipe: Hyperparameters, with_passage: bool) -> int:
    """Longest input in tokens: the recipe's limit, within the positions of the encoder."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    if config.model_type in _OFFSET_POSITIONS:
        positions -= max(2, 1 + (config.pad_token_id or 0))
    return int(min(recipe.input_tokens(with_passage), positions, tokenizer.model_max_length))


def encode(
    examples: Sequence[ClassificationExample],
    head: HeadSpec,
    tokenizer: Any,
    max_length: int,
    *,
    soft_labels: bool = False,
) -> Encoded:
    """Token ids of the examples, in order, not padded.

    input_ids has shape (rows, options, tokens) for multiple choice, else (rows, tokens). `length` is the
    longest input of a row. `label` is the index of the answer (0 if there is none), or with `soft_labels`
    a probability per output.
    """
    import datasets

    texts, pairs = _text_pairs(examples, head)
    tokens = tokenizer(texts, pairs, verbose=False)
    lengths = [len(ids) for ids in tokens["input_ids"]]
    if max(lengths) > max_length:
        tokens = tokenizer(texts, pairs, truncation="longest_first", max_length=max_length)
    columns = {name: tokens[name] for name in tokenizer.model_input_names if name in tokens}
    if head.is_multiple_choice:
        starts, size = range(0, len(texts), head.classes), head.classes
        columns = {name: [values[at : at + size] for at in starts] for name, values in columns.items()}
        lengths = [max(lengths[at : at + size]) for at in starts]
    labels: list[Any] = [example.answer or 0 for example in examples]
    if soft_labels:
        one_hot = [tuple(float(index == label) for index in range(head.classes)) for label in labels]
        labels = [list(one.probabilities or hard) for one, hard in zip(examples, one_hot, strict=True)]
    cut = [min(length, max_length) for length in lengths]
    dataset = datasets.Dataset.from_dict({**columns, "label": labels, "length": cut})
    return Encoded(dataset, sum(length > max_length for length in lengths))


def _text_pairs(
    examples: Sequence[ClassificationExample], head: HeadSpec
) -> tuple[list[str], list[str] | None]:
    """First and second texts of all inputs; None without second ones: neither options nor passages."""
    if head.is_multiple_choice:
        texts = [f"{one.passage} {one.text}" if one.passage else one.text for one in examples]
        options = [option for example in examples for option in example.options]
        return [text for text in texts for _ in range(head.classes)], options
    passages = [example.passage or "" for example in examples]
    return [example.text for example in examples], passages if has_passages(examples) else None


def has_passages(examples: Sequence[ClassificationExample]) -> bool:
    """Whether any of the examples has a passage."""
    return any(example.passage for example in examples)


def collator(head: HeadSpec, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], Any]:
    """Pads a batch to its longest input; on a GPU to a multiple of 8, for tensor cores."""
    import torch
    from transformers import DataCollatorForMultipleChoice, DataCollatorWithPadding

    kind = DataCollatorForMultipleChoice if head.is_multiple_choice else DataCollatorWithPadding
    pad = kind(tokenizer, padding=True, pad_to_multiple_of=8 if device().type == "cuda" else None)

    def collate(rows: Sequence[Mapping[str, Any]]) -> Any:
        batch = pad([{**row, "label": 0} for row in rows])  # it would cast soft labels to integers
        batch["labels"] = torch.tensor([row["label"] for row in rows])
        return batch

    return collate


def load_with_head(folder: Path, head: HeadSpec) -> Any:
    """The encoder of a checkpoint with this head; a missing head gets new weights.

    Raises TrainingError if transformers has no such head for this family, or the weights do not fit.
    """
    from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification

    kind = AutoModelForMultipleChoice
    # The checkpoint may have another head.
    options: dict[str, Any] = {"ignore_mismatched_sizes": True, "output_loading_info": True}
    if not head.is_multiple_choice:
        kind, names = AutoModelForSequenceClassification, dict(enumerate(head.names))
        options |= {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    model, info = _load(kind, folder, f"cannot be loaded with a {head.head} head", **options)
    prefix = f"{model.base_model_prefix}."
    if mismatched := sorted(name for name, *_ in info["mismatched_keys"] if name.startswith(prefix)):
        raise TrainingError(f"{folder}: the shape of {mismatched[0]} differs from config.json; restore both")
    missing, total = len(info["missing_keys"]), len(model.state_dict())
    if missing > MAX_MISSING * total:
        name = type(model).__name__
        raise TrainingError(f"{folder}: {missing} of {total} weights of {name} are missing; use an encoder")
    return model.float()


def with_lora(model: Any) -> Any:
    """The model with adapters on all linear layers; head and pooler, which are new, are trained in full."""
    from peft import LoraConfig, get_peft_model

    heads = [
        name
        for name, part in model.named_children()
        if name != model.base_model_prefix and any(True for _ in part.parameters())
    ]
    if getattr(model.base_model, "pooler", None) is not None:
        heads.append("pooler")
    config = LoraConfig(
        r=LORA_RANK,
        lora_alpha=2 * LORA_RANK,
        lora_dropout=0.05,
        target_modules="all-linear",
        exclude_modules=rf"(.*\.)?({'|'.join(heads)})(\..*)?",
        modules_to_save=heads,
    )
    return get_peft_model(model, config)


DEVICE_BATCH_SIZE = 16  # most rows per forward pass; larger batches accumulate gradients

OnStep = Callable[[int, int, float | None], None]
"""Called after each step: steps done, steps in total, best selection score. An error that it raises ends the trial."""

OnNamedStep = Callable[[str, int, int, float | None], None]
"""The same after the name of the trial, as `StepProgress.step`."""


@dataclass(frozen=True)
class TrialInputs:
    """What all trials of a training share."""

    training: TrainingSpec
    encoder: Path
    tokenizer: Any
    rows: Encoded
    selection: Encoded | None
    max_length: int  # tokens
    device_batch_size: int = DEVICE_BATCH_SIZE


def run_trial(
    inputs: TrialInputs, seed: int, learning_rate: float, folder: Path, on_step: OnStep
) -> TrainedModel:
    """Train and save the best model in `folder`/model. A finished trial is read, an interrupted one starts again.

    Raises TrainingError if the encoder does not fit or memory runs out, StorageError.
    """
    if (folder / "model" / MODEL).is_file():
        return read_model(folder / "model")
    import transformers

    class StepCallback(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            on_step(state.global_step, state.max_steps, state.best_metric)

    shutil.rmtree(folder, ignore_errors=True)
    recipe = inputs.training.recipe
    with quiet(), training_errors("--device-batch-size or --max-length", folder):
        transformers.set_seed(seed)  # before the new head is initialized
        model = load_with_head(inputs.encoder, inputs.training.task)
        if recipe.lora:
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
            selection_score=state.best_metric,
            trained_rows=len(inputs.rows.dataset),
            selection_rows=len(inputs.selection.dataset) if inputs.selection else 0,
            max_length=inputs.max_length,
            seconds=round(result.metrics["train_runtime"], 1),
            versions={package: metadata.version(package) for package in packages},
        )
        _save(trainer.accelerator.unwrap_model(trainer.model), inputs.tokenizer, folder / "model", record)
    return record


def _save(model: Any, tokenizer: Any, folder: Path, record: TrainedModel) -> None:
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


def make_trainer(inputs: TrialInputs, model: Any, seed: int, learning_rate: float, folder: Path) -> Any:
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
    selects = inputs.selection is not None
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=per_device,
        per_device_eval_batch_size=4 * inputs.device_batch_size,
        gradient_accumulation_steps=recipe.batch_size // per_device,
        learning_rate=learning_rate,
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        optim="adamw_torch_fused",
        bf16=has_bf16(),
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


def _selection_metric(inputs: TrialInputs) -> Callable[[Any], dict[str, float]]:
    """What chooses the best checkpoint: the chance-corrected score; in the paper's recipe accuracy.

    Ties are common on few rows and go to the lower loss, which is subtracted with a weight of 1e-6.
    """
    head = inputs.training.task
    balanced = inputs.training.recipe.name != "paper" and not head.is_multiple_choice

    def metric(prediction: Any) -> dict[str, float]:
        import numpy as np
        from scipy.special import log_softmax

        truth, logits = prediction.label_ids, prediction.predictions
        loss = -log_softmax(logits, axis=-1)[np.arange(len(truth)), truth].mean()
        if not np.isfinite(loss):  # diverged; NaN would never be replaced as the best
            return {"selection": -1.0}
        answers = logits.argmax(-1).tolist()
        scores = compute_scores(truth.tolist(), answers, head.names, balanced=balanced)
        return {"selection": scores.score - 1e-6 * float(loss)}

    return metric
