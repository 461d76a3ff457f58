"""Several processes of one command that train together, on one machine: what torchrun does, but with
the exit codes and the one line of a single process.

Each process is told its place as torchrun tells it (RANK, WORLD_SIZE, MASTER_ADDR, ...), so that
torchrun itself, which several machines need, starts the command just as well.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any

from datacreate.errors import RESUMABLE, Stopped, TrainingError
from datacreate.finetuning.hardware import world_size

LEFT_ALONE = 70
"""Exit code of a process that could not go on without another; that one says why."""

_POLL_SECONDS = 0.05

_GRACE_SECONDS = 30.0
"""How long the others may take to end after one of them has failed."""


def run_together(command: Sequence[str], processes: int) -> int:
    """Run so many processes of a command, the first with our output; returns its exit code.

    Signals are passed on. When one fails the others are ended. Raises Stopped or TrainingError
    where the first process was killed and could not say why.
    """
    stopped = False
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(*_: object) -> None:
        nonlocal stopped
        stopped = True
        _signal(children, signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    with ExitStack() as stack:
        stack.callback(_put_back, before)
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(processes)]
        port = _free_port()
        for rank in range(processes):
            out = {} if rank == 0 else {"stdout": subprocess.DEVNULL, "stderr": said[rank]}
            child = subprocess.Popen(command, env=_environment(rank, processes, port), **out)  # type: ignore[call-overload]
            children.append(child)
        if stopped:
            pass_on()
        first = _wait(children)
        code, failed = children[0].returncode, children[first].returncode
        if code == RESUMABLE or (code == 0 and failed == 0):
            return int(code)
        if stopped:
            raise Stopped("stopped by a signal; run the same command to go on")
        if code > 0 and code != LEFT_ALONE:
            return int(code)  # and it has said why
        if failed > 0:
            sys.stderr.write(_last_line(said[first]))
            return int(failed)
        raise TrainingError(
            f"process {first + 1} of {processes} was ended by {signal.Signals(-failed).name}, as when memory "
            "runs out; run the same command to go on, with a lower --device-batch-size if it happens again"
        )


@contextmanager
def with_the_others() -> Iterator[None]:
    """Exit without a word when another process has ended and left this one waiting for it in the block."""
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not any(word in str(error) for word in ("gloo", "NCCL", "Connection")):
            raise
        sys.exit(LEFT_ALONE)


def _put_back(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _environment(rank: int, processes: int, port: int) -> dict[str, str]:
    threads = max(1, (os.cpu_count() or 1) // processes)
    return {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Until all have ended; the place of the first that failed, 0 if none did.

    After a failure the others are asked, and then made, to end.
    """
    first, deadline = 0, math.inf
    while running := [child for child in children if child.poll() is None]:
        failed = [rank for rank, child in enumerate(children) if child.returncode]
        if failed and deadline == math.inf:
            first, deadline = failed[0], time.monotonic() + _GRACE_SECONDS
            if children[first].returncode != RESUMABLE:  # those that stop, stop together
                _signal(running, signal.SIGTERM)
        if time.monotonic() > deadline:
            _signal(running, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    if deadline == math.inf:
        first = next((rank for rank, child in enumerate(children) if child.returncode), 0)
    return first


def _signal(children: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(number)


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode("utf-8", "replace").rstrip().splitlines()
    return (lines[-1] if lines else "datacreate: a process of the training failed without a word") + "\n"
