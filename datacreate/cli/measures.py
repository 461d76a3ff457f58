"""Shortcuts and diversity on a terminal."""

from __future__ import annotations

from typing import Any


def print_metrics(metrics: dict[str, Any]) -> None:
    """Two tables and the warnings; nothing for a run without rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from datacreate.metrics import tables

    if not metrics["rows"]:
        return
    console = Console(highlight=False)
    if metrics["no_shortcuts"]:
        console.print(Text(f"shortcuts: not measured, {metrics['no_shortcuts']}"))
    for columns, rows in (tables.shortcut_table(metrics), tables.diversity_table(metrics)):
        if rows:
            table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
            for index, column in enumerate(columns):
                table.add_column(Text(column), justify="right" if index else "left")
            for row in rows:
                table.add_row(*map(Text, row))
            console.print(table)
            console.print()
    for warning in tables.warnings(metrics):
        console.print(Text(f"warning: {warning}", "yellow"))
    console.print(Text(tables.basis(metrics), style="dim"))
