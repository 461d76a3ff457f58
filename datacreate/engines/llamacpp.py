"""llama.cpp's server, through xllamacpp: its command line, slots and memory. For GGUF files, on any CPU."""

from __future__ import annotations

import sys

from datacreate.checkpoints import Checkpoint, EngineSettings
from datacreate.engines.devices import GIB, free_gib
from datacreate.engines.local import ServerCommand
from datacreate.engines.vllm import PLAIN_TEMPLATE
from datacreate.errors import EngineError
from datacreate.hardware import has_llamacpp, usable_cores

_SLOTS = 32
"""Requests worked on at once; past that throughput on a CPU no longer grows."""

_CONTEXT = 2048
"""Tokens of a prompt and its answer, unless told otherwise: each slot has memory for so many."""

_CACHED_TOKENS = _SLOTS * _CONTEXT
"""Tokens in all slots together, unless both are told: longer contexts get fewer slots."""

_OVERHEAD_GIB = 0.5
"""Beside weights and cache: Python, buffers. Measured: 0.5B (0.46 GiB) with 32 slots of 1,024 has 1.1 GB."""

_BARRIER_WAIT = {"GOMP_SPINCOUNT": "2000"}
"""ggml's threads meet at a barrier some 300 times a token. Spinning long, they lose a whole time slice each
time another process has one of the cores; sleeping at once costs up to 40 % on an idle machine. See
scripts/perf/engines.py."""


def llamacpp_command(checkpoint: Checkpoint, settings: EngineSettings) -> ServerCommand:
    """How to serve a GGUF file. EngineError if that cannot be done here."""
    if not has_llamacpp():
        raise EngineError("llama.cpp is not installed here; run scripts/setup, or pip install xllamacpp")
    header = checkpoint.gguf_header
    if checkpoint.gguf is None or header is None:
        raise EngineError(
            f"{checkpoint.name}: llama.cpp loads only GGUF files; give one with --model FILE.gguf, "
            "or take --engine vllm"
        )
    longest = header.context_length or settings.max_model_len or _CONTEXT
    if settings.max_model_len and settings.max_model_len > longest:
        raise EngineError(f"{checkpoint.name} has a context of {longest} tokens; ask for no more")
    context = settings.max_model_len or min(_CONTEXT, longest)
    slots = settings.max_num_seqs or max(1, min(_SLOTS, _CACHED_TOKENS // context))
    weights, cache = header.size_bytes / GIB, header.kv_bytes_per_token * slots * context / GIB
    needed, free = weights + cache + _OVERHEAD_GIB, free_gib("cpu")
    if free is not None and needed > free:
        raise EngineError(
            f"{checkpoint.name} needs about {needed:.1f} GiB ({weights:.1f} weights, {cache:.1f} cache for "
            f"{slots} requests of {context} tokens, {_OVERHEAD_GIB} overhead), {free:.1f} GiB are free; take "
            "a smaller model, or a smaller --max-num-seqs or --max-model-len"
        )
    threads = usable_cores()
    command = [sys.executable, "-m", "datacreate.engines.llamacpp_server", "--model", str(checkpoint.gguf)]
    command += ["--alias", checkpoint.name, "--slots", str(slots), "--context", str(context)]
    command += ["--threads", str(threads)]
    if not header.chat_template:
        command += ["--chat-template", PLAIN_TEMPLATE]
    record: dict[str, object] = {"engine": "llamacpp", "device": "cpu", "threads": threads}
    if checkpoint.adapter:
        command += ["--lora", str(checkpoint.adapter.path)]
        record["adapter"] = checkpoint.adapter.name
    # Not the folder that the user is in: a module of the same name there must not be imported.
    environment = {**_BARRIER_WAIT, "PYTHONSAFEPATH": "1"}
    return ServerCommand("llama.cpp", checkpoint.name, tuple(command), environment, slots, record)
