"""Output on a terminal: lines, columns, sizes, and progress.

Progress goes to stderr: a live line on a terminal, otherwise a plain line at least every 10 seconds.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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

        lines = [Text(safe_line(line)) for line in text.split("\n")]
        for line in lines:
            line.truncate(max(20, self._live.console.width - 1), overflow="ellipsis")
        self._live.start()
        self._live.update(Text("\n").join(lines), refresh=True)

    def close(self) -> None:
        self._live.stop()


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
    """Print what `--dry-run` found, a line for each entry and each note."""
    lines: list[tuple[str, str]] = []
    for name, value in plan.items():
        texts = value if name == "notes" and value else [_plan_text(value)]
        lines += [("" if at else name.replace("_", " "), text) for at, text in enumerate(texts)]
    print_columns(lines)


def _plan_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plan_text(part)}" for name, part in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "none"
    return "decided at the start" if value is None else str(value)


def size(size_bytes: float) -> str:
    """A size in bytes as `1.5 GB` or `90 MB`."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"


@dataclass(frozen=True)
class _Stage:
    """A stage of the work that is counted; `start`, `before` and `tokens_before` are its state in the beginning."""

    name: str
    unit: str
    start: float
    before: int
    tokens_before: int
    done: int = 0
    total: int = 0
    tokens: int = 0
    ahead: int = 0  # finished and not counted yet
    idle: str = ""  # shown before anything is done
    more: str = ""  # the end of the line

    @property
    def ended(self) -> bool:
        return self.done >= self.total

    def line(self, now: float) -> str:
        """Count, rate, time left."""
        seconds = max(now - self.start, 1e-3)
        rate = (self.done + self.ahead - self.before) / seconds
        tokens = (self.tokens - self.tokens_before) / seconds
        counted = f"{self.done} of {self.total}" + (f" {self.unit}" if self.name or self.ended else "")
        parts = [f"{self.name}: {counted}" if self.name else counted]
        if self.ended:
            parts[0] += f" in {seconds:.0f} s"
        elif self.ahead:
            parts[0] += f" (and {self.ahead} behind a slow request)"
        elif not rate:
            parts += [f"{seconds:.0f} s", self.idle]
        if rate > 0:
            parts.append(f"{rate:.1f}/s" if rate >= 0.1 else f"{rate * 60:.2g}/min")
            left = max(0, self.total - self.done - self.ahead) / rate
            parts.append("" if self.ended or left < 1 else f"about {_duration(left)} left")
        if tokens:
            parts.append(f"{tokens:.{int(tokens < 10)}f} tokens/s")
        return ", ".join(filter(None, parts)) + self.more


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class _Reporter:
    """The common part of all kinds of progress. Context managers; their methods are thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, pause: float = HEARTBEAT_SECONDS) -> None:
        self._clock = clock
        self._live = LiveText() if is_live() else None
        self._pause = _LIVE_SECONDS if self._live else pause
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._timer = threading.Thread(target=self._run, name="progress", daemon=True)
        self._shown = self._phase_start = clock()
        self._phase = "starting"
        self._stage: _Stage | None = None
        self._counting = False  # show the stage, not the phase

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
        """Print a line once. An activity is also the phase, shown with its seconds until something is counted."""
        with self._lock:
            if not self._counting and _ACTIVITY.match(text):
                self._begin(text)
            self._print(text)

    def beat(self) -> None:
        """Show the current state if nothing was shown for a while; the timer calls this."""
        with self._lock:
            if self._clock() - self._shown >= self._pause:
                self._draw()

    def _run(self) -> None:
        while not self._closed.wait(max(0.1, self._shown + self._pause - self._clock())):
            self.beat()

    def _begin(self, phase: str) -> None:
        self._phase, self._phase_start, self._counting = phase, self._clock(), False

    def _count(self, name: str, unit: str, done: int, total: int, tokens: int = 0, **shown: Any) -> None:
        """Update a stage (`shown` are fields of it); its first and last states are printed at once."""
        now, stage = self._clock(), self._stage
        is_new = stage is None or stage.name != name or done < stage.done
        if stage is None or is_new:
            stage = _Stage(name, unit, now, done, tokens)
        elif stage.ended:
            return
        stage = self._stage = replace(stage, done=done, total=total, tokens=tokens, **shown)
        self._counting = True
        if stage.ended:
            self._print(stage.line(now))
            self._begin(f"finishing {name}".rstrip())
        elif is_new:
            self._draw()
        else:
            self.beat()

    def _draw(self) -> None:
        """Update the line on the terminal, or print a line."""
        now, stage = self._clock(), self._stage if self._counting else None
        text = stage.line(now) if stage else f"{self._phase}, {now - self._phase_start:.0f} s"
        if not self._live:
            self._print(text)
        elif not self._closed.is_set():
            self._shown = now
            self._live.show(text)

    def _print(self, text: str) -> None:
        if not self._closed.is_set():
            say(text)
            self._shown = self._clock()


class CreationProgress(_Reporter):
    """The `RunProgress` of `create`. The first update is the start of the session."""

    _first_request: int | None = None

    def update(self, stats: RunStats, count: int, uncommitted: Uncommitted) -> None:
        with self._lock:
            if self._first_request is None:
                self._first_request = stats.requests
            waits = stats.requests + uncommitted.requests == self._first_request
            reasons = [f"{n} {reason.replace('_', ' ')}" for reason, n in stats.rejects.most_common()]
            rest = sum(n for _, n in stats.rejects.most_common()[_MAX_REASONS:])
            waiting = f"; {stats.waiting} wait for the label-noise check" if stats.waiting else ""
            shown = ", ".join(reasons[:_MAX_REASONS]) + (f" and {rest} more" if rest else "")
            self._count(
                "",
                "examples",
                stats.accepted,
                count,
                stats.generated_tokens + uncommitted.tokens,
                ahead=uncommitted.examples,
                idle="waiting for the first completion" if waits else "nothing accepted yet",
                more=waiting + (f"; rejected: {shown}" if shown else ""),
            )


class TrainingProgress(_Reporter):
    """The `StepProgress` of training, evaluation, zero-shot answers and filtering."""

    def __init__(self, unit: str = "steps", **options: Any) -> None:
        super().__init__(**options)
        self._unit = unit

    def step(self, what: str, done: int, total: int, score: float | None) -> None:
        """After each step of `what`; `score` is the best so far on the rows of model selection."""
        with self._lock:
            best = "" if score is None else f", best score {100 * score:.1f}"
            self._count(what, self._unit, done, total, more=best)
