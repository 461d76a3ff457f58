"""Progress bars for `datacreate models`, on a terminal; the only place there that knows rich."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from datacreate.checkpoints import Progress


@contextmanager
def bars(name: str) -> Iterator[Progress]:
    """One bar per stage, under each other; lines that measure nothing stand above them."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console) as shown:
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, done: int, total: int, unit: str) -> None:  # noqa: ARG001
            if total <= 0:
                console.print(f"{name}: {stage}", markup=False, highlight=False)
                return
            if stage not in tasks:
                tasks[stage] = shown.add_task(f"{name}: {stage}", total=total)
            shown.update(tasks[stage], completed=done, total=total)

        yield tell
