"""An encoder with a head: loaded from a checkpoint, or from a folder that `train` left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datacreate.errors import TrainingError
from datacreate.finetuning.settings import Lora
from datacreate.finetuning.task import Task

MOST_MISSING = 0.5
"""A checkpoint that lacks a larger share of the encoder's weights is not one of this encoder."""


def load_shape(folder: Path) -> Any:
    """The configuration of a checkpoint; TrainingError if transformers cannot read it."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001
        said = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{folder / 'config.json'}: not the configuration of an encoder ({said}); bring it again"
        ) from None


def load_with_head(folder: Path, task: Task) -> Any:
    """The encoder of a checkpoint under the head that the task needs; the head's weights may be new.

    Raises TrainingError if transformers has no such head for this family, or the weights do not fit.
    """
    from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification

    told: dict[str, Any] = {"ignore_mismatched_sizes": True}  # a head may be there, for another task
    kind = AutoModelForMultipleChoice
    if task.head == "sequence_classification":
        kind = AutoModelForSequenceClassification
        told |= {
            "num_labels": task.classes,
            "id2label": dict(enumerate(task.names)),
            "label2id": {name: place for place, name in enumerate(task.names)},
        }
    try:
        model, info = kind.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, output_loading_info=True, **told
        )
    except Exception as error:  # noqa: BLE001
        # What transformers and safetensors raise over a damaged or foreign folder has no common class.
        said = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{folder}: cannot be loaded with a {task.head} head ({type(error).__name__}: {said}); "
            "bring it again, or take another encoder"
        ) from None
    beneath = f"{model.base_model_prefix}."
    if odd := sorted(name for name, *_ in info["mismatched_keys"] if name.startswith(beneath)):
        raise TrainingError(f"{folder}: {odd[0]} is of another size than config.json says; bring both again")
    missing, total = len(info["missing_keys"]), len(model.state_dict())
    if missing > MOST_MISSING * total:
        raise TrainingError(
            f"{folder}: {missing} of {total} weights of {type(model).__name__} are missing; "
            "it is a checkpoint of something else: take an encoder"
        )
    return model.float()


def with_lora(model: Any, lora: Lora) -> Any:
    """The model with adapters on all its linear layers; its head is trained in full.

    So is the pooler beneath it, which many checkpoints come without.
    """
    from peft import LoraConfig, get_peft_model

    heads = [
        name
        for name, part in model.named_children()
        if name != model.base_model_prefix and any(True for _ in part.parameters())
    ]
    if getattr(model.base_model, "pooler", None) is not None:
        heads.append("pooler")
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        exclude_modules=rf"(.*\.)?({'|'.join(heads)})(\..*)?",
        modules_to_save=heads,
    )
    return get_peft_model(model, config)


def without_lora(model: Any) -> Any:
    """The plain model, adapters worked into its weights."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
