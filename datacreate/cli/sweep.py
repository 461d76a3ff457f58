"""`datacreate sweep`: a plan's grid, cell after cell or as one job of many."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from datacreate.cli.terminal import print_columns, printable, say

if TYPE_CHECKING:
    from types import TracebackType

    from datacreate.sweep import Outcome

_LINE_SECONDS = 60.0
"""How often a plain line is printed while one step runs."""

_ARRAY = "SLURM_ARRAY_TASK_ID"


def _number(told: str | None) -> int | None:
    """The cell's number: as it is given, or that of this job in its array."""
    found = os.environ.get(_ARRAY, "") if told == "auto" else told
    if found is None or found.isdecimal():
        return None if found is None else int(found)
    if told == "auto":
        raise click.UsageError(f"--index auto: ${_ARRAY} is not set; run it in a job array, or say a number")
    raise click.UsageError(f"--index {told}: give the number of a cell (see --list), or the word auto")


@click.command()
@click.argument("plan", metavar="PLAN")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Where the sweep lives; the same command goes on from there.  [default: runs/NAME]",
)
@click.option("--list", "list_", is_flag=True, help="Show the cells and where they stand; run nothing.")
@click.option("--index", metavar="I|auto", help=f"Run this cell alone; auto: the one of ${_ARRAY}.")
@click.option("--json", "as_json", is_flag=True, help="Print the cells as JSON.")
def sweep(plan: str, out: Path | None, list_: bool, index: str | None, as_json: bool) -> None:
    """Run the grid of PLAN: a YAML file, or the name of a shipped one (cpu, paper).

    Each step (create, train, evaluate) is a process of its own with a log of its own. Finished cells are
    skipped; failed ones are listed at the end, and a rerun tries them again. Exits with 1 when a cell
    failed or is impossible here, and with 75 when it was stopped: the same command goes on.

    \b
    datacreate sweep cpu --list
    datacreate sweep my-plan.yaml --out runs/mine
    sbatch --array=0-39 ... datacreate sweep my-plan.yaml --out runs/mine --index auto
    """
    from datacreate.errors import RESUMABLE
    from datacreate.sweep import Sweep, load_plan

    number = _number(index)
    loaded = load_plan(plan)
    out = out or Path("runs") / loaded.name
    grid = Sweep(loaded, out)
    if list_:
        outcomes = grid.standing()
        outcomes = outcomes if number is None else [outcomes[grid.cell(number).index]]
    else:
        with _Lines() as progress:
            outcomes = grid.run(number, progress)
    if as_json:
        click.echo(json.dumps([_document(outcome) for outcome in outcomes], indent=2, ensure_ascii=False))
    elif list_:
        _print_list(outcomes)
    else:
        _print_end(outcomes, out)
    states = {outcome.state for outcome in outcomes}
    if not list_ and states & {"failed", "impossible"}:
        sys.exit(1)
    if not list_ and "running" in states:
        sys.exit(RESUMABLE)


def _print_list(outcomes: Sequence[Outcome]) -> None:
    rows = [("INDEX", "CELL", "STEPS", "STATE")]
    for outcome in outcomes:
        steps = f"{outcome.finished_steps}/{len(outcome.cell.steps)}"
        rows.append((str(outcome.cell.index), outcome.cell.name, steps, _state(outcome)))
    print_columns(rows)


def _print_end(outcomes: Sequence[Outcome], out: Path) -> None:
    """What is not finished with its reason, then how many came out how."""
    for outcome in outcomes:
        if outcome.state != "finished":
            click.echo(f"{outcome.cell.name}  {_state(outcome)}")
            if outcome.state == "failed" and outcome.step:
                click.echo(f"  log: {out / 'cells' / outcome.cell.name / outcome.step.name}.log")
    counted = Counter(outcome.state for outcome in outcomes)
    click.echo(f"{', '.join(f'{number} {state}' for state, number in counted.items())}")
    click.echo(f"{out}  (`datacreate report {out}` makes tables of it)")


def _state(outcome: Outcome) -> str:
    later = outcome.step is not None and outcome.step != outcome.cell.steps[0]
    step = f"{outcome.step.name}: " if outcome.step and (later or outcome.state == "failed") else ""
    return outcome.state if outcome.said is None else f"{outcome.state}: {step}{printable(outcome.said)}"


def _document(outcome: Outcome) -> dict[str, Any]:
    return {
        "index": outcome.cell.index,
        "name": outcome.cell.name,
        "state": outcome.state,
        "failed_step": outcome.step.name if outcome.step else None,
        "said": outcome.said,
        "finished_steps": outcome.finished_steps,
        "steps": [{"name": step.name, "command": list(step.told)} for step in outcome.cell.steps],
    }


class _Lines:
    """A line for each step; while it runs its last word, live on a terminal, now and then otherwise."""

    def __init__(self) -> None:
        self._live: Any = None
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console

            self._live = Console(stderr=True).status("")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def notify(self, text: str) -> None:
        self._print(text)

    def at_work(self, where: str, said: str, seconds: float) -> None:
        line = f"{where}  {seconds:.0f} s  {printable(said)}"
        if self._live:
            from rich.text import Text

            shown = Text(line)
            shown.truncate(max(20, self._live.console.width - 4), overflow="ellipsis")  # beside the spinner
            self._live.update(shown)
        elif time.monotonic() - self._said >= _LINE_SECONDS:
            self._print(line)

    def ended(self, where: str, how: str, seconds: float) -> None:
        self._print(f"{where}  {how}, {seconds:.0f} s")

    def _print(self, text: str) -> None:
        self._said = time.monotonic()
        if self._live:
            from rich.text import Text

            self._live.console.print(Text(printable(text)))
        else:
            say(text)
