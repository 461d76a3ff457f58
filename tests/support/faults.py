"""Interrupts a command when it changes a file, in a forked process, which is faster than a new one."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree")
"""The audit events of changes, besides `open` for writing."""

OnChange = Callable[[str, str], object]
"""(event, path); called before the change. Of a rename the new path."""

_on_change: list[OnChange] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _on_change:
        return
    opens = event == "open" and isinstance(arguments[0], str | os.PathLike)
    if event in CHANGES or (opens and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
        path = str(arguments[event == "os.rename"])
        if "__pycache__" not in path:  # Python keeps the bytecode of the first run
            _on_change[-1](event, path)


sys.addaudithook(_hook)  # cannot be removed


@contextmanager
def on_change(act: OnChange) -> Iterator[None]:
    """Call `act` before each change of a file in this block."""
    _on_change.append(act)
    try:
        yield
    finally:
        _on_change.pop()


def changes_of(work: Callable[[], object]) -> int:
    """The number of changes of files."""
    seen: list[str] = []
    with on_change(lambda event, path: seen.append(path)):
        work()
    return len(seen)


def at(number: int, act: Callable[[], object]) -> OnChange:
    """Acts at this change, from 0."""
    left = iter(range(number + 1))
    return lambda *_: act() if next(left, None) == number else None


def killed() -> None:
    os._exit(9)


def terminated() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def forked(work: Callable[[], int], act: OnChange) -> int:
    """Run `work` in a fork; returns its result, or the exit code. `act` is called before each change of a file."""
    if (child := os.fork()) == 0:
        code = 99
        try:
            with on_change(act):
                code = work()
        except BaseException:  # noqa: BLE001 (the fork must not continue the tests)
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, and empty folders; also hidden ones."""
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*"))}
    return {
        name: path.read_bytes() if path.is_file() else b""
        for name, path in found.items()
        if path.is_file() or not any(path.iterdir())
    }
