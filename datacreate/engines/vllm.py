"""vLLM in a process of its own: this side asks, the other side runs the model.

The model's process imports vllm, holds the weights and steps the engine (`vllm_worker`); this
process never imports vllm. So a model that dies takes nothing with it, Ctrl-C reaches only the
run, environment switches that vLLM reads at import are set for certain, and on the CPU, where
vLLM's own split into three processes halves the speed, the engine and its worker are one
process (measured on 2 cores, 0.5B, 64 in flight: 150 tokens/s split, 340 in one).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from datacreate.engines.base import Completion, Messages, Request
from datacreate.engines.loading import Loading
from datacreate.errors import EngineError


class VllmEngine:
    """An `Engine` that runs one checkpoint through vLLM on this machine."""

    def __init__(self, loading: Loading, log_path: Path | None = None) -> None:
        self.loading = loading
        self._renderer = loading.renderer
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None
        self._ready = False

    @property
    def capacity(self) -> int:
        return self.loading.capacity

    @property
    def source(self) -> Connection:
        """What can be read as soon as it has loaded, has an answer or has died."""
        if self._channel is None:
            raise EngineError("the engine is closed")
        return self._channel

    @property
    def copies(self) -> int:
        return 1

    @property
    def urls(self) -> tuple[str, ...]:
        return ()

    @property
    def settings(self) -> dict[str, Any]:
        return self.loading.record

    @property
    def max_context(self) -> int:
        return self.loading.max_context

    @property
    def has_chat_template(self) -> bool:
        return self._renderer.has_chat_template

    def count_tokens(self, messages: Messages) -> int:
        return len(self._renderer.render(messages))

    def tells_apart(self, choices: Sequence[str]) -> bool:
        return self._renderer.tells_apart(choices)

    def check(self, copies: int = 1) -> None:
        """EngineError, with the numbers, if so many of it, each on its own GPUs, do not fit what is free."""
        self.loading.check(copies)

    def launch(self) -> None:
        """Begin loading in the background, also again after `close`; `start` waits for it."""
        weights, served, lora = self.loading.weights()
        ours, theirs = socket.socketpair()
        self._log = self._log_path.open("ab") if self._log_path else tempfile.TemporaryFile()  # noqa: SIM115
        cores = map(str, self.loading.devices.cores)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "datacreate.engines.vllm_worker", str(theirs.fileno()), *cores],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                env=self.loading.environment(),
                start_new_session=True,  # Ctrl-C is for the run, which then ends the model in order
            )
        self._channel = Connection(ours.detach())
        arguments = {**self.loading.arguments, **lora}
        with suppress(OSError):  # that it has died already, whoever waits for it will hear
            self._channel.send(("load", str(weights), arguments, served))

    def loaded(self) -> bool:
        """Whether what `launch` began is done; never waits. EngineError if the process has died of it."""
        if not self._ready and self.source.poll():
            self._receive()
            self._ready = True
        return self._ready

    def start(self) -> None:
        if self._process is None:
            self.check()
            self.launch()
        if not self._ready:
            self._receive()
            self._ready = True

    def submit(self, request: Request) -> None:
        prompt = self._renderer.render(request.messages)
        choices = [self._renderer.first_token(choice) for choice in request.choices]
        self._send(("submit", request.id, prompt, request.schema, asdict(request.sampling), choices))

    def poll(self, timeout_seconds: float) -> list[Completion]:
        completions: list[Completion] = []
        deadline = time.monotonic() + timeout_seconds
        while self._channel is not None and self._channel.poll(max(0.0, deadline - time.monotonic())):
            try:
                answers = self._receive()
            except EngineError:
                if completions:  # what was said before the end counts; the end itself is heard next time
                    break
                raise
            for request_id, tokens, reason, prompt_tokens, error, scores in answers:
                text = self._renderer.decode(tokens)
                completions.append(
                    Completion(request_id, text, reason, prompt_tokens, len(tokens), error, tuple(scores))
                )
            deadline = 0.0
        return completions

    def abort(self, request_ids: Iterable[int]) -> None:
        self._send(("abort", list(request_ids)))

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            _ended(self._process, patience_seconds=5 if self._ready else 0)  # one that loads hears nothing
            self._process = None
            self._log.close()
        self._ready = False

    def _send(self, message: tuple[Any, ...]) -> None:
        if self._channel is None:
            raise EngineError("the engine is closed")
        try:
            self._channel.send(message)
        except OSError:
            raise self._death() from None

    def _receive(self) -> Any:
        if self._channel is None:
            raise EngineError("the engine is closed")
        try:
            return self._channel.recv()
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> EngineError:
        """Why the model's process ended: its exit code and the last error in its log."""
        if self._process is None:
            return EngineError("the engine is closed")
        code = _ended(self._process, patience_seconds=5)
        if self._log_path:
            text = self._log_path.read_text(encoding="utf-8", errors="replace")
        else:
            self._log.seek(0)
            text = self._log.read().decode("utf-8", "replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        said = next(
            (line for line in reversed(lines) if "Error" in line), lines[-1] if lines else "it said nothing"
        )
        if code == -9:
            said = "killed, most likely for want of memory; take a smaller model or --max-num-seqs"
        how = "it hung" if code is None else f"code {code}"
        return EngineError(f"the model's process ended ({how}): {said[-300:]}; run again to go on")


def _ended(process: subprocess.Popen[bytes], patience_seconds: float) -> int | None:
    """Its exit code, None if it had to be killed in the end; with it goes all that it had started."""
    if process.returncode is not None:
        return process.returncode
    code = None
    try:
        code = process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    with suppress(ProcessLookupError, PermissionError):  # on a GPU, it is a child that holds the memory
        os.killpg(process.pid, signal.SIGKILL)
    return code
