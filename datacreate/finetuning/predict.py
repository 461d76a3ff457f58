"""A model and encoded rows -> a probability for every option or label of every row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datacreate.finetuning.hardware import enough_memory
from datacreate.hardware import device, has_bf16

if TYPE_CHECKING:
    import numpy as np

TOKENS_AT_ONCE = 16_384
"""Tokens of a batch, padding included: many short rows or few long ones."""


def probabilities(
    model: Any, dataset: Any, collate: Any, tokens_at_once: int = TOKENS_AT_ONCE
) -> np.ndarray[Any, Any]:
    """Softmax over the head's outputs, of shape (rows, classes), in the order of the rows.

    Rows are asked longest first, those of like length together, so that next to nothing is
    padding and what does not fit the memory shows at once.
    """
    import numpy as np
    import torch

    model = model.to(device()).eval()
    lengths = np.asarray(dataset["length"])
    inputs = [name for name in dataset.column_names if name != "length"]
    rows = dataset.select_columns(inputs)
    several = isinstance(rows[0]["input_ids"][0], list)
    each = len(rows[0]["input_ids"]) if several else 1
    found: list[np.ndarray[Any, Any]] = []
    order = np.argsort(-lengths, kind="stable")
    at = 0
    with torch.inference_mode(), enough_memory("the --max-length of its `train`"):
        while at < len(order):
            number = max(1, tokens_at_once // (int(lengths[order[at]]) * each))
            batch = collate([rows[int(i)] for i in order[at : at + number]])
            batch.pop("labels")
            batch = {name: tensor.to(device(), non_blocking=True) for name, tensor in batch.items()}
            with torch.autocast(device().type, torch.bfloat16, enabled=has_bf16()):
                logits = model(**batch).logits
            found.append(torch.softmax(logits.float(), -1).cpu().numpy())
            at += number
    label_ratio = np.concatenate(found)
    back = np.empty_like(label_ratio)
    back[order] = label_ratio
    return np.asarray(back)
