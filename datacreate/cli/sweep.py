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
    from datacreate.sweep.run import CellState, Sweep

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

    cell_number, loaded = _cell_number(index), load_plan(plan)
    out = out or Path("runs") / loaded.name
    grid = Sweep(loaded, out, cell_number)
    cell_states = grid.states() if dry_run else _run(grid, nproc)
    missing = grid.missing_requirements() if dry_run else []
    for line in missing:
        say(f"missing: {line}")
    if as_json:
        print_json([_document(grid, cell_state) for cell_state in cell_states])
    elif dry_run:
        _print_dry_run(grid, cell_states)
    else:
        _print_result(cell_states, out)
    states = {cell_state.state for cell_state in cell_states}
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


def _run(grid: Sweep, nproc: int | None) -> list[CellState]:
    """Run cells with a line per step; on a terminal, also the last line of each running step."""
    if not is_live():
        return grid.run(say, max_parallel=nproc)
    with closing(LiveText()) as live:
        return grid.run(say, live.show, nproc)


def _print_dry_run(grid: Sweep, cell_states: Sequence[CellState]) -> None:
    """Print a table of cells; below it the commands that would run."""
    rows = [("INDEX", "CELL", "STEPS", "STATE")]
    for cell_state in cell_states:
        steps = f"{cell_state.finished_steps}/{len(cell_state.cell.steps)}"
        rows.append((str(cell_state.cell.index), cell_state.cell.name, steps, _state(cell_state)))
    print_columns(rows)
    if len(cell_states) > 1:
        echo(f"{len(cell_states)} cells; as a job array: --array=0-{len(cell_states) - 1}")
    for cell in (cell_state.cell for cell_state in cell_states if cell_state.state != "running"):
        if commands := grid.commands(cell):
            echo(f"\n{cell.name}")
            for command in commands:
                echo(f"  {shlex.join(command)}")


def _print_result(cell_states: Sequence[CellState], out: Path) -> None:
    """Print each unfinished cell with its reason, and the number of cells per state."""
    for cell_state in cell_states:
        if cell_state.state != "finished":
            echo(f"{cell_state.cell.name}  {_state(cell_state)}")
            if cell_state.step:
                echo(f"  log: {out / 'cells' / cell_state.cell.name / cell_state.step.name}.log")
    counts = Counter(cell_state.state for cell_state in cell_states)
    echo(", ".join(f"{count} {state}" for state, count in counts.items()))
    echo(f"{out}  (`datacreate report {out}` makes tables from it)")


def _state(cell_state: CellState) -> str:
    step_name = cell_state.step.name if cell_state.step else None
    return ": ".join(filter(None, (cell_state.state, step_name, cell_state.message)))


def _document(grid: Sweep, cell_state: CellState) -> dict[str, Any]:
    """The state of a cell for --json."""
    return {
        "index": cell_state.cell.index,
        "name": cell_state.cell.name,
        "state": cell_state.state,
        "step": cell_state.step.name if cell_state.step else None,
        "message": cell_state.message,
        "finished_steps": cell_state.finished_steps,
        "steps": [{"name": step.name, "command": list(step.command)} for step in cell_state.cell.steps],
        "to_run": grid.commands(cell_state.cell),
    }
