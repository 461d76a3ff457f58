"""Runs `tests.support.driver` in separate processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The lines of standard error."""
        return self.err.splitlines()

    @property
    def failure(self) -> str:
        """The error line; fails if there is not exactly one."""
        [line] = [line for line in self.lines if line.startswith("datacreate: ")]
        assert "Traceback" not in self.err
        assert self.lines[-1] == line
        return line


def unverified(arguments: Sequence[object]) -> list[str]:
    """The words of a command; the scripted client writes random words, so that a run verifies only on request."""
    words = list(map(str, arguments))
    creates = words[:1] in (["create"], ["preview"]) and "--help" not in words
    return [*words, "--verify", "off"] if creates and "--verify" not in words else words


class Live:
    """A running command; leaving the block kills it."""

    def __init__(self, *arguments: object, **scripted: Any) -> None:
        command = [sys.executable, "-m", "tests.support.driver", *unverified(arguments)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SCRIPTED": json.dumps(scripted)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def allow(self, answers: int) -> None:
        """Let the gated client return that many completions."""
        stdin: IO[bytes] | None = self._process.stdin
        assert stdin
        stdin.write(b"." * answers)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; fails if the process ends before."""
        while not condition():
            if self._process.poll() is not None and not condition():
                _, err = self._process.communicate()
                raise AssertionError(f"ended with {self._process.returncode}: {err.decode()}")
            time.sleep(0.02)  # leave the CPU to the process

    def read_until(self, words: str) -> None:
        """Read standard error until a line contains `words`."""
        assert self._process.stderr
        end = time.monotonic() + 60
        for line in self._process.stderr:
            if words in line.decode():
                return
            if time.monotonic() > end:
                break
        raise AssertionError(f"no line with {words!r}")

    def stop(self, signal: int) -> Ended:
        self._process.send_signal(signal)
        return self.end()

    def end(self) -> Ended:
        """Wait until it ends."""
        out, err = self._process.communicate(timeout=30)
        return Ended(self._process.returncode, out.decode(), err.decode())
