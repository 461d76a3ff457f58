"""Builds the command line and environment of vLLM's OpenAI-compatible server."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datacreate.checkpoints import Checkpoint, EngineSettings, dequantized, merged
from datacreate.engines.local import ServerCommand, check_memory
from datacreate.errors import EngineError
from datacreate.hardware import GIB, cpu_has_bf16, free_gib, vllm_build

_MAX_CONTEXT = {"cpu": 4096, "gpu": 16384}
"""Tokens of context by default; a longer context only costs memory."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    # On the CPU throughput no longer grows past 32 in flight, and blocks of 128 tokens never match short
    # shared prefixes.
    "cpu": {"max_num_seqs": 32, "max_num_batched_tokens": 4096, "block_size": 32},
    "gpu": {"max_num_seqs": 256, "max_num_batched_tokens": 8192},
}

_ENVIRONMENT = {
    "VLLM_HOST_IP": "127.0.0.1", "VLLM_LOGGING_LEVEL": "WARNING", "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
}  # fmt: skip

_GRAMMAR = {"backend": "xgrammar", "disable_any_whitespace": True}
"""vLLM reads these from the command line only, not from requests."""

WORTH_COMPILING = 500
"""Smallest number of examples for which the model is compiled on a CPU. Compilation slows the start down
and makes each step faster."""

_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""LoRA ranks that vLLM supports; an adapter uses the next larger one."""

_KV_CACHE_GIB = 1.0  # for keys and values on a CPU, where vLLM has no automatic value

_OVERHEAD_GIB = {"cpu": 2.5, "gpu": 1.0}  # Python, torch, vLLM and activations

GPU_SHARE = 0.9  # of a GPU's memory, which vLLM uses by default

PLAIN_TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}Answer:\n"
"""The chat template for a base model, which has none: plain text to continue."""


def vllm_command(
    checkpoint: Checkpoint,
    settings: EngineSettings,
    *,
    count: int = WORTH_COMPILING,
    gpus: tuple[str, ...] = (),
    shares_cores: bool = False,
    more: Sequence[str] = (),
) -> ServerCommand:
    """Return the command that serves a checkpoint for a run of `count` examples.

    `gpus` are the GPUs it may use (empty: all), `more` are further arguments for vLLM's server. Raises
    EngineError if vLLM is not installed or the model does not fit in memory, CheckpointError, StorageError.
    """
    build = vllm_build()
    if build is None:
        raise EngineError(
            "vLLM is not installed; run scripts/setup --cpu (or --gpu), or use --engine llamacpp"
        )
    resolved: dict[str, Any] = {**_DEFAULTS[build], **settings.model_dump(exclude_none=True)}
    cache = max(1, round(resolved.pop("kv_cache_gib", None) or _KV_CACHE_GIB))  # whole GiB for vLLM
    folder, name = dequantized(checkpoint), checkpoint.name
    config = _read_json(folder / "config.json")
    resolved["max_model_len"] = _context(config, resolved.get("max_model_len") or _MAX_CONTEXT[build])
    if resolved["dtype"] == "auto" and build == "cpu":
        resolved["dtype"] = "bfloat16" if cpu_has_bf16() else "float32"  # emulated bfloat16 is much slower
    if settings.enforce_eager is None and build == "cpu":
        resolved["enforce_eager"] = count < WORTH_COMPILING or shutil.which("g++") is None
    _check_memory(name, folder, build, cache, resolved, gpus)
    folder, adapter, lora = _weights(checkpoint, folder, build)
    program = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    # Requests name the adapter, so it gets the model's name.
    program += ["--served-model-name", f"{name}-base" if adapter else name]
    program += ["--lora-modules", f"{name}={adapter}"] if adapter else []
    program += ["--structured-outputs-config", json.dumps(_GRAMMAR), "--enable-prefix-caching"]
    program += ["--uvicorn-log-level", "warning"]
    program += [] if _has_chat_template(folder) else ["--chat-template", PLAIN_TEMPLATE]
    program += ["--trust-remote-code"] if checkpoint.trust_remote_code else []
    if build == "cpu" and resolved.get("tensor_parallel_size") == 1:
        # A separate worker process would get one core less.
        program += ["--distributed-executor-backend", "uni"]
    for setting, value in {**resolved, **lora}.items():
        flag = f"--{setting.replace('_', '-')}"
        program += ([flag] if value else []) if isinstance(value, bool) else [flag, str(value)]
    environment = dict(_ENVIRONMENT)
    if build == "cpu":
        environment |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # vLLM 0.32 cannot load its ahead-of-time compiled code on a CPU and recompiles at every start;
            # the cache of inductor works.
            "VLLM_USE_AOT_COMPILE": "0",
            "VLLM_CPU_KVCACHE_SPACE": str(cache),
        }
        if shares_cores:  # a spinning thread would block the threads of the other engine
            environment |= {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
        resolved["kv_cache_gib"] = cache
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    record = {"engine": "vllm", "device": build, **resolved} | ({"adapter": adapter} if adapter else {})
    command = (sys.executable, *program, *more)
    return ServerCommand("vLLM", name, command, environment, int(resolved["max_num_seqs"]), record)


def _check_memory(
    name: str, folder: Path, build: str, cache: int, resolved: dict[str, Any], gpus: Sequence[str]
) -> None:
    """EngineError if the model does not fit. On a GPU vLLM itself checks what remains for the cache."""
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / GIB
    share = resolved.get("gpu_memory_utilization") or GPU_SHARE
    free = free_gib(build, resolved.get("tensor_parallel_size", 1), share, gpus)
    on_gpu = build == "gpu"
    advice = "free memory" + (", or spread it over more GPUs (--tensor-parallel-size)" if on_gpu else "")
    check_memory(name, weights, 0.0 if on_gpu else cache, _OVERHEAD_GIB[build], free, advice)


def _has_chat_template(folder: Path) -> bool:
    """Whether a folder of safetensors has a chat template; a base model has none."""
    if any((folder / f"chat_template.{suffix}").is_file() for suffix in ("jinja", "json")):
        return True
    tokenizer = folder / "tokenizer_config.json"
    return tokenizer.is_file() and bool(_read_json(tokenizer).get("chat_template"))


def _context(config: dict[str, Any], requested: int) -> int:
    """The requested context, at most what the model supports."""
    positions = (config.get("text_config") or config).get("max_position_embeddings")
    return min(requested, positions) if isinstance(positions, int) else requested


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise EngineError(f"{path} cannot be read ({error}); copy the model again") from None


def _weights(checkpoint: Checkpoint, folder: Path, build: str) -> tuple[Path, str | None, dict[str, Any]]:
    """The folder to load, the adapter to serve on top of it, and vLLM's settings for that."""
    adapter = checkpoint.adapter
    if adapter is None:
        return folder, None, {}
    if build == "cpu" and "quantization_config" not in _read_json(folder / "config.json"):
        return merged(folder, adapter, checkpoint.sha256), None, {}
    rank = next((rank for rank in _LORA_RANKS if rank >= adapter.rank), None)
    if rank is None:
        raise EngineError(
            f"{adapter.path}: a LoRA adapter of rank {adapter.rank}; vLLM serves up to {_LORA_RANKS[-1]}; "
            "merge it into its base model and pass that with --model"
        )
    return folder, str(adapter.path), {"enable_lora": True, "max_lora_rank": rank}
