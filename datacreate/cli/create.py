"""`datacreate create` and `datacreate preview`."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datacreate.cli.options import command, config_option, file_option, json_option, option, settings_options
from datacreate.cli.terminal import TerminalProgress, echo, print_json, print_plan, say
from datacreate.errors import DatacreateError, UsageError
from datacreate.locking import exclusive_replacement
from datacreate.messages import safe_json
from datacreate.runs.config import CreateConfig

if TYPE_CHECKING:
    from datacreate.runs.stats import RunSummary


@command()
@settings_options(CreateConfig)
@config_option
@option("--dry-run", is_flag=True, help="Print what would happen; start no server and write nothing.")
@json_option("Print the summary as JSON; with --dry-run the plan and a configuration for --config.")
def create(given_options: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    """Make a training set of exactly COUNT examples from one or several formatting examples, or from an instruction.

    Formatting examples are your own or rows of a benchmark's train split, and are not part of the set. A stopped
    run (Ctrl-C, time limit, full disk) exits with 75; the same command resumes it. A larger --count extends a
    finished run.

    \b
    datacreate create --example mine.json --count 100
    datacreate create --example nli.json --labels label=entailment,neutral,contradiction \\
        --count 300 --strategy diverse --run-dir runs/nli
    datacreate create --example mails.csv --example-limit 20 --shots 3 --count 500
    datacreate create --benchmark csqa --count train
    datacreate create --instruction @task.txt --inputs subject,body --labels topic=bug,billing,other --count 100
    """
    from datacreate.creation.loop import create as create_
    from datacreate.creation.run_metrics import measure_run

    config = CreateConfig.of(**given_options)
    if dry_run:
        _dry_run(config, as_json=as_json)
        return
    with TerminalProgress() as progress:
        summary = create_(config, progress=progress, compute_metrics=measure_run)
    if as_json:
        print_json(summary)
        return
    print_created(config.run_dir, summary)


def print_created(run_dir: Path, summary: RunSummary) -> None:
    """Print a few examples of a run, its summary, and where they are."""
    from datacreate.cli.show import draw_rows, print_samples, print_summary
    from datacreate.runs.directory import RunDirectory

    print_samples(draw_rows(RunDirectory(run_dir), summary["accepted"], 3))
    print_summary(summary)
    echo(f"\n{run_dir / 'train.jsonl'}")


def _dry_run(config: CreateConfig, *, as_json: bool) -> None:
    from datacreate.commands.dry_run import describe_run

    plan, options = describe_run(config, say), config.as_options()
    # What this machine and this version decided, so that another one does the same.
    verify = plan["verification"]
    options |= {"strategy": plan["strategy"], "verify": "off" if verify == "off" else verify["mode"]}
    if verify == "off":
        options.pop("label-noise-check", None)
    if plan["models"] is None:
        options.pop("model")
    if as_json:
        print_json({"plan": plan, "config": options})
    else:
        print_plan(plan)


@command()
@option("--count", type=int, default=5, show_default=True, group="output", help="Examples to show.")
@file_option("--save-examples", ".jsonl", "Write the examples to a new file, to edit and use with --example.")
@settings_options(CreateConfig, without=("count", "run_dir"))
@config_option
@json_option("Print the examples as JSON lines.")
def preview(count: int, save_examples: Path | None, given_options: dict[str, Any], *, as_json: bool) -> None:
    """Show a few examples as `create` would write them; write nothing except --save-examples.

    Answers are not verified, which would need more examples than are shown, unless --verify or --verifier is given.
    The default strategy is tree, which needs no embedding model.
    """
    from datacreate.cli.show import print_samples
    from datacreate.creation.loop import create as create_
    from datacreate.runs.directory import RunDirectory
    from datacreate.runs.log import example_line

    if save_examples and (os.path.lexists(save_examples) or not save_examples.parent.is_dir()):
        raise UsageError(f"--save-examples {save_examples}: give a new file in an existing folder")
    if given_options.keys().isdisjoint(("verify", "verifier", "label_noise_check")):
        given_options["verify"] = "off"
    if given_options.get("strategy", "auto") == "auto":
        given_options["strategy"] = "tree"  # a few examples are not worth loading an embedding model
    with ExitStack() as stack:
        # Opened first: a path that cannot be written is an error before the examples are made.
        part = stack.enter_context(exclusive_replacement(save_examples, say)) if save_examples else None
        folder, keep_folder = Path(tempfile.mkdtemp(prefix="datacreate-preview-")), False
        try:
            with TerminalProgress() as progress:
                create_(CreateConfig.of(count=count, run_dir=folder, **given_options), progress=progress)
            examples = list(RunDirectory(folder).examples())
            with_attributes = list(RunDirectory(folder).examples(with_attributes=True))
        except DatacreateError as error:  # there is nothing to resume
            keep_folder = str(folder) in str(error)  # it has the log of a server that did not start
            raise type(error)(str(error).replace("run the same command to resume", "run it again")) from None
        finally:
            if not keep_folder:
                shutil.rmtree(folder, ignore_errors=True)
        if as_json:
            for values in examples:
                echo(safe_json(values))
        else:
            print_samples(with_attributes)
        if part:
            part.write_text("".join(f"{example_line(values)}\n" for values in examples), encoding="utf-8")
    if save_examples:
        say(f"{save_examples}: {len(examples)} examples")
