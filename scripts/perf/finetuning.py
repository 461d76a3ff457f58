"""Training and evaluation speed against a plain Trainer loop that pads everything to 256 tokens.

    python scripts/perf/finetuning.py [--benchmark csqa --benchmark creak] [--encoder NAME] [--rows 96]

Both sides see the same rows, model, precision and batch, in turn within one run; rows per second
are compared. On a GPU the model is RoBERTa-large's shape with random weights, and the share of the
chip's peak (MFU) at batches of 64 x 256 tokens is printed as well. Needs imported benchmarks.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from datacreate.finetuning.encode import Encoded, collator, encode, load_tokenizer
from datacreate.finetuning.hardware import padding_multiple
from datacreate.finetuning.predict import probabilities
from datacreate.finetuning.task import Question, Task

from datacreate.benchmarks import find_benchmark, has_split
from datacreate.checkpoints import resolve
from datacreate.finetuning.encoder import load_with_head
from datacreate.finetuning.evaluate import read_test_set
from datacreate.finetuning.recipe import Settings
from datacreate.finetuning.trial import Inputs, make_trainer
from datacreate.hardware import device, has_bf16
from datacreate.logging_setup import quiet

PADDED = 256
BATCH = 16
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40": 362.0}  # dense bf16, by the makers' sheets


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--benchmark", action="append", help="default: csqa and creak")
    options.add_argument(
        "--encoder", default="all-minilm-l6-v2", help="its tokenizer; on a CPU also its weights"
    )
    options.add_argument("--rows", type=int, default=96, help="rows of a measurement")
    options.add_argument("--rounds", type=int, default=3)
    told = options.parse_args()
    folder = resolve(told.encoder, "encoder").path
    tokenizer = load_tokenizer(folder)
    print(f"{device()}, bf16 {has_bf16()}, {told.encoder}, batch {BATCH}, {told.rows} rows x {told.rounds}")
    for name in told.benchmark or ["csqa", "creak"]:
        test = read_test_set(name, "train" if has_split(find_benchmark(name), "train") else "dev")
        questions = [question for question in test.asked if question.answer is not None][: told.rows]
        compare(name, test.task, questions, folder, tokenizer, told.rounds)
    if device().type == "cuda":
        utilisation()


def compare(
    name: str, task: Task, questions: list[Question], folder: Path, tokenizer: Any, rounds: int
) -> None:
    ours = encode(questions, task, tokenizer, PADDED)
    padded = Encoded(ours.dataset, 0)
    collate = {
        "ours": collator(task, tokenizer, padding_multiple()),
        "padded": collator(task, tokenizer, None),
    }
    collate["padded"].padding, collate["padded"].max_length = "max_length", PADDED
    speeds: dict[str, list[float]] = {key: [] for key in ("ours", "padded", "ours test", "padded test")}
    with quiet():
        model = load(folder, task)
        for _ in range(rounds):
            speeds["ours"].append(train(ours, collate["ours"], model, task, tokenizer, grouped=True))
            speeds["padded"].append(train(padded, collate["padded"], model, task, tokenizer, grouped=False))
            speeds["ours test"].append(
                timed(len(questions), lambda: probabilities(model, ours.dataset, collate["ours"]))
            )
            speeds["padded test"].append(test_padded(ours, collate["padded"], model, task, tokenizer))
    middle = {key: statistics.median(values) for key, values in speeds.items()}
    for what, end in (("training", ""), ("evaluation", " test")):
        mine, theirs = middle["ours" + end], middle["padded" + end]
        print(f"{name:14} {what:10} {mine:8.1f} rows/s, padded {theirs:8.1f}, ratio {mine / theirs:5.1f}")


def load(folder: Path, task: Task) -> Any:
    """The encoder itself on a CPU; RoBERTa-large's shape with random weights on a GPU."""
    if device().type == "cpu":
        return load_with_head(folder, task)
    from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification

    kind = (
        AutoModelForMultipleChoice if task.head == "multiple_choice" else AutoModelForSequenceClassification
    )
    return kind.from_config(roberta_large(task.classes))


def roberta_large(classes: int) -> Any:
    from transformers import RobertaConfig

    shape = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    }
    return RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=2, num_labels=classes, **shape
    )


def train(rows: Encoded, collate: Any, model: Any, task: Task, tokenizer: Any, *, grouped: bool) -> float:
    """Rows per second of a pass over the rows, the first step left out: it warms up."""
    from transformers import TrainerCallback

    materials = Inputs(
        Path(), task, tokenizer, collate, rows, None, Settings(epochs=1, batch_size=BATCH), PADDED
    )
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            decide()
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(materials, model, 0, 1e-5, Path(folder))
        trainer.args.save_strategy = "no"
        if not grouped:
            trainer.args.train_sampling_strategy = "random"
        trainer.add_callback(Clock())
        trainer.train()
    return BATCH * (len(times) - 1) / (times[-1] - times[0])


def test_padded(rows: Encoded, collate: Any, model: Any, task: Task, tokenizer: Any) -> float:
    materials = Inputs(
        Path(), task, tokenizer, collate, rows, None, Settings(epochs=1, batch_size=BATCH), PADDED
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(materials, model, 0, 1e-5, Path(folder))
        return timed(len(rows.dataset), lambda: trainer.predict(rows.dataset))


def timed(rows: int, work: Any) -> float:
    decide()
    began = time.perf_counter()
    work()
    decide()
    return rows / (time.perf_counter() - began)


def decide() -> None:
    """Wait for the GPU to have done what it was told."""
    if device().type == "cuda":
        import torch

        torch.cuda.synchronize()


def utilisation() -> None:
    """The share of the chip's peak at batches of 64 x 256 tokens, RoBERTa-large's shape, bf16."""
    import torch
    from transformers import RobertaForSequenceClassification

    model = RobertaForSequenceClassification(roberta_large(2)).to(device()).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(5, 50_000, (64, 256), device=device())
    labels = torch.zeros(64, dtype=torch.long, device=device())
    steps = 20
    for step in range(steps + 5):
        if step == 5:
            decide()
            began = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    decide()
    seconds = (time.perf_counter() - began) / steps
    weights = sum(p.numel() for name, p in model.named_parameters() if "embeddings" not in name)
    attention = 12 * 24 * 1024 * 256  # per token: scores and values of 24 layers, forward and backward
    flops = 64 * 256 * (6 * weights + attention)
    chip = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAK_TFLOPS.items() if key in chip), None)
    share = f", MFU {flops / seconds / peak / 1e12:.0%}" if peak else ", its peak is not known here"
    print(f"{chip}: 64 x 256 tokens in {seconds * 1e3:.1f} ms, {flops / seconds / 1e12:.0f} TFLOP/s{share}")


if __name__ == "__main__":
    main()
