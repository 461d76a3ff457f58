"""`datacreate train`: fine-tune an encoder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from datacreate.finetuning.settings import Settings


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Where the models live; the same command goes on from there.",
)
@click.option(
    "--encoder",
    default="roberta-large",
    show_default=True,
    help="Preset name (see `models list`) or checkpoint folder.",
)
@click.option("--count", type=click.IntRange(min=1), help="Rows to draw from the sources.  [default: all]")
@click.option("--sample-seed", type=int, default=0, show_default=True, help="Of that draw; draws are nested.")
@click.option("--seeds", default="1,2,3", show_default=True, help="Training seeds: a model for each.")
@click.option(
    "--model-selection",
    type=click.Choice(["held-out", "human", "none"]),
    help="Rows that select the best model: a held-out part of the rows, the benchmark's human dev split, or "
    "none.  [default: held-out; human with --recipe paper]",
)
@click.option(
    "--recipe",
    type=click.Choice(["datacreate", "paper"]),
    default="datacreate",
    show_default=True,
    help="`paper` trains as the reference implementation does.",
)
@click.option("--learning-rates", help="One, or several to choose from: 1e-5,2e-5.  [default: the encoder's]")
@click.option("--epochs", type=int, help="Passes over the rows.  [default: by their number]")
@click.option("--batch-size", type=int, help="Rows a step, all devices together.  [default: 16]")
@click.option(
    "--device-batch-size",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Rows a device holds at once.",
)
@click.option(
    "--max-length", type=int, help="Tokens of the longest input.  [default: 512 with a passage, else 256]"
)
@click.option("--lora", is_flag=True, help="Train low-rank adapters in the place of all weights.")
@click.option("--lora-rank", type=int, default=16, show_default=True)
@click.option(
    "--soft-labels",
    is_flag=True,
    help="Learn a verifier's probabilities in the place of one label, for rows of a run that it judged.",
)
@click.option("--benchmark", help="The benchmark that the rows are for, where the sources do not say.")
@click.option("--condition", help="What to call these rows in a report.  [default: human, the strategy, ...]")
@click.option(
    "--nproc",
    type=click.IntRange(min=1),
    help="Processes that train together.  [default: one for each GPU]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the models as JSON.")
def train(sources: tuple[str, ...], as_json: bool, nproc: int | None, **told: Any) -> None:
    """Fine-tune an encoder on SOURCE: a run, a JSONL file, or a benchmark's human train split.

    Several sources are mixed. Stopped, it exits with 75; the same command goes on.

    \b
    datacreate train runs/csqa --out trained/csqa-tree
    datacreate train csqa --count 500 --encoder all-minilm-l6-v2 --out trained/csqa-human-500
    datacreate train csqa runs/csqa --out trained/csqa-human+tree
    """
    from datacreate.cli.progress import TrainingProgress
    from datacreate.finetuning.hardware import keep_memory, share_the_cores
    from datacreate.finetuning.train import TrainConfig
    from datacreate.finetuning.train import train as train_

    share_the_cores()
    keep_memory()
    _together(nproc)
    config = TrainConfig(
        sources=sources,
        out=told["out"],
        encoder=told["encoder"],
        seeds=_numbers(told["seeds"], "--seeds", int),
        count=told["count"],
        sample_seed=told["sample_seed"],
        model_selection=told["model_selection"] or ("human" if told["recipe"] == "paper" else "held-out"),
        condition=told["condition"],
        benchmark=told["benchmark"],
        settings=_settings(told),
        device_rows=told["device_batch_size"],
    )
    with TrainingProgress() as progress:
        models = train_(config, progress=progress)
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        click.echo(json.dumps([model.model_dump(mode="json") for model in models], indent=2))
        return
    for model in models:
        score = (
            ""
            if model.selection_score is None
            else f", {model.selection_score:.3f} on {model.selection_rows}"
        )
        click.echo(
            f"{config.out / f'seed-{model.seed}'}  step {model.step} of {model.steps}, "
            f"lr {model.learning_rate:g}{score}, {model.seconds:.0f} s"
        )


def _settings(told: dict[str, Any]) -> Settings:
    from pydantic import ValidationError

    from datacreate.errors import UsageError
    from datacreate.finetuning.settings import PAPER, Lora, Settings, usual_settings
    from datacreate.settings import SettingsError

    base = PAPER if told["recipe"] == "paper" else usual_settings(told["encoder"], lora=told["lora"])
    changes = {name: told[name] for name in ("epochs", "batch_size", "max_length") if told[name] is not None}
    if told["learning_rates"]:
        changes["learning_rates"] = _numbers(told["learning_rates"], "--learning-rates", float)
    try:
        if told["lora"]:
            changes["lora"] = Lora(rank=told["lora_rank"], alpha=2 * told["lora_rank"])
        if told["soft_labels"]:
            changes["soft_labels"] = True
        return Settings.model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        raise UsageError(SettingsError.first(error).on_command_line({"rank": "--lora-rank"})) from None


def _numbers(text: str, flag: str, kind: type[int | float]) -> tuple[Any, ...]:
    """`1,2,3` as numbers, each once; click.UsageError if it is something else."""
    try:
        return tuple(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        raise click.UsageError(f"{flag} {text}: write numbers with commas between them") from None


def _together(processes: int | None) -> None:
    """Run so many processes of this command, if more than one; each comes here again and goes on."""
    if "RANK" in os.environ:
        return
    if processes is None:
        import torch

        processes = torch.cuda.device_count() or 1
    if processes == 1:
        return
    from datacreate.finetuning.together import run_together

    sys.exit(run_together([sys.executable, "-m", "datacreate", *sys.argv[1:]], processes))
