"""Questions -> token ids, and the encoder with the classification head that reads them.

Multiple choice encodes each option as the pair (question, option); a question with a passage is the pair
(question, passage); any other question stands alone. Truncation takes tokens from the longer part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datacreate.errors import TrainingError
from datacreate.finetuning.recipe import Recipe
from datacreate.finetuning.records import Task
from datacreate.finetuning.rows import Question
from datacreate.hardware import device

MAX_MISSING = 0.5
"""A checkpoint that lacks a larger share of the model's weights is not an encoder of this family."""

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
        raise TrainingError(
            f"{folder}: {failure} ({reason}); restore it, or choose another encoder"
        ) from None


def max_input_tokens(tokenizer: Any, config: Any, recipe: Recipe, with_passage: bool) -> int:
    """Longest input in tokens: the recipe's limit, within the positions of the encoder."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    if config.model_type in _OFFSET_POSITIONS:
        positions -= max(2, 1 + (config.pad_token_id or 0))
    return int(min(recipe.input_tokens(with_passage), positions, tokenizer.model_max_length))


def encode(
    questions: Sequence[Question],
    task: Task,
    tokenizer: Any,
    max_length: int,
    *,
    show_context: bool = True,
    soft_labels: bool = False,
) -> Encoded:
    """Token ids of the questions, in order, not padded.

    input_ids has shape (rows, options, tokens) for multiple choice, else (rows, tokens). `length` is the
    longest input of a row. `label` is the index of the answer (0 if there is none), or with `soft_labels`
    a probability per output.
    """
    import datasets

    texts, pairs = _inputs(questions, task, show_context)
    second = {"text_pair": pairs} if pairs else {}
    tokens = tokenizer(texts, **second, verbose=False)
    lengths = [len(ids) for ids in tokens["input_ids"]]
    if max(lengths) > max_length:
        tokens = tokenizer(texts, **second, truncation="longest_first", max_length=max_length)
    columns = {name: tokens[name] for name in tokenizer.model_input_names if name in tokens}
    inputs_per_row = task.classes if task.head == "multiple_choice" else 1
    starts = range(0, len(texts), inputs_per_row)
    if task.head == "multiple_choice":
        columns = {
            name: [values[at : at + inputs_per_row] for at in starts] for name, values in columns.items()
        }
    longest = [max(lengths[at : at + inputs_per_row]) for at in starts]
    labels: list[Any] = [question.answer or 0 for question in questions]
    if soft_labels:
        one_hot = [tuple(float(index == label) for index in range(task.classes)) for label in labels]
        labels = [list(q.probabilities or hard) for q, hard in zip(questions, one_hot, strict=True)]
    shown = [min(length, max_length) for length in longest]
    dataset = datasets.Dataset.from_dict({**columns, "label": labels, "length": shown})
    return Encoded(dataset, sum(length > max_length for length in longest))


def _inputs(questions: Sequence[Question], task: Task, show_context: bool) -> tuple[list[str], list[str]]:
    """First and second texts of all inputs; no second ones for questions without passages."""
    if task.head == "multiple_choice":
        shown = [f"{q.passage} {q.text}" if q.passage and show_context else q.text for q in questions]
        return [text for text in shown for _ in range(task.classes)], [
            o for q in questions for o in q.options
        ]
    return [q.text for q in questions], [q.passage or "" for q in questions] if has_passages(
        questions
    ) else []


def has_passages(questions: Sequence[Question]) -> bool:
    """Whether any question comes with a passage."""
    return any(question.passage for question in questions)


def collator(task: Task, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], Any]:
    """Pads a batch to its longest input; on a GPU to a multiple of 8, for tensor cores."""
    import torch
    from transformers import DataCollatorForMultipleChoice, DataCollatorWithPadding

    kind = DataCollatorForMultipleChoice if task.head == "multiple_choice" else DataCollatorWithPadding
    pad = kind(tokenizer, padding=True, pad_to_multiple_of=8 if device().type == "cuda" else None)

    def collate(rows: Sequence[Mapping[str, Any]]) -> Any:
        batch = pad([{**row, "label": 0} for row in rows])  # it would cast soft labels to integers
        batch["labels"] = torch.tensor([row["label"] for row in rows])
        return batch

    return collate


def load_with_head(folder: Path, task: Task) -> Any:
    """The encoder of a checkpoint with the head of the task; a missing head gets new weights.

    Raises TrainingError if transformers has no such head for this family, or the weights do not fit.
    """
    from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification

    kind, labels = AutoModelForMultipleChoice, {}
    if task.head == "sequence_classification":
        kind = AutoModelForSequenceClassification
        names = dict(enumerate(task.names))
        labels = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    labels["ignore_mismatched_sizes"] = True  # the checkpoint may have a head for another task
    failure = f"cannot be loaded with a {task.head} head"
    model, info = _load(kind, folder, failure, output_loading_info=True, **labels)
    prefix = f"{model.base_model_prefix}."
    if mismatched := sorted(name for name, *_ in info["mismatched_keys"] if name.startswith(prefix)):
        raise TrainingError(
            f"{folder}: the shape of {mismatched[0]} does not match config.json; restore both"
        )
    missing, total = len(info["missing_keys"]), len(model.state_dict())
    if missing > MAX_MISSING * total:
        raise TrainingError(
            f"{folder}: {missing} of {total} weights of {type(model).__name__} are missing; choose an encoder"
        )
    return model.float()


def with_lora(model: Any, recipe: Recipe) -> Any:
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
        r=recipe.lora_rank,
        lora_alpha=2 * recipe.lora_rank,
        lora_dropout=recipe.lora_dropout,
        target_modules="all-linear",
        exclude_modules=rf"(.*\.)?({'|'.join(heads)})(\..*)?",
        modules_to_save=heads,
    )
    return get_peft_model(model, config)
