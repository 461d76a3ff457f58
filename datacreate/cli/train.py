"""`datacreate train`: fine-tunes an encoder."""

from __future__ import annotations

from typing import Any

import click

from datacreate.cli.options import command, config_option, json_option, option, settings_options
from datacreate.cli.terminal import TerminalProgress, echo, print_json, print_plan
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.train import TrainConfig


@command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@settings_options(TrainConfig)
@settings_options(Hyperparameters, "hyperparameters")
@option("--dry-run", is_flag=True, help="Print what would be trained; write nothing.")
@config_option
@json_option("Print the models as JSON; with --dry-run what would be trained.")
def train(
    sources: tuple[str, ...],
    given_options: dict[str, Any],
    hyperparameters: dict[str, Any],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Fine-tune an encoder on SOURCE: a run, a file with rows, or a benchmark's human train split.

    Several sources are concatenated. When interrupted it exits with 75, and the same command resumes.

    \b
    datacreate train runs/csqa --out trained/csqa-tree
    datacreate train csqa --count 500 --encoder all-minilm-l6-v2 --out trained/csqa-human-500
    datacreate train csqa runs/csqa --human-count 200 --out trained/csqa-human+tree
    """
    from datacreate.commands.dry_run import describe_training
    from datacreate.finetuning.train import train as train_
    from datacreate.libraries import configure_process

    configure_process()
    config = TrainConfig.of(sources=sources, hyperparameters=Hyperparameters.of(**hyperparameters), **given_options)
    if dry_run:
        plan = describe_training(config)
        print_json(plan) if as_json else print_plan(plan)
        return
    with TerminalProgress() as progress:
        models = train_(config, progress=progress)
    if as_json:
        print_json([model.model_dump(mode="json") for model in models])
        return
    for model in models:
        figures = f"step {model.step} of {model.steps}, lr {model.learning_rate:g}"
        if model.validation_score is not None:
            score = round(100 * model.validation_score, 1) + 0  # not -0.0
            figures += f", score {score:.1f} on {model.validation_rows} validation rows"
        echo(f"{config.out / f'seed-{model.seed}'}  {figures}, {model.seconds:.0f} s")
