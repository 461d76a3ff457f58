"""Measures training and evaluation against a plain Trainer loop that pads every input to 256 tokens.

    python scripts/perf/finetuning.py [--benchmark csqa --benchmark creak] [--encoder NAME] [--rows 96]

Both loops see the same rows, model, precision and batch size, alternately within one run; the output is rows
per second. On a GPU the model has RoBERTa-large's shape and random weights, and the share of the chip's peak
throughput (MFU) at batches of 64 x 256 tokens is printed too. Needs imported benchmarks.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datacreate.finetuning.encoder import Encoded, collator, load_with_head
from datacreate.finetuning.evaluate import probabilities
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import HeadSpec
from datacreate.finetuning.train import TrainConfig, encode_inputs, prepare
from datacreate.finetuning.trials import TrialInputs, make_trainer
from datacreate.hardware import device, has_bf16
from datacreate.libraries import quiet

MAX_LENGTH = 256
BATCH_SIZE = 16
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40": 362.0}  # dense bf16, from data sheets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--benchmark", action="append", help="default: csqa and creak")
    parser.add_argument("--encoder", default="all-minilm-l6-v2", help="on a GPU only its tokenizer is used")
    parser.add_argument("--rows", type=int, default=96, help="rows per measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    setting = f"batch {BATCH_SIZE}, {options.rows} rows x {options.rounds}"
    print(f"{device()}, bf16 {has_bf16()}, {options.encoder}, {setting}")
    hyperparameters = Hyperparameters(epochs=1, batch_size=BATCH_SIZE, max_length=MAX_LENGTH)
    for name in options.benchmark or ["csqa", "creak"]:
        config = TrainConfig(
            sources=(name,),
            out=Path("unused"),
            encoder=options.encoder,
            count=options.rows,
            hyperparameters=hyperparameters,
            model_selection="none",
        )
        compare(name, encode_inputs(prepare(config), config.device_batch_size), options.rounds)
    if device().type == "cuda":
        utilization()


def compare(name: str, grouped: TrialInputs, rounds: int) -> None:
    """Print rows per second of training and evaluation, ours and padded."""
    rows, head = grouped.rows, grouped.training.head
    speeds: dict[tuple[str, str], list[float]] = {}
    with quiet():
        model = load(grouped.encoder, head)
        measurements: dict[tuple[str, str], Callable[[], float]] = {
            ("training", "datacreate"): lambda: train(grouped, model),
            ("training", "padded"): lambda: train(grouped, model, padded=True),
            ("evaluation", "datacreate"): lambda: timed(
                rows, lambda: probabilities(model, rows.dataset, collator(head, grouped.tokenizer))
            ),
            ("evaluation", "padded"): lambda: predict_padded(grouped, model),
        }
        for _ in range(rounds):
            for key, measure in measurements.items():
                speeds.setdefault(key, []).append(measure())
    for what in ("training", "evaluation"):
        ours, theirs = (statistics.median(speeds[what, loop]) for loop in ("datacreate", "padded"))
        print(f"{name:14} {what:10} {ours:8.1f} rows/s, padded {theirs:8.1f}, ratio {ours / theirs:5.1f}")


def padded_collator(inputs: TrialInputs) -> Any:
    """Pads every row to the longest possible input."""
    from transformers import DataCollatorForMultipleChoice, DataCollatorWithPadding

    several = inputs.training.head.is_multiple_choice
    kind = DataCollatorForMultipleChoice if several else DataCollatorWithPadding
    return kind(inputs.tokenizer, padding="max_length", max_length=MAX_LENGTH)


def load(folder: Path, head: HeadSpec) -> Any:
    """The encoder itself on a CPU; RoBERTa-large's shape with random weights on a GPU."""
    if device().type == "cpu":
        return load_with_head(folder, head)
    from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification

    options = head.is_multiple_choice
    kind = AutoModelForMultipleChoice if options else AutoModelForSequenceClassification
    return kind.from_config(roberta_large(head.classes))


def roberta_large(classes: int) -> Any:
    from transformers import RobertaConfig

    shape = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    positions = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 2}
    return RobertaConfig(num_labels=classes, **positions, **shape)


def train(inputs: TrialInputs, model: Any, *, padded: bool = False) -> float:
    """Rows per second of one epoch, without its first step, which warms up."""
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            synchronize()
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(inputs, model, 0, 1e-5, Path(folder))
        trainer.args.save_strategy = "no"
        if padded:
            trainer._get_train_sampler, trainer.data_collator = SequentialSampler, padded_collator(inputs)
        trainer.add_callback(Clock())
        trainer.train()
    return BATCH_SIZE * (len(times) - 1) / (times[-1] - times[0])


def predict_padded(inputs: TrialInputs, model: Any) -> float:
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(inputs, model, 0, 1e-5, Path(folder))
        trainer.data_collator = padded_collator(inputs)
        return timed(inputs.rows, lambda: trainer.predict(inputs.rows.dataset))


def timed(rows: Encoded, work: Callable[[], object]) -> float:
    """Rows per second of `work`."""
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return len(rows.dataset) / (time.perf_counter() - start)


def synchronize() -> None:
    """Wait until the GPU has finished."""
    if device().type == "cuda":
        import torch

        torch.cuda.synchronize()


def utilization() -> None:
    """Print the share of the chip's peak at batches of 64 x 256 tokens with RoBERTa-large's shape in bf16."""
    import torch
    from transformers import RobertaForSequenceClassification

    model = RobertaForSequenceClassification(roberta_large(2)).to(device()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    ids = torch.randint(5, 50_000, (64, 256), device=device())
    labels = torch.zeros(64, dtype=torch.long, device=device())
    steps, start = 20, 0.0
    for step in range(steps + 5):
        if step == 5:
            synchronize()
            start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    synchronize()
    seconds = (time.perf_counter() - start) / steps
    weights = sum(p.numel() for name, p in model.named_parameters() if "embeddings" not in name)
    attention = 12 * 24 * 1024 * 256  # per token: scores and values of 24 layers, forward and backward
    flops = 64 * 256 * (6 * weights + attention)
    chip = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAK_TFLOPS.items() if key in chip), None)
    share = f", MFU {flops / seconds / peak / 1e12:.0%}" if peak else ", peak of this chip unknown"
    print(f"{chip}: 64 x 256 tokens in {seconds * 1e3:.1f} ms, {flops / seconds / 1e12:.0f} TFLOP/s{share}")


if __name__ == "__main__":
    main()
