"""Encodes examples as token ids, and loads an encoder with a classification head that reads them.

An example with options is encoded as one pair (text, option) per option, another example with a passage as the pair
(text, passage), any other as its text. A pair that is too long loses tokens of its longer part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datacreate.errors import TrainingError
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import HeadSpec
from datacreate.finetuning.training_rows import ClassificationExample
from datacreate.hardware import device

MAX_MISSING = 0.5
"""A checkpoint that lacks a larger share of the model's weights is not an encoder of this family."""

LORA_RANK = 16

_OFFSET_POSITIONS = frozenset(
    "roberta xlm-roberta xlm-roberta-xl roberta-prelayernorm camembert mpnet data2vec-text longformer".split()
)
"""Families whose positions start after the padding id, so that the first ones are never used."""


@dataclass(frozen=True)
class Encoded:
    """Examples as token ids."""

    dataset: Any  # a `datasets.Dataset` with the columns of the tokenizer (input_ids, ...), `label` and `length`
    truncated: int  # rows that were cut


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint. Raises TrainingError if it does not load."""
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, folder, "the tokenizer does not load")


def load_config(folder: Path) -> Any:
    """config.json of a checkpoint, read by transformers. Raises TrainingError if it cannot be read."""
    from transformers import AutoConfig

    return _load(AutoConfig, folder, "config.json is not the configuration of an encoder")


def _load(auto_class: Any, folder: Path, failure: str, **options: Any) -> Any:
    try:
        return auto_class.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # noqa: BLE001 - damaged files raise errors without a common class
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise TrainingError(f"{folder}: {failure} ({reason}); restore it, or use another encoder") from None


def max_input_tokens(tokenizer: Any, config: Any, hyperparameters: Hyperparameters, *, with_passage: bool) -> int:
    """The longest input in tokens: that of the hyperparameters, or less if the encoder has fewer positions."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    if config.model_type in _OFFSET_POSITIONS:
        positions -= max(2, 1 + (config.pad_token_id or 0))
    requested = hyperparameters.max_length or (512 if with_passage else 256)
    return int(min(requested, positions, tokenizer.model_max_length))


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
    import numpy as np

    texts, pairs = _text_pairs(examples, head)
    tokens = tokenizer(texts, pairs, verbose=False)
    lengths = [len(ids) for ids in tokens["input_ids"]]
    if max(lengths) > max_length:
        tokens = tokenizer(texts, pairs, truncation="longest_first", max_length=max_length)
    columns = {name: tokens[name] for name in tokenizer.model_input_names if name in tokens}
    if head.is_multiple_choice:
        starts, size = range(0, len(texts), head.classes), head.classes
        columns = {name: [values[start : start + size] for start in starts] for name, values in columns.items()}
        lengths = [max(lengths[start : start + size]) for start in starts]
    labels: list[Any] = [example.answer_index or 0 for example in examples]
    if soft_labels:
        certain = np.eye(head.classes).tolist()
        labels = [list(e.probabilities or certain[label]) for e, label in zip(examples, labels, strict=True)]
    kept_lengths = [min(length, max_length) for length in lengths]
    dataset = datasets.Dataset.from_dict({**columns, "label": labels, "length": kept_lengths})
    return Encoded(dataset, sum(length > max_length for length in lengths))


def _text_pairs(examples: Sequence[ClassificationExample], head: HeadSpec) -> tuple[list[str], list[str] | None]:
    """The first texts of all inputs, and the second ones; None for these if there are no options and no passages."""
    if head.is_multiple_choice:
        # The question comes first: a text that is too long loses its end.
        texts = [f"{e.text} {e.passage}" if e.passage else e.text for e in examples]
        options = [option for example in examples for option in example.options]
        return [text for text in texts for _ in range(head.classes)], options
    passages = [example.passage or "" for example in examples]
    return [example.text for example in examples], passages if has_passages(examples) else None


def has_passages(examples: Sequence[ClassificationExample]) -> bool:
    return any(example.passage for example in examples)


def collator(head: HeadSpec, tokenizer: Any) -> Callable[[Sequence[Mapping[str, Any]]], Any]:
    """A function that pads a batch to its longest input; on a GPU to a multiple of 8, for tensor cores."""
    import torch
    from transformers import DataCollatorForMultipleChoice, DataCollatorWithPadding

    collator_class = DataCollatorForMultipleChoice if head.is_multiple_choice else DataCollatorWithPadding
    pad = collator_class(tokenizer, padding=True, pad_to_multiple_of=8 if device().type == "cuda" else None)

    def collate(rows: Sequence[Mapping[str, Any]]) -> Any:
        batch = pad([{**row, "label": 0} for row in rows])  # it would cast soft labels to integers
        batch["labels"] = torch.tensor([row["label"] for row in rows])
        return batch

    return collate


def load_with_head(folder: Path, head: HeadSpec, *, is_trained: bool = False) -> Any:
    """The encoder of a checkpoint with this head. A head that the checkpoint lacks gets new weights.

    Raises TrainingError if transformers has no such head for this family, the weights do not fit, or a weight of a
    trained model is missing.
    """
    from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification

    auto_class = AutoModelForMultipleChoice
    # The checkpoint may have another head.
    options: dict[str, Any] = {"ignore_mismatched_sizes": True, "output_loading_info": True}
    if not head.is_multiple_choice:
        auto_class, names = AutoModelForSequenceClassification, dict(enumerate(head.names))
        options |= {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    model, info = _load(auto_class, folder, f"cannot be loaded with a {head.head} head", **options)
    prefix = f"{model.base_model_prefix}."
    if mismatched := sorted(name for name, *_ in info["mismatched_keys"] if name.startswith(prefix)):
        raise TrainingError(f"{folder}: the shape of {mismatched[0]} differs from config.json; restore both")
    if is_trained and (lacking := sorted(info["missing_keys"]) or sorted(name for name, *_ in info["mismatched_keys"])):
        raise TrainingError(
            f"{folder}: {lacking[0]} is not in its weights, which are not those of the trained model; "
            "restore the folder, or train this seed again"
        )
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
