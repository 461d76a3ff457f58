"""`datacreate sweep`: runs a grid of experiments."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from datacreate.cli.options import command, config_option, json_option, option, path_option
from datacreate.cli.terminal import LiveText, echo, is_live, print_columns, print_json, say

if TYPE_CHECKING:
    from datacreate.sweep.run import Outcome, Sweep

_ARRAY = "SLURM_ARRAY_TASK_ID"


@command()
@click.argument("plan", metavar="PLAN")
@path_option("--out", group="output", help="Folder; the same command resumes there.  [default: runs/NAME]")
@option("--index", metavar="I|auto", help=f"Only this cell; auto: the one of ${_ARRAY}.")
@option(
    "--nproc", type=click.IntRange(1), metavar="N", help="Sets to create at once.  [default: 4, at most one per core]"
)
@option("--dry-run", is_flag=True, help="List the cells, their states, what is missing, and the commands.")
@config_option
@json_option("Print the cells as JSON.")
def sweep(plan: str, out: Path | None, index: str | None, nproc: int | None, *, dry_run: bool, as_json: bool) -> None:
    """Run the grid of PLAN: a YAML file, or the name of a shipped one (cpu, evidence,
    inputs, paper).

    Each step (create, train, evaluate) is a process with its own log. Finished steps are skipped, failed
    ones are listed at the end, and the same command tries them again. Exits with 1 if a cell failed or
    something is missing (also with --dry-run), and with 75 if it was stopped and can be resumed.

    \b
    datacreate sweep cpu --dry-run
    datacreate sweep my-plan.yaml --out runs/mine
    sbatch --array=0-39 scripts/datacreate.sbatch sweep my-plan.yaml --out runs/mine --index auto
    """
    from datacreate.errors import RESUMABLE
    from datacreate.sweep.plan import load_plan
    from datacreate.sweep.run import Sweep

    number = _cell_number(index)
    loaded = load_plan(plan)
    out = out or Path("runs") / loaded.name
    grid = Sweep(loaded, out, number)
    outcomes = grid.states() if dry_run else _run(grid, nproc)
    missing = grid.missing() if dry_run else []
    for line in missing:
        say(f"missing: {line}")
    if as_json:
        print_json([_document(grid, outcome) for outcome in outcomes])
    elif dry_run:
        _print_dry_run(grid, outcomes)
    else:
        _print_result(outcomes, out)
    states = {outcome.state for outcome in outcomes}
    if missing or ("failed" in states and not dry_run):
        sys.exit(1)
    if "running" in states and not dry_run:
        sys.exit(RESUMABLE)


def _cell_number(index: str | None) -> int | None:
    """The number of --index, or that of this task in its job array."""
    if index is None:
        return None
    number = os.environ.get(_ARRAY, "") if index == "auto" else index
    if not number.isdecimal():
        raise click.UsageError(f"--index {index}: give the number of a cell, or `auto` in a job array (${_ARRAY})")
    return int(number)


def _run(grid: Sweep, nproc: int | None) -> list[Outcome]:
    """Run cells with a line per step; on a terminal, also the last line of each running step."""
    if not is_live():
        return grid.run(say, nproc=nproc)
    with closing(LiveText()) as live:
        return grid.run(say, live.show, nproc)


def _print_dry_run(grid: Sweep, outcomes: Sequence[Outcome]) -> None:
    """Print a table of cells; below it the commands that would run."""
    rows = [("INDEX", "CELL", "STEPS", "STATE")]
    for outcome in outcomes:
        steps = f"{outcome.finished_steps}/{len(outcome.cell.steps)}"
        rows.append((str(outcome.cell.index), outcome.cell.name, steps, _state(outcome)))
    print_columns(rows)
    if len(outcomes) > 1:
        echo(f"{len(outcomes)} cells; as a job array: --array=0-{len(outcomes) - 1}")
    for cell in (outcome.cell for outcome in outcomes if outcome.state != "running"):
        if commands := grid.commands(cell):
            echo(f"\n{cell.name}")
            for command in commands:
                echo(f"  {shlex.join(command)}")


def _print_result(outcomes: Sequence[Outcome], out: Path) -> None:
    """Print each unfinished cell with its reason, and the number of cells per state."""
    for outcome in outcomes:
        if outcome.state != "finished":
            echo(f"{outcome.cell.name}  {_state(outcome)}")
            if outcome.step:
                echo(f"  log: {out / 'cells' / outcome.cell.name / outcome.step.name}.log")
    counts = Counter(outcome.state for outcome in outcomes)
    echo(", ".join(f"{number} {state}" for state, number in counts.items()))
    echo(f"{out}  (`datacreate report {out}` makes tables from it)")


def _state(outcome: Outcome) -> str:
    return f"failed: {outcome.step.name}: {outcome.message}" if outcome.step else outcome.state


def _document(grid: Sweep, outcome: Outcome) -> dict[str, Any]:
    """An outcome for --json."""
    return {
        "index": outcome.cell.index,
        "name": outcome.cell.name,
        "state": outcome.state,
        "step": outcome.step.name if outcome.step else None,
        "message": outcome.message,
        "finished_steps": outcome.finished_steps,
        "steps": [{"name": step.name, "command": list(step.command)} for step in outcome.cell.steps],
        "to_run": grid.commands(outcome.cell),
    }
