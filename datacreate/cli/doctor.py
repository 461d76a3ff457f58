"""`datacreate doctor`: what is installed, what is missing, what to type."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from datacreate.cli.options import Command, settings_options
from datacreate.cli.terminal import printable, say
from datacreate.runs.config import CreateConfig

if TYPE_CHECKING:
    from datacreate.doctor import Job, Line, Report

F = TypeVar("F", bound=Callable[..., Any])

_COLOURS = {"ok": "green", "note": "yellow", "red": "red"}

_SWITCHES = [
    click.option("--verify", is_flag=True, help="Hash every byte of checkpoints and benchmarks."),
    click.option("--network", is_flag=True, help="Try the network; without it none is used."),
    click.option("--json", "as_json", is_flag=True, help="JSON instead of text."),
]


def _switches(command: F) -> F:
    """The options that the screen has with every job."""
    for option in reversed(_SWITCHES):
        command = option(command)
    return command


@click.group(invoke_without_command=True, subcommand_metavar="[JOB [OPTIONS]]")
@_switches
@click.pass_context
def doctor(context: click.Context, /, **switches: bool) -> None:
    """Look at everything on one screen; with JOB, whether that job could run here.

    Every red line ends with the command that fixes it. Exits with 1 when the job could not run, or
    when something is red that every job needs.

    \b
    datacreate doctor
    datacreate doctor create --model qwen3-8b --strategy diverse
    datacreate doctor train csqa --encoder roberta-large
    datacreate doctor evaluate trained/csqa-tree
    datacreate doctor sweep paper
    """
    context.obj = switches
    if context.invoked_subcommand is None:
        _show(None, context, switches)


@doctor.command(cls=Command)
@click.option("--count", metavar="N|train", default="1", help="As `create` takes it.")
@click.option("--run-dir", type=click.Path(path_type=Path), help="Where the run is to live.")
@settings_options(CreateConfig, without=("count", "run_dir", "verify"))
@_switches
@click.pass_context
def create(
    context: click.Context,
    /,
    verify: bool,
    network: bool,
    as_json: bool,
    count: str,
    run_dir: Path | None,
    settings: dict[str, Any],
) -> None:
    """Could `datacreate create` run with these options?

    It takes those of `create`, but for --verify, which means hashing here. Looked at are whether they
    go together, the example and its format, models, adapter, verifier and encoder, which engine would
    load a model and whether it fits the memory, and the run directory. With --url no model is needed
    here: the addresses are looked at, and with --network the servers are asked for their model.
    """
    from datacreate.doctor import create_job

    if not {"example", "benchmark"} & settings.keys():
        settings["example"] = {}  # none to look at
    config = CreateConfig.of(count=count, run_dir=run_dir or Path(), **settings)
    job = create_job(config, run_dir=run_dir, reach=network or context.obj["network"])
    _show(job, context, {"verify": verify, "network": network, "as_json": as_json})


@doctor.command()
@click.argument("sources", nargs=-1, metavar="[SOURCE...]")
@click.option("--encoder", default="roberta-large", show_default=True, help="Preset name or folder.")
@_switches
@click.pass_context
def train(context: click.Context, /, sources: tuple[str, ...], encoder: str, **switches: bool) -> None:
    """Could `datacreate train` fine-tune this encoder on SOURCE?"""
    from datacreate.doctor import train_job

    _show(train_job(sources, encoder=encoder), context, switches)


@doctor.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MODEL...")
@click.option("--benchmark", "benchmarks", multiple=True, help="As `evaluate` takes it.")
@_switches
@click.pass_context
def evaluate(
    context: click.Context, /, models: tuple[Path, ...], benchmarks: tuple[str, ...], **switches: bool
) -> None:
    """Could `datacreate evaluate` measure MODEL?"""
    from datacreate.doctor import evaluate_job

    _show(evaluate_job(models, benchmarks=benchmarks), context, switches)


@doctor.command()
@click.argument("plan", metavar="PLAN")
@_switches
@click.pass_context
def sweep(context: click.Context, /, plan: str, **switches: bool) -> None:
    """Could every cell of PLAN run here?"""
    from datacreate.doctor import sweep_job

    reach = switches["network"] or context.obj["network"]
    _show(sweep_job(plan, reach=reach), context, switches)


def _show(job: Job | None, context: click.Context, switches: dict[str, bool]) -> None:
    """Look, print, and exit with 1 if the job could not run."""
    from datacreate.doctor import examine

    # The switches may stand before the job or behind it.
    told = {name: switches[name] or context.obj[name] for name in switches}
    report = examine(
        job,
        hashed=told["verify"],
        reach=told["network"],
        note=say,
    )
    if told["as_json"]:
        click.echo(json.dumps(_document(report), indent=2, ensure_ascii=False))
    else:
        _print(report)
    if report.blocking:
        sys.exit(1)


def _document(report: Report) -> dict[str, Any]:
    return {
        "job": report.job,
        "can_run": not report.blocking,
        "lines": [asdict(line) for line in report.lines],
    }


def _print(report: Report) -> None:
    """A heading for each section, a line for each finding; on a terminal they are wrapped."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    names = max(len(line.name) for line in report.lines if len(line.name) <= _LONGEST_NAME)
    section = None
    for line in report.lines:
        if line.section != section:
            click.secho(line.section, bold=True)
            section = line.section
        _print_line(line, names, width)
    click.secho(_verdict(report), bold=True)


_LONGEST_NAME = 30
"""Longer ones, which are paths, stand out of the column."""


def _print_line(line: Line, names: int, width: int | None) -> None:
    state = click.style(f"{line.state:<4}", fg=_COLOURS[line.state], bold=line.state == "red")
    said = printable(f"{line.name:<{names}}  {line.said}")
    fix = "" if line.fix is None else printable(line.fix)
    whole = f"{said} → {fix}" if fix else said
    indent = " " * (names + 10)
    if width is None or len(whole) + 8 <= width:
        click.echo(f"  {state}  {whole}")
        return
    wrapped = textwrap.wrap(said, max(40, width - 8), subsequent_indent=indent[8:])
    click.echo(f"  {state}  {wrapped[0]}")
    for rest in wrapped[1:]:
        click.echo(f"        {rest}")
    if fix:
        click.echo(f"{indent}→ {fix}")  # whole, however long, so that it can be copied


def _verdict(report: Report) -> str:
    blocking, red = len(report.blocking), len(report.red)
    if report.job:
        return (
            f"{report.job} could not run here: {_lines(blocking)} red"
            if blocking
            else f"{report.job} can run"
        )
    if blocking:
        return f"nothing can run here: {_lines(blocking)} red that every job needs"
    return (
        f"{_lines(red)} red; `datacreate doctor JOB` says whether a job could run" if red else "all is well"
    )


def _lines(number: int) -> str:
    return "1 line is" if number == 1 else f"{number} lines are"
