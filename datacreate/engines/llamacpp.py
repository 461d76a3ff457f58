"""llama.cpp's server (package xllamacpp), for any CPU: its slots, context and memory, and its process.

xllamacpp contains llama.cpp's HTTP server as a library. The process sets its parameters, which `llamacpp_command` wrote
as JSON, and waits. The API key is read from $LLAMA_API_KEY, which other users of the machine cannot see.

    python -m datacreate.engines.llamacpp NAME ADAPTER PARAMETERS --host HOST --port PORT
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import reduce

from datacreate.checkpoints import Checkpoint, EngineSettings
from datacreate.child_process import SCRATCH
from datacreate.engines.local import ServerCommand, check_memory
from datacreate.errors import EngineError
from datacreate.hardware import GIB, has_llamacpp, usable_cores

_SLOTS = 32
"""Requests processed at once; more do not increase throughput on a CPU."""

_CONTEXT = 2048
"""Default tokens of a prompt and its answer. Each slot allocates a full context, so a longer one gets fewer slots."""

_OVERHEAD_GIB = 0.5
"""Memory besides weights and cache: Python and buffers."""

_ENVIRONMENT = {
    # ggml's threads wait for each other many times a token. If they spin for long, they lose a time slice whenever
    # another process uses one of the cores; if they sleep at once, an idle machine is slower (docs/results.md).
    "GOMP_SPINCOUNT": "2000",
    "PYTHONSAFEPATH": "1",  # modules in the current folder must not shadow installed ones
}

_ENDS = {signal.SIGTERM, signal.SIGINT}


def llamacpp_command(checkpoint: Checkpoint, settings: EngineSettings) -> ServerCommand:
    """Return the command that serves a GGUF file. EngineError if this machine cannot do it."""
    name, header, adapter = checkpoint.name, checkpoint.gguf, checkpoint.adapter
    if not has_llamacpp():
        raise EngineError("llama.cpp is not installed; run scripts/setup, or pip install xllamacpp")
    if header is None:
        raise EngineError(
            f"{name}: llama.cpp loads only GGUF files; pass one with --model FILE.gguf, or use --engine vllm"
        )
    longest = header.context_length or settings.max_model_len or _CONTEXT
    context = settings.max_model_len or min(_CONTEXT, longest)
    if context > longest:
        raise EngineError(
            f"{name} has a context length of {longest} tokens; set --max-model-len to at most that"
        )
    slots = settings.max_num_seqs or max(1, min(_SLOTS, _SLOTS * _CONTEXT // context))
    weights, cache = header.size_bytes / GIB, header.kv_bytes_per_token * slots * context / GIB
    advice = f"a smaller --max-num-seqs (it is {slots}) or --max-model-len (it is {context})"
    check_memory(name, weights, cache, _OVERHEAD_GIB, advice)
    threads = usable_cores()
    parameters = {
        "model.path": str(header.path),
        "n_parallel": slots,
        "n_ctx": slots * context,
        "n_batch": 512,
        "n_ubatch": 512,
        "cpuparams.n_threads": threads,
        "cpuparams_batch.n_threads": threads,
        "n_threads_http": 2 * slots + 4,  # each request, also a queued one, occupies one thread
        "cache_ram_mib": 0,  # no cache for later conversations: this client has none
        "ui": False,
        "offline": True,
    }
    lora = str(adapter.path) if adapter else ""
    command = (sys.executable, "-m", __name__, name, lora, json.dumps(parameters))
    record = {"engine": "llamacpp", "device": "cpu", "threads": threads}
    record |= {"adapter": adapter.name} if adapter else {}
    return ServerCommand("llama.cpp", name, command, _ENVIRONMENT, slots, record)


def _serve(name: str, lora: str, settings: str, _host: str, host: str, _port: str, port: str) -> None:
    """Serve until SIGTERM."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    for path, value in json.loads(settings).items():
        *parents, last = path.split(".")
        setattr(reduce(getattr, parents, parameters), last, value)
    parameters.model_alias = {name}
    parameters.hostnames, parameters.port = [host], int(port)
    parameters.api_keys = [key for key in [os.environ.get("LLAMA_API_KEY")] if key]
    parameters.slot_save_path = os.environ[SCRATCH] + os.sep
    if lora:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = lora, 1.0
        parameters.lora_adapters = [adapter]
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # before the library starts its threads
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError:  # llama.cpp has logged the reason
        sys.exit(1)
    signal.sigwait(_ENDS)
    os._exit(0 if server else 1)  # do not wait for requests in flight


if __name__ == "__main__":
    _serve(*sys.argv[1:])
