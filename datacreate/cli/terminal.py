"""Output on a terminal: lines, columns, and progress.

Progress goes to stderr: a live line on a terminal, otherwise a plain line at least every 10 seconds.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import click

from datacreate.messages import safe_json, safe_line, safe_text

if TYPE_CHECKING:
    from datacreate.pipeline import Uncommitted
    from datacreate.runs.summary import RunStats

HEARTBEAT_SECONDS = 9.0
"""Longest pause between two plain lines; printing one on a busy machine takes up to another second."""

_LIVE_SECONDS = 0.5  # between two updates of the line on a terminal
_MAX_REASONS = 4
_ACTIVITY = re.compile("[a-z]+ing ")  # see `Notify`


def echo(text: str = "", **style: Any) -> None:
    """Print text on stdout, without characters that do something on a terminal."""
    click.secho(safe_text(text), file=sys.stdout, **style)  # without `file` click changes the encoding


def say(text: str) -> None:
    """Print a line on stderr."""
    print(safe_line(text), file=sys.stderr, flush=True)  # click.echo would garble rich's live line


def print_json(document: Any) -> None:
    """Print a document on stdout."""
    click.echo(safe_json(document, indent=2), file=sys.stdout)


def print_columns(lines: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout."""
    lines = [[safe_line(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print what `--dry-run` found: a line for each entry, then the notes."""
    print_columns(
        [(name.replace("_", " "), _plan_text(value)) for name, value in plan.items() if name != "notes"]
    )
    for note in plan["notes"]:
        echo(note)


def _plan_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plan_text(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return "decided at the start" if value is None else str(value)


def is_live() -> bool:
    """Whether stderr is a terminal that can update a line."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


class LiveText:
    """Lines at the bottom of the terminal that change; what is printed is above them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)

    def show(self, text: str) -> None:
        from rich.text import Text

        self._live.start()
        self._live.update(Text(safe_text(text), no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        self._live.stop()


class Progress:
    """Shows the progress of a command: the `RunProgress` of `create`, and the `StepProgress` of other work.

    It is a context manager; a timer shows the current state again. Methods are thread-safe.
    """

    def __init__(
        self,
        unit: str = "steps",
        clock: Callable[[], float] = time.monotonic,
        pause: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._unit, self._clock = unit, clock
        self._live = LiveText() if is_live() else None
        self._pause = _LIVE_SECONDS if self._live else pause
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._timer = threading.Thread(target=self._run, name="progress", daemon=True)
        self._shown = clock()
        self._stage, self._done = "none", 0  # what is counted, and how much of it is done
        self._first = (0.0, 0, 0)  # time, amount and tokens at the start of the stage
        self._begin("starting")

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed.set()
            if self._live:
                self._live.close()
        self._timer.join()

    def notify(self, text: str) -> None:
        """Print a line once. An activity is also shown with its seconds until something is counted."""
        with self._lock:
            if not self._counting and _ACTIVITY.match(text):
                self._begin(text)
            self._print(text)

    def update(self, stats: RunStats, count: int, uncommitted: Uncommitted) -> None:
        """The examples of a run. The first update is the start of the session."""
        reasons = [f"{n} {reason.replace('_', ' ')}" for reason, n in stats.rejects.most_common()]
        rest = sum(n for _, n in stats.rejects.most_common()[_MAX_REASONS:])
        shown = ", ".join(reasons[:_MAX_REASONS]) + (f" and {rest} more" if rest else "")
        waiting = f"; {stats.waiting} wait for the label-noise check" if stats.waiting else ""
        more = waiting + (f"; rejected: {shown}" if shown else "")
        tokens = stats.generated_tokens + uncommitted.tokens
        self._count("", "examples", stats.accepted, count, more, tokens, uncommitted.examples)

    def step(self, what: str, done: int, total: int, score: float | None) -> None:
        """After each step of `what`; `score` is the best so far on the rows of model selection."""
        best = "" if score is None else f", best score {100 * score:.1f}"
        self._count(f"{what}: ", self._unit, done, total, best)

    def beat(self) -> None:
        """Show the current state if nothing was shown for a while; the timer calls this."""
        with self._lock:
            if self._clock() - self._shown >= self._pause:
                self._draw()

    def _run(self) -> None:
        while not self._closed.wait(max(0.1, self._shown + self._pause - self._clock())):
            self.beat()

    def _begin(self, phase: str) -> None:
        start = self._clock()
        self._counting, self._line = False, lambda now: f"{phase}, {now - start:.0f} s"

    def _count(
        self, stage: str, unit: str, done: int, total: int, more: str, tokens: int = 0, ahead: int = 0
    ) -> None:
        """Update a stage; its first and last states are shown at once.

        `more` ends the line; `ahead` were finished and are not counted in `done` yet.
        """
        with self._lock:
            is_new = stage != self._stage or done < self._done
            if is_new:
                self._stage, self._first = stage, (self._clock(), done, tokens)
            elif not self._counting:  # it has ended
                return
            start, done_before, tokens_before = self._first

            def line(now: float) -> str:
                seconds = max(now - start, 1e-3)
                rate, token_rate = (done + ahead - done_before) / seconds, (tokens - tokens_before) / seconds
                parts = [f"{stage}{done} of {total} {unit}"]
                if ahead:
                    parts[0] += f" (and {ahead} behind a slow request)"
                if done >= total:
                    parts[0] += f" in {seconds:.0f} s"
                elif not rate:
                    parts.append(f"{seconds:.0f} s")
                if rate > 0:
                    parts.append(f"{rate:.1f}/s" if rate >= 0.1 else f"{rate * 60:.2g}/min")
                    if (left := (total - done - ahead) / rate) >= 1:
                        parts.append(f"about {_duration(left)} left")
                if token_rate:
                    parts.append(f"{token_rate:.{int(token_rate < 10)}f} tokens/s")
                return ", ".join(parts) + more

            self._done, self._counting, self._line = done, True, line
            if done >= total:
                self._print(line(self._clock()))
                self._begin("finishing")
            elif is_new:
                self._draw()
            else:
                self.beat()

    def _draw(self) -> None:
        """Update the line on the terminal, or print a line."""
        text = self._line(self._clock())
        if not self._live:
            self._print(text)
        elif not self._closed.is_set():
            self._shown = self._clock()
            self._live.show(text)

    def _print(self, text: str) -> None:
        if not self._closed.is_set():
            say(text)
            self._shown = self._clock()


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
