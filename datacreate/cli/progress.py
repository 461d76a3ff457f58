"""Progress on stderr: a live line with a bar on a terminal, plain lines otherwise; never silent for long."""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from datacreate.cli.terminal import is_live, printable, say, size

if TYPE_CHECKING:
    from datacreate.runs.summary import RunStats

HEARTBEAT_SECONDS = 9.0
"""The longest pause between two plain lines: 10 s, less what printing one takes on a busy machine."""

_LIVE_SECONDS = 0.5  # between two updates of the line on a terminal
_WINDOW_SECONDS = 60.0  # that rates are over
_MOST_REASONS = 4
_ELAPSED = re.compile(r",? \d+ s$")


class _Bar:
    """A bar of rich after a text; rich is loaded when it is first drawn, and it leaves nothing behind."""

    _bar: Any = None
    _task: Any = None

    def draw(self, text: str, done: int, total: int | None) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn
            from rich.table import Column

            self._bar = Progress(
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
                BarColumn(bar_width=None, table_column=Column(ratio=1)),  # as wide as there is room
                console=Console(stderr=True),
                auto_refresh=False,
                expand=True,
                transient=True,
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total, description=printable(text), refresh=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Stage:
    """Something that is counted: how far it is, and how fast it was in the last minute."""

    def __init__(self, name: str, unit: str, now: float, done: int, tokens: int) -> None:
        self.name, self._unit = name, unit
        self._first = (now, done, tokens)
        self._recent = deque([self._first])
        self.done, self.total = done, 0
        self.idle, self.more = "", ""  # said while nothing is done yet; said last

    @property
    def ended(self) -> bool:
        return self.done >= self.total

    def add(self, now: float, done: int, total: int, tokens: int) -> None:
        self._recent.append((now, done, tokens))
        self.done, self.total = done, total

    def line(self, now: float) -> str:
        """All figures. The rates are over the last minute, and in the end over the whole session."""
        while len(self._recent) > 1 and self._recent[1][0] <= now - _WINDOW_SECONDS:
            self._recent.popleft()
        start = self._first if self.ended else self._recent[0]
        seconds = max(now - start[0], 1e-3)
        speed, tokens = ((self._recent[-1][at] - start[at]) / seconds for at in (1, 2))
        counted = f"{self.done} of {self.total}"
        if self._unit == "B":
            counted = f"{100 * self.done // max(1, self.total)} % of {size(self.total)}"
        elif self.name or self.ended:
            counted += f" {self._unit}"
        parts = [f"{self.name}: {counted}" if self.name else counted]
        if self.ended:
            parts[0] += f" in {seconds:.0f} s"
        elif self.done == self._first[1]:
            parts += [f"{seconds:.0f} s", self.idle]
        elif not speed:
            parts.append("none in the last minute")
        if speed:
            parts.append(f"{size(speed)}/s" if self._unit == "B" else _speed(speed))
            parts.append("" if self.ended else f"about {_duration((self.total - self.done) / speed)} left")
        if tokens:
            parts.append(f"{tokens:.{int(tokens < 10)}f} tokens/s")
        return ", ".join(filter(None, parts)) + self.more


def _speed(per_second: float) -> str:
    return f"{per_second:.1f}/s" if per_second >= 0.1 else f"{per_second * 60:.2g}/min"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class _Reporter:
    """What all kinds of progress share; use them as context managers. Any thread may call them."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, heartbeat: float = HEARTBEAT_SECONDS
    ) -> None:
        self._clock = clock
        self._bar = _Bar() if is_live() else None
        self._pause = _LIVE_SECONDS if self._bar else heartbeat
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._timer = threading.Thread(target=self._run, name="progress", daemon=True)
        self._shown = self._phase_began = clock()
        self._phase, self._has_status = "starting", False
        self._stage: _Stage | None = None
        self._counting = False  # whether the stage is the latest news, and not the phase

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._closed.set()
            if self._bar:
                self._bar.close()
        self._timer.join()

    def notify(self, text: str) -> None:
        """A line worth reading, once; where no status was given it names the phase as well."""
        with self._lock:
            if not self._counting and not self._has_status:
                self._begin(text)
            self._print(text)

    def status(self, text: str) -> None:
        """What is being done from now on; how long it has taken is added here."""
        text = _ELAPSED.sub("", text)
        with self._lock:
            if not (self._has_status and text == self._phase and not self._counting):
                self._begin(text, has_status=True)
                self._draw() if self._bar else self._print(text)

    def beat(self) -> None:
        """Show how things stand, if nothing was shown for a while; the timer calls it."""
        with self._lock:
            if self._clock() - self._shown >= self._pause:
                self._draw()

    def _run(self) -> None:
        while not self._closed.wait(max(0.1, self._shown + self._pause - self._clock())):
            self.beat()

    def _begin(self, phase: str, *, has_status: bool = False) -> None:
        self._phase, self._has_status, self._phase_began = phase, has_status, self._clock()
        self._counting = False

    def _count(
        self, name: str, unit: str, done: int, total: int, tokens: int = 0, *, idle: str = "", more: str = ""
    ) -> None:
        """Take in the figures of a stage; its first and its last ones are printed at once."""
        now, stage = self._clock(), self._stage
        began = stage is None or stage.name != name or done < stage.done
        if stage is None or began:
            stage = self._stage = _Stage(name, unit, now, done, tokens)
        elif stage.ended:
            return
        stage.add(now, done, total, tokens)
        stage.idle, stage.more = idle, more
        self._counting = True
        if stage.ended:
            if self._bar:
                self._bar.close()
            self._print(stage.line(now))
            self._begin(f"finishing {name}".rstrip())
        elif began:
            self._draw()
        else:
            self.beat()

    def _draw(self) -> None:
        """Update the line on the terminal, or print one."""
        now, stage = self._clock(), self._stage if self._counting else None
        text = stage.line(now) if stage else f"{self._phase}, {now - self._phase_began:.0f} s"
        if not self._bar:
            self._print(text)
        elif not self._closed.is_set():
            self._shown = now
            with suppress(OSError):  # as in say()
                self._bar.draw(text, stage.done if stage else 0, stage.total if stage else None)

    def _print(self, text: str) -> None:
        if not self._closed.is_set():
            say(text)
            self._shown = self._clock()


class CreationProgress(_Reporter):
    """A `creation.Progress`. The first update says how the run stands before the session's first request."""

    _first_request: int | None = None

    def update(self, stats: RunStats, count: int) -> None:
        with self._lock:
            if self._first_request is None:
                self._first_request = stats.requests
            waits = stats.requests == self._first_request
            idle = "waiting for the first answer" if waits else "nothing accepted yet"
            reasons = [f"{n} {reason.replace('_', ' ')}" for reason, n in stats.rejects.most_common()]
            rest = sum(n for _, n in stats.rejects.most_common()[_MOST_REASONS:])
            told = ", ".join(reasons[:_MOST_REASONS]) + (f" and {rest} more" if rest else "")
            more = f"; rejected: {told}" if told else ""
            self._count("", "examples", stats.accepted, count, stats.generated_tokens, idle=idle, more=more)


class TrainingProgress(_Reporter):
    """A `Progress` of training, evaluation and zero-shot answers."""

    def __init__(self, unit: str = "steps", **how: Any) -> None:
        super().__init__(**how)
        self._unit = unit
        if os.environ.get("RANK", "0") != "0":  # under torchrun one process speaks
            self._closed.set()

    def step(self, what: str, done: int, total: int, score: float | None) -> None:
        """After each step of `what`; `score` is the best so far on the rows that choose."""
        with self._lock:
            best = "" if score is None else f", best {score:.3f} above chance"
            self._count(what, self._unit, done, total, more=best)


class CheckpointProgress(_Reporter):
    """A `checkpoints.Progress`: of fetching, converting and hashing."""

    def __init__(self, name: str = "", **how: Any) -> None:
        super().__init__(**how)
        self._before = f"{name}: " if name else ""

    def __call__(self, stage: str, done: int, total: int, unit: str) -> None:
        with self._lock:
            if total > 0:
                self._count(f"{self._before}{stage}", unit, done, total)
            else:
                self.notify(f"{self._before}{stage}")
