"""Shortcuts and diversity on a terminal."""

from __future__ import annotations

from typing import Any


def print_measures(measures: dict[str, Any]) -> None:
    """Two tables and the warnings; nothing of a run without rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from datacreate.metrics import summary_lines as told

    if not measures["rows"]:
        return
    console = Console(highlight=False)
    human = told.human_name(measures)
    beside = [human] if human else []
    lines = told.shortcut_lines(measures)
    if lines:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for place, title in enumerate(["shortcut", "this set", "chance", *beside]):
            table.add_column(Text(title), justify="right" if place else "left")
        for line in lines:
            theirs = ["" if line.human is None else f"{line.human:.0%}"] if human else []
            marked = "!" if line.warning else ""
            table.add_row(Text(line.name), f"{marked}{line.ours:.0%}", f"{line.chance:.0%}", *theirs)
        console.print(table)
    else:
        console.print(Text(f"shortcuts: none measured, since {measures['no_shortcuts']}"))
    for warning in told.warnings(measures):
        console.print(Text(f"! {warning}"))
    if diverse := told.diversity_lines(measures):
        console.print()
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for place, title in enumerate(["diversity", "this set", *beside]):
            table.add_column(Text(title), justify="right" if place else "left")
        for figure in diverse:
            theirs = [figure.spelled(figure.human)] if human else []
            table.add_row(Text(figure.name), figure.spelled(figure.ours), *theirs)
        console.print(table)
        console.print(Text(told.basis(measures), style="dim"))
