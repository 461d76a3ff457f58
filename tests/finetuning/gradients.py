"""The gradients of one training step of eight rows, in whatever portions: what clipping looks at.

    python -m tests.finetuning.gradients ENCODER FOLDER HEAD

run by each of several processes, the first of which leaves them in FOLDER: those of hard and of soft labels,
in portions of four and of two rows.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

from datacreate.finetuning.hardware import is_first_process

from datacreate.finetuning.encoder import collator, encode, load_tokenizer, load_with_head
from datacreate.finetuning.recipe import Recipe
from datacreate.finetuning.rows import Source, training_set
from datacreate.finetuning.trial import Inputs, make_trainer
from datacreate.formats.task_format import load_format
from tests.finetuning.sets import choices, claims

ROWS = 8

VERDICTS = {"options": (0.5, 0.2, 0.3), "labels": (0.4, 0.6)}


def gradients(encoder: Path, folder: Path, head: str, soft: bool, device_batch_size: int) -> dict[str, Any]:
    """Gradients by the name of their weight, before any clipping."""
    from transformers import TrainerCallback, set_seed

    found: dict[str, Any] = {}

    class Look(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            weights = model.named_parameters()
            found.update({name.removeprefix("module."): weight.grad.clone() for name, weight in weights})

    asked = choices(ROWS, 3) if head == "options" else claims(ROWS)
    format = load_format("multiple_choice" if head == "options" else "yes_no_closed_book")
    verdicts = [VERDICTS[head]] * ROWS if soft else None
    source = Source("rows", "tree", format, asked, list(map(str, range(ROWS))), verdicts=verdicts)
    rows = training_set([source])
    settings = Recipe(batch_size=ROWS, epochs=1, soft_labels=soft)
    set_seed(1)
    tokenizer, model = load_tokenizer(encoder), load_with_head(encoder, rows.task)
    encoded = encode(rows.questions, rows.task, tokenizer, 60, soft_labels=soft)
    collate = collator(rows.task, tokenizer, None)
    materials = Inputs(
        encoder,
        rows.task,
        tokenizer,
        collate,
        encoded,
        None,
        settings,
        60,
        device_batch_size=device_batch_size,
    )
    trainer = make_trainer(materials, model, 1, 1e-3, folder)
    trainer.args.max_grad_norm = 0  # no clipping
    trainer.add_callback(Look())
    trainer.train()
    assert trainer.state.global_step == 1
    return found


def name_of(soft: bool, device_batch_size: int) -> str:
    """The file of the gradients of such a step."""
    return f"{'soft' if soft else 'hard'}-{device_batch_size}.safetensors"


if __name__ == "__main__":
    from safetensors.torch import save_file

    _, encoder_, folder_, head_ = sys.argv
    for soft_, rows_ in product((False, True), (4, 2)):
        gradients_ = gradients(Path(encoder_), Path(folder_), head_, soft_, rows_)
        if is_first_process():
            save_file(gradients_, Path(folder_) / name_of(soft_, rows_))
