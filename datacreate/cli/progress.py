"""Progress of a creation on stderr: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

import click

from datacreate.runs.summary import Tally

_LINE_SECONDS = 10.0
"""How often a plain line is printed where there is no terminal."""


class CreationProgress:
    """A `creation.Progress`; use it as a context manager."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._said = time.monotonic()
        self._from: tuple[float, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        click.echo(text, err=True)

    def update(self, tally: Tally, count: int) -> None:
        now = time.monotonic()
        if self._from is None:
            self._from = (now, tally.accepted)
        began, before = self._from
        speed = (tally.accepted - before) / (now - began) if now > began else 0.0
        detail = f"{speed:.2f}/s, {sum(tally.rejects.values())} rejected"
        if self._terminal:
            self._draw(tally.accepted, count, detail)
        elif now - self._said >= _LINE_SECONDS or tally.accepted >= count:
            self._said = now
            click.echo(f"{tally.accepted} of {count} examples, {detail}", err=True)

    def _draw(self, accepted: int, count: int, detail: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("examples"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=count, detail=detail)
            self._bar.start()
        self._bar.update(self._task, completed=accepted, detail=detail)
