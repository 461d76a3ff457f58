"""`datacreate evaluate`: measure fine-tuned encoders on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datacreate.cli.options import command, json_option, option, path_argument, path_option, settings_options
from datacreate.cli.terminal import Progress, echo, print_columns, print_json
from datacreate.engines.settings import EngineOptions
from datacreate.formats.options import FormatOptions

if TYPE_CHECKING:
    from datacreate.finetuning.records import Evaluation


@command()
@path_argument("models", nargs=-1, metavar="MODEL...")
@option(
    "--zero-shot",
    metavar="GENERATOR",
    group="input",
    help="Have an instruct model answer the test sets instead of fine-tuned models: preset, Hub id, folder, GGUF file "
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
@path_option(
    "--test",
    "files",
    multiple=True,
    group="input",
    help="File with test rows of one's own, as `train` reads it.",
)
@option(
    "--split",
    type=click.Choice(["test", "dev"]),
    default="test",
    group="input",
    help="Split.  [default: test]",
)
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
    as_json: bool,
) -> None:
    """Measure MODEL (the --out of a `train`, or one seed of it) on benchmarks, or on files of one's own.

    All predictions are stored with the model. Evaluations that exist are not repeated.

    \b
    datacreate evaluate trained/csqa-tree
    datacreate evaluate trained/creak-* --benchmark strategyqa --benchmark boolq_closed
    datacreate evaluate trained/mine --test test.jsonl
    datacreate evaluate --zero-shot qwen3-8b --benchmark csqa --out trained/zero-shot
    datacreate evaluate --zero-shot qwen3-8b --url http://node7:8000 --benchmark all --out trained/zero-shot
    """
    if bool(models) == bool(zero_shot):
        raise click.UsageError("give either models or --zero-shot GENERATOR")
    if flag := next((FormatOptions.flags()[name] for name in format_options if not files), None):
        raise click.UsageError(f"{flag} only applies to --test; remove it, or give --test FILE")
    from datacreate.benchmarks import has_split, load_registry

    if zero_shot:
        from datacreate.zero_shot import answer_zero_shot

        if not benchmarks or out is None or files:
            raise click.UsageError("--zero-shot needs --benchmark NAME and --out DIR, and takes no --test")
        names = benchmarks
        if "all" in benchmarks:
            names = tuple(name for name, each in load_registry().items() if has_split(each, split))
        if not names:
            raise click.UsageError(
                f"no benchmark has an imported {split} split; import one: `datacreate benchmarks import NAME`"
            )
        options = EngineOptions.of(**engine)
        with Progress("answers") as progress:
            answers = answer_zero_shot(zero_shot, names, out, progress, options=options, split=split)
            found = [(out, one) for one in answers]
    else:
        from datacreate.finetuning.evaluate import evaluate as evaluate_
        from datacreate.finetuning.records import models_at
        from datacreate.libraries import configure_process

        if flag := "--out" if out else next((EngineOptions.flags()[name] for name in engine), None):
            raise click.UsageError(f"{flag} only applies to --zero-shot; remove it, or give --zero-shot NAME")
        configure_process()
        if files and not benchmarks and split != "test":
            raise click.UsageError(
                f"--split {split} only applies to --benchmark; remove it, or give --benchmark NAME"
            )
        folders = [folder for path in models for folder in models_at(path)]
        with Progress() as progress:
            how: dict[str, Any] = {"files": files, "options": FormatOptions.of(**format_options)}
            found = [(at, one) for at in folders for one in evaluate_(at, benchmarks, split, progress, **how)]
    if as_json:
        print_json([{"model": str(folder), **one.model_dump(mode="json")} for folder, one in found])
    else:
        _print(found)


def _print(found: list[tuple[Path, Evaluation]]) -> None:
    """A line per model and test set; warnings below."""
    lines = [("MODEL", "TEST SET", "SCORE", "ACCURACY", "95 %", "MACRO-F1", "CONSTANT")]
    warnings = []
    for folder, one in found:
        s = one.scores
        low, high = s.accuracy_interval
        figures = f"{100 * s.accuracy:.2f}", f"{100 * low:.1f}–{100 * high:.1f}"
        shares = f"{100 * s.macro_f1:.1f}", f"{100 * s.constant:.1f}"
        lines.append((str(folder), one.benchmark, f"{100 * s.score:.1f}", *figures, *shares))
        remarks = {
            "degenerate: (nearly) all predictions are the same": s.degenerate,
            "not significantly above chance": not s.above_chance,
            f"rows without a prediction or right answer, which are wrong: {s.unanswered} of {s.rows}": s.unanswered,
            f"rows longer than the model's input, which were cut: {s.truncated} of {s.rows}": s.truncated,
        }
        warnings += [f"{folder} on {one.benchmark}: {text}" for text, applies in remarks.items() if applies]
    print_columns(lines)
    for warning in warnings:
        echo(warning)
