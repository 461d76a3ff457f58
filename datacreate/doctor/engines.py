"""Which engines are here, which one `--engine auto` takes, and whether it can load a model."""

from __future__ import annotations

from pathlib import Path

from datacreate.checkpoints import Checkpoint, EngineSettings
from datacreate.doctor.line import Line, gib, refused
from datacreate.engines.devices import GIB, OVERHEAD_GIB, check_memory, free_gib
from datacreate.engines.factory import choose, server_command
from datacreate.engines.settings import EngineOptions
from datacreate.engines.vllm import WORTH_COMPILING
from datacreate.errors import DatacreateError, EngineError
from datacreate.hardware import cpu_has_bf16, vllm_build

NAMES = {"vllm": "vLLM", "llamacpp": "llama.cpp"}

_KV_CACHE_GIB = 1.0
"""As vLLM is given on a CPU unless told otherwise."""


def auto_line(section: str, install: str) -> Line:
    """What `auto` takes on this machine and why; red, with the command that installs one, if none is here."""
    kinds = {"GGUF files": Path("any.gguf"), "safetensors": None}
    taken = {kind: said for kind, gguf in kinds.items() if (said := _taken(gguf))}
    if not taken:
        return Line(section, "engine", "red", "neither vLLM nor llama.cpp is installed", install, ("create",))
    why = "vLLM's GPU build is installed"
    if vllm_build() != "gpu":
        why = f"the processor has {'' if cpu_has_bf16() else 'no '}bfloat16 instructions"
    said = "; ".join(f"{kind}: {taken.get(kind, 'nothing here loads them')}" for kind in kinds)
    return Line(section, "engine", "ok", f"{said} ({why})")


def _taken(gguf: Path | None) -> str | None:
    """The engine for a model, in words; None if there is none."""
    model = Checkpoint("any", Path(), "", None, gguf=gguf)
    try:
        few, many = (NAMES[choose(model, "auto", count)] for count in (1, WORTH_COMPILING))
    except EngineError:
        return None
    return few if few == many else f"{few}, from {WORTH_COMPILING} examples on {many}"


def engine_line(section: str, checkpoint: Checkpoint, options: EngineOptions, count: int) -> Line:
    """Which engine would load a model for so many examples; red, with the numbers, for one too large."""
    try:
        engine = choose(checkpoint, options.engine, count)
        if engine == "llamacpp":
            server_command(checkpoint, options)  # looks at memory too, and starts nothing
        else:
            _check_vllm(checkpoint, options)
    except DatacreateError as error:
        name = f"engine for {checkpoint.name}"
        return refused(section, name, error, "datacreate models list", ("create",))
    return Line(section, "engine", "ok", f"{NAMES[engine]} for {checkpoint.name}")


def _check_vllm(checkpoint: Checkpoint, options: EngineOptions) -> None:
    """EngineError if vLLM is not here or the model does not fit; a GGUF file is not converted for that."""
    build = vllm_build()
    if build is None:
        raise EngineError("vLLM is not installed here; run scripts/setup, or take --engine llamacpp")
    told = checkpoint.engine_settings.model_dump() | options.given(EngineSettings.model_fields)
    cache = float(told["kv_cache_gib"] or _KV_CACHE_GIB)
    header = checkpoint.gguf_header
    if header is None:
        check_memory(checkpoint, checkpoint.path, build, cache, told, ())
        return
    needed = 2 * header.parameters / GIB + cache + OVERHEAD_GIB[build]  # converted to 16 bits a weight
    free = free_gib(build, int(told["tensor_parallel_size"]), float(told["gpu_memory_utilization"] or 0.9))
    if free is not None and needed > free:
        raise EngineError(
            f"{checkpoint.name} needs about {gib(needed * GIB)} in vLLM, {gib(free * GIB)} are free; take a "
            "smaller model, or --engine llamacpp"
        )
