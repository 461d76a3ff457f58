"""`datacreate improve`: creates more examples of what an encoder gets wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datacreate.cli.options import command, config_option, json_option, option, path_argument, settings_options
from datacreate.cli.terminal import TerminalProgress, print_json, print_plan
from datacreate.commands.improve import REPEATED_OPTIONS, ImproveConfig
from datacreate.engines import EngineOptions
from datacreate.runs.config import CreateConfig


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
    from datacreate.commands.improve import prepare_improve
    from datacreate.creation.loop import create
    from datacreate.creation.run_metrics import measure_run
    from datacreate.libraries import configure_process

    configure_process()
    config = ImproveConfig.of(runs=runs, create=changed | engine, **given_options)
    if dry_run:
        from datacreate.commands.dry_run import describe_improve

        plan = describe_improve(config)
        print_json(plan) if as_json else print_plan(plan)
        return
    with TerminalProgress() as progress:
        creation = prepare_improve(config, progress)
        summary = create(creation, progress=progress, compute_metrics=measure_run)
    print_json(summary) if as_json else print_created(creation.run_dir, summary)
