"""`datacreate show` and `datacreate export`: a run's summary, samples and metrics; its examples in other layouts."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from datacreate.cli.options import (
    command,
    json_option,
    option,
    path_argument,
    path_option,
    settings_options,
)
from datacreate.cli.terminal import echo, print_columns, print_json, say
from datacreate.messages import visible
from datacreate.runs.export import LAYOUTS
from datacreate.runs.export import export as export_run
from datacreate.settings import Settings, Shares, setting


@command()
@path_argument("run")
@option("--samples", type=click.IntRange(min=0), default=3, show_default=True, help="Examples to show.")
@json_option("Print everything as one JSON object.")
def show(run: Path, samples: int, as_json: bool) -> None:
    """Show RUN's summary, some of its examples, shortcuts and diversity."""
    from datacreate.dataset_metrics import DatasetMetrics
    from datacreate.runs.directory import RunDirectory

    directory = RunDirectory(run)
    config, summary = directory.read_config(), directory.summary()
    total = summary["accepted"]
    drawn = set(random.Random(0).sample(range(total), min(samples, total)))
    shown = [values for index, values in enumerate(directory.examples()) if index in drawn]
    metrics = DatasetMetrics().run(directory)
    if as_json:
        spec = config.spec.model_dump(mode="json")
        print_json({"summary": summary, "spec": spec, "samples": shown, "metrics": metrics})
        return
    print_samples(shown)
    print_summary(summary)
    echo()
    _print_metrics(metrics)


class _SplitOptions(Settings):
    split: Shares | None = setting(
        "Share of each file, such as train=0.9,validation=0.1; rows of one parent stay together.",
        "output",
        metavar="NAME=0.9,...",
    )


@command()
@path_argument("run")
@option(
    "--layout",
    type=click.Choice(list(LAYOUTS)),
    default="jsonl",
    show_default=True,
    help="jsonl: as train.jsonl; hf: a datasets folder; parquet; csv; chat: conversations; alpaca: instruction, input, "
    "output; preference: prompt, chosen, rejected; reference: train_STRATEGY.jsonl.",
)
@path_option("--out", help="Folder to write to.  [default: RUN/export/LAYOUT]")
@settings_options(_SplitOptions)
@option("--seed", type=int, default=42, show_default=True, help="Seed that draws the splits.")
@option("--partial", is_flag=True, help="Export what an unfinished run has so far.")
def export(
    run: Path, layout: str, out: Path | None, settings: dict[str, Any], seed: int, partial: bool
) -> None:
    """Write RUN's examples in another layout, as one file or split."""
    from datacreate.runs.directory import RunDirectory

    split = _SplitOptions.of(**settings).split
    for path in export_run(
        RunDirectory(run), layout, out, split=split, seed=seed, partial=partial, notify=say
    ):
        echo(str(path))


def print_samples(examples: Sequence[dict[str, Any]]) -> None:
    """Each example as a small table of its fields; markup in the texts has no effect."""
    for values in examples:
        _print_fields((name, value) for name, value in values.items() if value is not None)
        echo()


def print_summary(summary: dict[str, Any]) -> None:
    """The most important figures, a line each, and warnings."""
    verified = summary["verification"]
    rejected = sum(n for reason, n in summary["rejected"].items() if reason != "not_needed")
    share = f" ({summary['accepted'] / (summary['accepted'] + rejected):.0%} accepted)" if rejected else ""
    replicas = f", {summary['replicas']} servers" if summary["replicas"] > 1 else ""
    test_sets = ", ".join(dict.fromkeys(split["name"] for split in summary["compared_with"]))
    rows = {
        "examples": f"{summary['accepted']} of {summary['requested']}{share}",
        "made by": f"{summary['model']}, {summary['strategy']}",
        "benchmark": summary.get("benchmark", ""),
        "rejected": _counts(summary["rejected"]),
        "depth": _counts(summary["depths"]),
        "labels": _counts(summary["labels"]),
        "verified": _verification(verified) if verified else "",
        **review_lines(summary["review"]),
        "test sets": f"compared with {test_sets or 'none'}",
        "speed": f"{summary['examples_per_second']} examples/s, {summary['tokens_per_second']} tokens/s{replicas}",
        "cost": f"{summary['requests']} requests, {summary['generated_tokens']} tokens generated "
        f"({summary['tokens_per_example']} per example), {summary['seconds']} s",
    }
    _print_fields((name, text) for name, text in rows.items() if text)
    for warning in filter(None, (summary["depth_warning"], verified and verified["warning"])):
        echo(f"warning: {warning}", fg="yellow")


def review_lines(review: Mapping[str, Any] | None) -> dict[str, str]:
    """What reviewers decided, and what a random sample says about the labels."""
    if review is None:
        return {}
    verdicts = ", ".join(f"{review[verdict]} {verdict}" for verdict in ("accepted", "edited", "rejected"))
    lines = {"reviewed": f"{review['reviewed']} rows: {verdicts}"}
    if (sample := review["sample"]) and sample["decided"]:
        low, high = sample["interval"]
        lines["sample"] = (
            f"{sample['right']} of {sample['decided']} labels right ({sample['accuracy']:.0%}, 95 % interval "
            f"{low:.0%} to {high:.0%}); {sample['rows']} rows drawn from {sample['of']}"
        )
    return lines


def _verification(checked: Mapping[str, Any]) -> str:
    """Verifier, rows kept, and the result of the label-noise check."""
    parts = [f"kept {checked['kept']} of {checked['scored']}"]
    if (agreed := checked["agreed"]) is not None:
        parts.append(f"agreed with {agreed:.0%} of the assigned answers")
    if (found := checked["concordance"]) is not None:
        parts.append(f"concordance {found:.2f}{', pseudo-labels' if checked['pseudo_labels'] else ''}")
    return f"by {checked['model']} ({checked['mode']}): {', '.join(parts)}"


def _print_fields(fields: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from datacreate.formats.example import field_text

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields:
        table.add_row(Text(visible(name)), Text(visible(field_text(value))))
    Console(highlight=False).print(table)


def _print_metrics(metrics: dict[str, Any]) -> None:
    from datacreate.metrics import tables

    if not metrics["rows"]:
        return
    if metrics["no_shortcuts"]:
        echo(f"shortcuts: not measured, {metrics['no_shortcuts']}")
    for columns, rows in (tables.shortcut_table(metrics), tables.diversity_table(metrics)):
        if rows:
            print_columns((columns, *rows))
            echo()
    for warning in tables.warnings(metrics):
        echo(f"warning: {warning}", fg="yellow")
    echo(tables.basis(metrics))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())
