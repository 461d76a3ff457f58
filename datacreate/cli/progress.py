"""Progress on stderr: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Any, Self

from datacreate.cli.terminal import say
from datacreate.runs.summary import Tally

_LINE_SECONDS = 10.0
"""How often a plain line is printed where there is no terminal."""


class _Bar:
    """A bar of rich; nothing of it is loaded before it is drawn."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Any = None
        self._task: Any = None

    def draw(self, done: int, total: int, detail: str, unit: str | None = None) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[detail]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(unit or self._unit, total=total, detail=detail)
            self._bar.start()
        self._bar.update(
            self._task, completed=done, total=total, detail=detail, description=unit or self._unit
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _OnScreen:
    """What all kinds of progress share; use them as context managers."""

    def __init__(self, unit: str) -> None:
        self._bar = _Bar(unit) if sys.stderr.isatty() else None
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.close()

    def note(self, text: str) -> None:
        say(text)


class CreationProgress(_OnScreen):
    """A `creation.Progress`."""

    def __init__(self) -> None:
        super().__init__("examples")
        self._from: tuple[float, int] | None = None

    def update(self, tally: Tally, count: int) -> None:
        now = time.monotonic()
        if self._from is None:
            self._from = (now, tally.accepted)
        began, before = self._from
        speed = (tally.accepted - before) / (now - began) if now > began else 0.0
        detail = f"{speed:.2f}/s, {sum(tally.rejects.values())} rejected"
        if self._bar:
            self._bar.draw(tally.accepted, count, detail)
        elif now - self._said >= _LINE_SECONDS or tally.accepted >= count:
            self._said = now
            say(f"{tally.accepted} of {count} examples, {detail}")


class TrainingProgress(_OnScreen):
    """A `Progress` of training, evaluation and zero-shot answers."""

    def __init__(self, unit: str = "steps") -> None:
        super().__init__(unit)
        self._unit = unit
        self._silent = os.environ.get("RANK", "0") != "0"  # under torchrun one process speaks
        self._what = ""
        self._began = self._said
        self._from = 0

    def note(self, text: str) -> None:
        if not self._silent:
            super().note(text)

    def step(self, what: str, done: int, total: int, score: float | None) -> None:
        """After each step of `what`; `score` is the best so far on the rows that choose."""
        now = time.monotonic()
        if self._silent:
            return
        if what != self._what:
            if self._bar:
                self._bar.close()
            self._what, self._began, self._from = what, now, done - 1
        speed = (done - self._from) / (now - self._began) if now > self._began else 0.0
        detail = f"{speed:.1f} {self._unit}/s" + ("" if score is None else f", best {score:.3f} above chance")
        if self._bar:
            self._bar.draw(done, total, detail, what)
        elif now - self._said >= _LINE_SECONDS or done >= total:
            self._said = now
            say(f"{what}: {done} of {total} {self._unit}, {detail}")
