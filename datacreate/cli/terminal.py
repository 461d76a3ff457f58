"""Output on a terminal: lines, columns, and progress.

Progress goes to stderr: a live line on a terminal, otherwise a plain line now and then.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import click

from datacreate.messages import Progress, safe_json, safe_line, safe_text

if TYPE_CHECKING:
    from datacreate.runs.stats import RunStats

_PAUSE_SECONDS = 9.0  # between two plain lines about the same stage
_MAX_REASONS = 4  # of rejects in a line


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
    print_columns([(name.replace("_", " "), _plan_text(value)) for name, value in plan.items() if name != "notes"])
    for note in plan["notes"]:
        echo(note)


def _plan_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plan_text(entry)}" for name, entry in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return "decided at the start" if value is None else str(value)


def is_live() -> bool:
    """Whether stderr is a terminal that can update a line."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


class LiveText:
    """A text at the bottom of the terminal that changes, with a spinner; what is printed is above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.status import Status

        self._status = Status("", console=Console(stderr=True))

    def show(self, text: str) -> None:
        from rich.console import Group
        from rich.text import Text

        self._status.update(Group(Text(safe_text(text), no_wrap=True, overflow="ellipsis")))
        self._status.start()

    def close(self) -> None:
        self._status.stop()


class TerminalProgress(Progress):
    """Shows the progress of a command on stderr. It is a context manager; methods are thread-safe."""

    def __init__(self, unit: str = "steps", clock: Callable[[], float] = time.monotonic) -> None:
        self._unit, self._clock, self._lock = unit, clock, threading.RLock()
        self._live = LiveText() if is_live() else None
        self._stage, self._done, self._ended = "none", 0, False  # what is counted, and how much of it is done
        self._start, self._done_before, self._tokens_before = 0.0, 0, 0  # at the start of the stage
        self._first, self._first_arrived = 0.0, (0, 0)  # when the first examples arrived; how many decided, undecided
        self._shown = 0.0  # time of the last line

    def __enter__(self) -> Self:
        if self._live:
            self._live.show("starting")
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.close()

    def notify(self, text: str) -> None:
        with self._lock:
            say(text)

    def update(self, stats: RunStats, count: int, ahead: int, tokens_ahead: int) -> None:
        more, waiting = "", stats.verification.num_waiting
        if waiting and stats.accepted < count:
            more += f"; {waiting} wait for the label-noise check"
        if rejects := stats.rejects.most_common():
            reasons = [f"{count_of_reason} {reason.replace('_', ' ')}" for reason, count_of_reason in rejects]
            more += f"; rejected: {', '.join(reasons[:_MAX_REASONS])}"
        if rest := sum(count_of_reason for _, count_of_reason in rejects[_MAX_REASONS:]):
            more += f" and {rest} more"
        undecided = f" ({ahead} more are not decided yet)" if ahead and stats.accepted < count else ""
        decided = stats.accepted + waiting
        accepted_share = (decided + 1) / (decided + stats.rejects.total() + 1)
        tokens = stats.generated_tokens + tokens_ahead
        self._count("", "examples" + undecided, stats.accepted, count, more, (decided, ahead), accepted_share, tokens)

    def step(self, work: str, done: int, total: int, score: float | None) -> None:
        best = "" if score is None else f", best score {100 * score:.1f}"
        self._count(f"{work}: ", self._unit, done, total, best)

    def _count(
        self,
        stage: str,
        unit: str,
        done: int,
        total: int,
        more: str,
        parallel: tuple[int, int] | None = None,
        accepted_share: float = 1.0,
        tokens: int = 0,
    ) -> None:
        """Show the state of a stage: its first and last one, and others after a pause. `more` ends the line.

        `parallel`: of work in parallel, how many examples are accepted (some wait for the label-noise check), and how
        many wait for an earlier request or for the verifier; `accepted_share` of these will probably be accepted. The
        first ones arrive late, and the next ones soon after, so the rate is measured since the first arrived.
        """
        decided, undecided = parallel or (done, 0)
        with self._lock:
            now = self._clock()
            is_new = stage != self._stage or done < self._done
            if is_new:
                self._stage, self._start, self._done_before, self._tokens_before = stage, now, done, tokens
                self._first, self._first_arrived = now, (decided, undecided)
            elif self._ended:
                return
            elif parallel and self._first == self._start and sum(parallel) > sum(self._first_arrived):
                self._first, self._first_arrived = now, parallel
            self._done, self._ended = done, done >= total
            arrived = decided + accepted_share * undecided
            since_first = arrived - self._first_arrived[0] - accepted_share * self._first_arrived[1]
            line = self._line(unit, total, arrived, since_first, tokens, now) + more
            if self._live:
                self._live.show("finishing" if self._ended else line)
            if self._ended or (not self._live and (is_new or now - self._shown >= _PAUSE_SECONDS)):
                say(line)
                self._shown = now

    def _line(self, unit: str, total: int, arrived: float, since_first: float, tokens: int, now: float) -> str:
        """What is done, how fast, and when it ends."""
        seconds = max(now - self._start, 1e-3)
        count = f"{self._stage}{self._done} of {total} {unit}"
        if self._ended:
            figures, rate = [f"{count} in {seconds:.0f} s"], (self._done - self._done_before) / seconds
        else:
            figures, rate = [count], since_first / max(now - self._first, 1e-3)
        if rate > 0:
            figures.append(f"{rate:.1f}/s" if rate >= 0.1 else f"{rate * 60:.2g}/min")
            seconds_left = (total - arrived) / rate
            if seconds_left >= 1:
                figures.append(f"about {_duration(seconds_left)} left")
        elif not self._ended:
            figures.append(f"{seconds:.0f} s")
        if token_rate := (tokens - self._tokens_before) / seconds:
            figures.append(f"{token_rate:.{int(token_rate < 10)}f} tokens/s")
        return ", ".join(figures)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
