"""`datacreate evaluate`: measure fine-tuned encoders on benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datacreate.cli.options import command, json_option, option, refuse_options, settings_options
from datacreate.engines.settings import EngineOptions

if TYPE_CHECKING:
    from datacreate.finetuning.records import Evaluation


@command()
@click.argument("models", nargs=-1, type=click.Path(path_type=Path), metavar="MODEL...")
@option(
    "--zero-shot",
    metavar="GENERATOR",
    group="input",
    help="Have an instruct model answer the test sets, instead of fine-tuned models: preset, folder, GGUF file, "
    "or a name on the servers of --url.",
)
@option(
    "--benchmark",
    "benchmarks",
    multiple=True,
    group="input",
    help="Test set; all for every benchmark that the model can answer.  "
    "[default: the model's own and its out-of-distribution ones]",
)
@option(
    "--split",
    type=click.Choice(["test", "dev"]),
    default="test",
    show_default=True,
    group="input",
    help="Split of the benchmarks.",
)
@option(
    "--out",
    type=click.Path(path_type=Path),
    group="output",
    help="Folder for the evaluations of --zero-shot.",
)
@settings_options(EngineOptions, "engine")
@json_option("Print the evaluations as JSON.")
@click.pass_context
def evaluate(
    context: click.Context,
    /,
    models: tuple[Path, ...],
    benchmarks: tuple[str, ...],
    split: str,
    zero_shot: str | None,
    out: Path | None,
    engine: dict[str, Any],
    as_json: bool,
) -> None:
    """Measure MODEL (the --out of a `train`, or one seed of it) on benchmarks.

    All predictions are stored with the model. Evaluations that exist are not repeated.

    \b
    datacreate evaluate trained/csqa-tree
    datacreate evaluate trained/creak-* --benchmark strategyqa --benchmark boolq_closed
    datacreate evaluate --zero-shot qwen3-8b --benchmark csqa --out trained/zero-shot
    datacreate evaluate --zero-shot qwen3-8b --url http://node7:8000 --benchmark all --out trained/zero-shot
    """
    if bool(models) == bool(zero_shot):
        raise click.UsageError("give either models or --zero-shot GENERATOR")
    if zero_shot:
        if not benchmarks or out is None:
            raise click.UsageError("--zero-shot needs --benchmark NAME and --out DIR")
        found = _zero_shot(zero_shot, benchmarks, out, split, EngineOptions.of(**engine))
    else:
        given = [*engine, *(["out"] if out else [])]
        refuse_options(context, given, "that is for --zero-shot; remove it, or give --zero-shot GENERATOR")
        found = _fine_tuned(models, benchmarks, split)
    if as_json:
        documents = [{"model": str(folder), **one.model_dump(mode="json")} for folder, one in found]
        click.echo(json.dumps(documents, indent=2))
        return
    _print(found)


def _zero_shot(
    generator: str, benchmarks: tuple[str, ...], out: Path, split: str, options: EngineOptions
) -> list[tuple[Path, Evaluation]]:
    from datacreate.benchmarks import load_registry
    from datacreate.cli.progress import TrainingProgress
    from datacreate.zero_shot import answer_zero_shot

    names = list(load_registry()) if "all" in benchmarks else benchmarks
    with TrainingProgress("answers") as progress:
        found = answer_zero_shot(generator, names, out, progress, options=options, split=split)
        return [(out, one) for one in found]


def _fine_tuned(
    models: tuple[Path, ...], benchmarks: tuple[str, ...], split: str
) -> list[tuple[Path, Evaluation]]:
    from datacreate.cli.progress import TrainingProgress
    from datacreate.finetuning.evaluate import evaluate as evaluate_
    from datacreate.finetuning.records import models_at
    from datacreate.finetuning.trial import configure_process

    configure_process()
    folders = [folder for path in models for folder in models_at(path)]
    with TrainingProgress() as progress:
        return [(folder, one) for folder in folders for one in evaluate_(folder, benchmarks, split, progress)]


def _print(found: list[tuple[Path, Evaluation]]) -> None:
    """A table row per model and test set; warnings below."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("model", "test set"):
        table.add_column(name, no_wrap=True)
    for name in ("score", "accuracy", "95 %", "macro-F1", "constant"):
        table.add_column(name, justify="right", no_wrap=True)
    warnings = []
    for folder, one in found:
        s = one.scores
        low, high = s.accuracy_interval
        figures = f"{100 * s.accuracy:.2f}", f"{100 * low:.1f}–{100 * high:.1f}"
        shares = f"{100 * s.macro_f1:.1f}", f"{100 * s.constant:.1f}"
        table.add_row(Text(str(folder)), one.benchmark, f"{100 * s.score:.1f}", *figures, *shares)
        for applies, text in (
            (s.degenerate, "degenerate: (nearly) all predictions are the same"),
            (not s.above_chance, "not significantly above chance"),
            (s.unanswered, f"{s.unanswered} rows without a prediction count as wrong"),
            (s.truncated, f"{s.truncated} of {s.rows} rows were truncated"),
        ):
            if applies:
                warnings.append(f"{folder} on {one.benchmark}: {text}")
    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    console.print(table)
    for warning in warnings:
        console.print(Text(warning))
