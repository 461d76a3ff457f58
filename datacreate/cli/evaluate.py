"""`datacreate evaluate`: measure fine-tuned encoders on benchmarks."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datacreate.cli.options import command, json_option, option, path_argument, path_option, settings_options
from datacreate.cli.terminal import TerminalProgress, echo, print_columns, print_json
from datacreate.engines import EngineOptions
from datacreate.formats import FormatOptions

if TYPE_CHECKING:
    from datacreate.finetuning.records import Evaluation


@command()
@path_argument("models", nargs=-1, metavar="MODEL...")
@option("--zero-shot", metavar="GENERATOR", group="input", help="Let this instruct model answer instead.")
@option(
    "--benchmark",
    "benchmarks",
    multiple=True,
    group="input",
    help="Test set, or `all` that the model can answer.  [default: its own and the out-of-distribution ones]",
)
@path_option("--test", "files", multiple=True, group="input", help="File with your own test rows.")
@option("--split", type=click.Choice(["test", "dev"]), default="test", show_default=True, group="input")
@path_option("--out", group="output", help="Folder for the evaluations of --zero-shot.")
@settings_options(FormatOptions, "format_options")
@settings_options(EngineOptions, "engine")
@json_option("Print the evaluations as JSON.")
def evaluate(
    models: tuple[Path, ...],
    benchmarks: tuple[str, ...],
    files: tuple[Path, ...],
    split: str,
    zero_shot: str | None,
    out: Path | None,
    format_options: dict[str, Any],
    engine: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Measure MODEL (the --out of a `train`, or one seed of it) on benchmarks, or on your own files.

    All predictions are stored with the model. Evaluations that exist are not repeated.

    \b
    datacreate evaluate trained/csqa-tree
    datacreate evaluate trained/creak-* --benchmark strategyqa --benchmark boolq_closed
    datacreate evaluate trained/mine --test test.jsonl
    datacreate evaluate --zero-shot qwen3-8b --benchmark csqa --out trained/zero-shot
    datacreate evaluate --zero-shot qwen3-8b --url http://node7:8000 --benchmark all --out trained/zero-shot
    """
    from datacreate.finetuning.evaluate import evaluate as evaluate_
    from datacreate.finetuning.records import find_models
    from datacreate.libraries import configure_process

    if bool(models) == bool(zero_shot):
        raise click.UsageError("give either models or --zero-shot GENERATOR")
    if format_options and not files:
        flag = FormatOptions.flags()[next(iter(format_options))]
        raise click.UsageError(f"{flag} only applies to --test; remove it, or give --test FILE")
    if zero_shot:
        if not benchmarks or out is None or files:
            raise click.UsageError("--zero-shot needs --benchmark NAME and --out DIR, and takes no --test")
        _print(_zero_shot(zero_shot, benchmarks, out, split, EngineOptions.of(**engine)), as_json=as_json)
        return
    if engine or out:
        flag = "--out" if out else EngineOptions.flags()[next(iter(engine))]
        raise click.UsageError(f"{flag} only applies to --zero-shot; remove it, or give --zero-shot NAME")
    if files and not benchmarks and split != "test":
        raise click.UsageError(f"--split {split} only applies to --benchmark; remove it, or give --benchmark NAME")
    configure_process()
    options = FormatOptions.of(**format_options)
    evaluations: defaultdict[Path, list[Evaluation]] = defaultdict(list)
    try:
        with TerminalProgress() as progress:
            for folder in chain.from_iterable(map(find_models, models)):
                keep = evaluations[folder].append
                evaluate_(folder, benchmarks, split, progress.notify, files=files, options=options, on_evaluation=keep)
    finally:  # if one fails, the results of the others are shown above its error
        if pairs := [(folder, made) for folder, of_model in evaluations.items() for made in of_model]:
            _print(pairs, as_json=as_json)


def _zero_shot(
    model: str, benchmarks: tuple[str, ...], out: Path, split: str, options: EngineOptions
) -> list[tuple[Path, Evaluation]]:
    """The evaluations of the answers of an instruct model."""
    from datacreate.benchmarks import has_split, load_registry
    from datacreate.commands.zero_shot import answer_zero_shot

    if "all" in benchmarks:
        benchmarks = tuple(name for name, benchmark in load_registry().items() if has_split(benchmark, split))
        if not benchmarks:
            fix = "import one: `datacreate benchmarks import NAME`"
            raise click.UsageError(f"no benchmark has an imported {split} split; {fix}")
    with TerminalProgress("answers") as progress:
        evaluations = answer_zero_shot(model, benchmarks, out, progress, options=options, split=split)
    return [(out, evaluation) for evaluation in evaluations]


def _print(evaluations: list[tuple[Path, Evaluation]], *, as_json: bool) -> None:
    """Print a line per model and test set, and warnings below; or all as JSON."""
    if as_json:
        print_json([{"model": str(folder), **made.model_dump(mode="json")} for folder, made in evaluations])
        return
    lines = [("MODEL", "TEST SET", "SCORE", "ACCURACY", "95 %", "MACRO-F1", "CONSTANT")]
    warnings = []
    for folder, evaluation in evaluations:
        scores, (low, high) = evaluation.scores, evaluation.scores.accuracy_interval
        figures = (
            f"{round(100 * scores.score, 1) + 0.0:.1f}",  # a score just below 0 is no -0.0
            f"{100 * scores.accuracy:.2f}",
            f"{100 * low:.1f}–{100 * high:.1f}",
            f"{100 * scores.macro_f1:.1f}",
            f"{100 * scores.constant:.1f}",
        )
        lines.append((str(folder), evaluation.benchmark, *figures))
        only_label = scores.classes == 1
        remarks = {
            "degenerate: (nearly) all predictions are the same": scores.degenerate,
            "all test rows have one label, so the score is 0 by definition; give rows of every label": only_label,
            "not significantly above chance": not scores.above_chance and not only_label,
            "rows without a prediction or right answer, which are wrong: "
            f"{scores.unanswered} of {scores.rows}": scores.unanswered,
            "rows with a label that the model has not learned (a class without a right answer): "
            f"{scores.unlearned} of {scores.rows}": scores.unlearned,
            "rows longer than the model's input, which were cut: "
            f"{scores.truncated} of {scores.rows}": scores.truncated,
        }
        warnings += [f"{folder} on {evaluation.benchmark}: {text}" for text, applies in remarks.items() if applies]
    print_columns(lines)
    for warning in warnings:
        echo(warning)
