"""SIGINT and SIGTERM as `Stopped`: so a time limit on a cluster ends a command cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from datacreate.errors import Stopped


class Signals:
    """What has arrived: raised at once, or only noted while it is held."""

    def __init__(self) -> None:
        self.received = False
        self._held = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Only note a signal, so that nothing is cut in two; the holder looks at `received`."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if not self._held:
            raise Stopped("stopped by a signal; run the same command to go on")


@contextmanager
def caught_signals() -> Iterator[Signals]:
    """Catch both signals in the block; in a thread that is not the main one none arrive."""
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.signal(number, signals.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
