"""`datacreate train`: fine-tune an encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from datacreate.finetuning.recipe import Recipe


def _nproc(_context: click.Context, _option: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither a number from 1 on nor 'auto'")
    return int(value)


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the models; the same command resumes there.",
)
@click.option(
    "--encoder",
    default="roberta-large",
    show_default=True,
    help="Preset (`models list`) or checkpoint folder.",
)
@click.option("--count", type=click.IntRange(min=1), help="Rows to sample from the sources.  [default: all]")
@click.option(
    "--sample-seed", type=int, default=0, show_default=True, help="Of the sample; samples are nested."
)
@click.option("--seeds", default="1,2,3", show_default=True, help="Training seeds, one model each.")
@click.option(
    "--model-selection",
    type=click.Choice(["held-out", "human", "none"]),
    help="What chooses the best checkpoint: held-out rows, the benchmark's human dev split, or nothing.  "
    "[default: held-out; human with --recipe paper]",
)
@click.option(
    "--recipe",
    type=click.Choice(["datacreate", "paper"]),
    default="datacreate",
    show_default=True,
    help="Hyperparameters; `paper` trains as the reference implementation does.",
)
@click.option("--learning-rates", help="One, or several to choose from: 1e-5,2e-5.  [default: the encoder's]")
@click.option("--epochs", type=int, help="Passes over the rows.  [default: by their number]")
@click.option("--batch-size", type=int, help="Rows per optimizer step.  [default: 16]")
@click.option(
    "--device-batch-size",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Rows per forward pass; gradients are accumulated.",
)
@click.option(
    "--max-length", type=int, help="Longest input in tokens.  [default: 512 with a passage, else 256]"
)
@click.option("--lora", is_flag=True, help="Train low-rank adapters instead of all weights.")
@click.option("--lora-rank", type=int, default=16, show_default=True)
@click.option(
    "--soft-labels", is_flag=True, help="Train on the verifier's probabilities where a run has them."
)
@click.option("--benchmark", help="The benchmark that the rows are for, where the sources do not say.")
@click.option("--condition", help="Name of the training set in reports.  [default: human, the strategy, ...]")
@click.option(
    "--nproc",
    default="auto",
    show_default=True,
    metavar="N|auto",
    callback=_nproc,
    help="Training processes, one seed and learning rate each; auto: one per GPU.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the models as JSON.")
def train(sources: tuple[str, ...], out: Path, as_json: bool, **options: Any) -> None:
    """Fine-tune an encoder on SOURCE: a run, a JSONL file, or a benchmark's human train split.

    Several sources are mixed. When interrupted it exits with 75, and the same command resumes.

    \b
    datacreate train runs/csqa --out trained/csqa-tree
    datacreate train csqa --count 500 --encoder all-minilm-l6-v2 --out trained/csqa-human-500
    datacreate train csqa runs/csqa --out trained/csqa-human+tree
    """
    from datacreate.cli.progress import TrainingProgress
    from datacreate.finetuning.train import TrainConfig
    from datacreate.finetuning.train import train as train_
    from datacreate.finetuning.trial import configure_process

    configure_process()
    same = ("encoder", "count", "sample_seed", "condition", "benchmark", "device_batch_size", "nproc")
    config = TrainConfig(
        sources=sources,
        out=out,
        seeds=_numbers(options["seeds"], "--seeds", int),
        model_selection=options["model_selection"]
        or ("human" if options["recipe"] == "paper" else "held-out"),
        recipe=_recipe(options),
        **{name: options[name] for name in same},
    )
    with TrainingProgress() as progress:
        models = train_(config, progress=progress)
    if as_json:
        click.echo(json.dumps([model.model_dump(mode="json") for model in models], indent=2))
        return
    for model in models:
        score = model.selection_score
        chosen = (
            "" if score is None else f", score {100 * score:.1f} on {model.selection_rows} selection rows"
        )
        click.echo(
            f"{out / f'seed-{model.seed}'}  step {model.step} of {model.steps}, "
            f"lr {model.learning_rate:g}{chosen}, {model.seconds:.0f} s"
        )


def _recipe(options: dict[str, Any]) -> Recipe:
    from pydantic import ValidationError

    from datacreate.errors import UsageError
    from datacreate.finetuning.recipe import PAPER, Lora, Recipe, default_recipe
    from datacreate.settings_errors import SettingsError

    base = PAPER if options["recipe"] == "paper" else default_recipe(options["encoder"], lora=options["lora"])
    changes = {
        name: options[name] for name in ("epochs", "batch_size", "max_length") if options[name] is not None
    }
    if options["learning_rates"]:
        changes["learning_rates"] = _numbers(options["learning_rates"], "--learning-rates", float)
    try:
        if options["lora"]:
            changes["lora"] = Lora(rank=options["lora_rank"], alpha=2 * options["lora_rank"])
        return Recipe.model_validate({**base.model_dump(), **changes, "soft_labels": options["soft_labels"]})
    except ValidationError as error:
        raise UsageError(SettingsError.first(error).on_command_line({"rank": "--lora-rank"})) from None


def _numbers(text: str, flag: str, kind: type[int | float]) -> tuple[Any, ...]:
    """`1,2,3` as distinct numbers; click.UsageError if it is something else."""
    try:
        return tuple(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        raise click.UsageError(f"{flag} {text}: write numbers separated by commas") from None
