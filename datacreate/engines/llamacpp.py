"""Builds the command line of llama.cpp's server (package xllamacpp): slots, context, memory. Any CPU."""

from __future__ import annotations

import sys

from datacreate.checkpoints import Checkpoint, EngineSettings
from datacreate.engines.devices import GIB, free_gib
from datacreate.engines.local import ServerCommand
from datacreate.engines.vllm import PLAIN_TEMPLATE
from datacreate.errors import EngineError
from datacreate.hardware import has_llamacpp, usable_cores

_SLOTS = 32
"""Requests processed at once; more do not increase throughput on a CPU."""

_CONTEXT = 2048
"""Tokens of a prompt and its answer, by default: each slot allocates memory for a full context."""

_CACHED_TOKENS = _SLOTS * _CONTEXT
"""Default number of tokens in all slots together: a longer context gets fewer slots."""

_OVERHEAD_GIB = 0.5
"""Memory besides weights and cache: Python and buffers."""

_BARRIER_WAIT = {"GOMP_SPINCOUNT": "2000"}
"""ggml's threads meet at a barrier some 300 times a token. Spinning long, they lose a whole time slice each
time another process has one of the cores; sleeping at once costs up to 40 % on an idle machine. See
scripts/perf/engines.py."""


def llamacpp_command(checkpoint: Checkpoint, settings: EngineSettings) -> ServerCommand:
    """Return the command that serves a GGUF file. EngineError if this machine cannot do it."""
    if not has_llamacpp():
        raise EngineError("llama.cpp is not installed; run scripts/setup, or pip install xllamacpp")
    header = checkpoint.gguf_header
    if checkpoint.gguf is None or header is None:
        raise EngineError(
            f"{checkpoint.name}: llama.cpp loads only GGUF files; pass one with --model FILE.gguf, "
            "or use --engine vllm"
        )
    longest = header.context_length or settings.max_model_len or _CONTEXT
    if settings.max_model_len and settings.max_model_len > longest:
        raise EngineError(
            f"{checkpoint.name} has a context of {longest} tokens; set --max-model-len to at most that"
        )
    context = settings.max_model_len or min(_CONTEXT, longest)
    slots = settings.max_num_seqs or max(1, min(_SLOTS, _CACHED_TOKENS // context))
    weights, cache = header.size_bytes / GIB, header.kv_bytes_per_token * slots * context / GIB
    needed, free = weights + cache + _OVERHEAD_GIB, free_gib("cpu")
    if free is not None and needed > free:
        raise EngineError(
            f"{checkpoint.name} needs about {needed:.1f} GiB ({weights:.1f} weights, {cache:.1f} cache for "
            f"{slots} requests of {context} tokens, {_OVERHEAD_GIB} overhead), {free:.1f} GiB are free; use "
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
    # Modules in the current folder must not shadow installed ones.
    environment = {**_BARRIER_WAIT, "PYTHONSAFEPATH": "1"}
    return ServerCommand("llama.cpp", checkpoint.name, tuple(command), environment, slots, record)
