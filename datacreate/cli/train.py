"""`datacreate train` and `datacreate improve`: fine-tune an encoder; create more of what it gets wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from datacreate.cli.options import command, config_option, json_option, option, path_argument, settings_options
from datacreate.cli.terminal import TerminalProgress, echo, print_json, print_plan
from datacreate.engines.options import EngineOptions
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.train import TrainConfig
from datacreate.improve import REPEATED_OPTIONS, ImproveConfig
from datacreate.runs.config import CreateConfig


@command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@settings_options(TrainConfig)
@settings_options(Hyperparameters, "recipe")
@option("--dry-run", is_flag=True, help="Print what would be trained; write nothing.")
@config_option
@json_option("Print the models as JSON; with --dry-run what would be trained.")
def train(
    sources: tuple[str, ...], given_options: dict[str, Any], recipe: dict[str, Any], *, dry_run: bool, as_json: bool
) -> None:
    """Fine-tune an encoder on SOURCE: a run, a file with rows, or a benchmark's human train split.

    Several sources are concatenated. When interrupted it exits with 75, and the same command resumes.

    \b
    datacreate train runs/csqa --out trained/csqa-tree
    datacreate train csqa --count 500 --encoder all-minilm-l6-v2 --out trained/csqa-human-500
    datacreate train csqa runs/csqa --human-count 200 --out trained/csqa-human+tree
    """
    from datacreate.dry_run import describe_training
    from datacreate.finetuning.train import train as train_
    from datacreate.libraries import configure_process

    configure_process()
    config = TrainConfig.of(sources=sources, recipe=Hyperparameters.of(**recipe), **given_options)
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


@command()
@path_argument("runs", nargs=-1, required=True, metavar="RUN...")
@settings_options(ImproveConfig)
@settings_options(CreateConfig, "changed", only=REPEATED_OPTIONS, shown_default="as in RUN")
@settings_options(EngineOptions, "engine")
@option("--dry-run", is_flag=True, help="Print what would happen; train, start and write nothing.")
@config_option
@json_option("Print the summary as JSON; with --dry-run the plan.")
def improve(
    runs: tuple[Path, ...],
    given_options: dict[str, Any],
    changed: dict[str, Any],
    engine: dict[str, Any],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Create COUNT more examples, from those rows of the finished RUN that students get wrong.

    A student judges the rows that it was not trained on, so that no human labels are needed. Rows of several RUNs
    are judged together. When interrupted it exits with 75, and the same command resumes.

    \b
    datacreate improve runs/nli --count 200 --encoder all-minilm-l6-v2
    datacreate train runs/nli runs/nli-improved --out trained/nli
    """
    from datacreate.cli.create import print_created
    from datacreate.creation.loop import create
    from datacreate.creation.run_metrics import measure_run
    from datacreate.improve import prepare_improve
    from datacreate.libraries import configure_process

    configure_process()
    config = ImproveConfig.of(runs=runs, create=changed | engine, **given_options)
    if dry_run:
        from datacreate.dry_run import describe_improve

        plan = describe_improve(config)
        print_json(plan) if as_json else print_plan(plan)
        return
    with TerminalProgress() as progress:
        creation = prepare_improve(config, progress)
        summary = create(creation, progress=progress, compute_metrics=measure_run)
    print_json(summary) if as_json else print_created(creation.run_dir, summary)
