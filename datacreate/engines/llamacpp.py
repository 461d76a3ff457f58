"""llama.cpp on a CPU: the command that starts its server, the requests that it understands, and the server's process.

The package xllamacpp contains llama.cpp's HTTP server as a library. This module is also the program that runs it: it
gets the server's parameters as JSON from `LLAMACPP.command`, starts the server, and waits. The API key is in
$LLAMA_API_KEY and not in the command line, which other users of the machine can see.

    python -m datacreate.engines.llamacpp NAME ADAPTER PARAMETERS --host HOST --port PORT
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any, Literal

from datacreate.checkpoints.checkpoint import Checkpoint
from datacreate.checkpoints.presets import ServerSettings
from datacreate.child_process import SCRATCH
from datacreate.engines.engine import Engine, Send, ServerCommand, ServerInfo, Workload, check_memory
from datacreate.errors import EngineError
from datacreate.hardware import GIB, installed_version, usable_cores

_SLOTS = 32  # requests processed at once; more do not increase throughput on a CPU

_CONTEXT = 2048
"""Default tokens of a prompt and its completion. Each slot allocates all of it: a longer context means fewer slots."""

_OVERHEAD_GIB = 0.5  # memory besides weights and cache: Python and buffers

_WHITESPACE = {"whitespace_flexible": True, "whitespace_pattern": " ?"}
"""Options of llguidance: spaces, but no line breaks and indentation, which a model would write otherwise. It cannot
limit how many spaces follow each other; `max_tokens` ends a response of spaces."""

_TEXT_MARGIN = 64
"""Characters beyond the limit at which llguidance ends a text. No token is longer, so texts within the limit are
written as if there were none."""

_ENVIRONMENT = {
    # ggml's threads wait for each other many times a token. If they spin for long, they lose a time slice whenever
    # another process uses one of the cores; if they sleep at once, an idle machine is slower (docs/results.md).
    "GOMP_SPINCOUNT": "2000",
    "PYTHONSAFEPATH": "1",  # modules in the current folder must not shadow installed ones
}

_STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT}


class _LlamaCpp(Engine):
    name = "llamacpp"
    title = "llama.cpp"
    packages = ("xllamacpp",)
    needed_for = "GGUF files"
    key_variable = "LLAMA_API_KEY"
    uses_torch = False
    penalty_field = "repeat_penalty"
    thinking_field = "thinking_budget_tokens"
    own_schema_field = ends_long_texts = True  # if it is built with llguidance
    test_fields: Mapping[str, Any] = {"id_slot": 0}  # see `after_tests`

    def build(self) -> str | None:
        return self.name if installed_version("xllamacpp") else None

    def speed(self, *, gguf: bool, long_run: bool) -> Literal["fast"] | None:
        return "fast" if gguf and self.build() else None

    def command(self, checkpoint: Checkpoint, settings: ServerSettings, work: Workload) -> ServerCommand:
        name, header, adapter = checkpoint.name, checkpoint.gguf, checkpoint.adapter
        if not self.build():
            raise EngineError("llama.cpp is not installed; run scripts/setup, or pip install xllamacpp")
        if header is None:
            raise EngineError(f"{name}: llama.cpp loads only GGUF files; give one, or use --engine vllm")
        max_context = header.context_length or settings.max_model_len or _CONTEXT
        context = settings.max_model_len or min(_CONTEXT, max_context)
        if context > max_context:
            raise EngineError(f"{name} has a context of {max_context} tokens; lower --max-model-len")
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
        record = {"device": "cpu", "threads": threads, **({"adapter": adapter.name} if adapter else {})}
        return ServerCommand(self, name, command, _ENVIRONMENT, slots, record)

    async def recognize(self, send: Send, model: str) -> ServerInfo | None:
        status, props = await send("/props", None)
        if status != 200 or not isinstance(props, dict) or "total_slots" not in props:
            return None
        defaults = props.get("default_generation_settings")
        context = defaults.get("n_ctx") if isinstance(defaults, dict) else None
        return ServerInfo(props.get("build_info", ""), props["total_slots"], context)

    def schema_field(self, schema: dict[str, Any], longest_text: int | None) -> dict[str, Any]:
        limited = _with_max_length(schema, longest_text + _TEXT_MARGIN) if longest_text else schema
        guided = json.dumps({"x-guidance": _WHITESPACE, **limited}, ensure_ascii=False)
        return {"grammar": f"%llguidance {{}}\nstart: %json {guided}"}

    def scoring_fields(self, tokens: Sequence[int] | None) -> dict[str, Any]:
        return {"logprobs": True, "top_logprobs": 100}

    def text_tokens(self, model: str, text: str) -> dict[str, Any]:
        return {"content": text, "add_special": False}

    async def prompt_tokens(self, send: Send, model: str, prompt: dict[str, Any]) -> dict[str, Any] | None:
        status, document = await send("/apply-template", prompt)
        text = document.get("prompt") if status == 200 and isinstance(document, dict) else None
        return {"content": text, "add_special": True} if isinstance(text, str) else None

    async def after_tests(self, send: Send, slots: int) -> None:
        # Each slot has its own prompt cache: copy that of slot 0, which the tests used.
        file = {"filename": "prompt"}
        status, _ = await send("/slots/0?action=save", file)
        for slot in range(1, slots if status == 200 else 1):
            await send(f"/slots/{slot}?action=restore", file)


LLAMACPP = _LlamaCpp()


def _with_max_length(schema: Any, characters: int) -> Any:
    """The schema with a maximum length for all free texts.

    Only for llguidance, which checks it in 0.2 ms per token: other engines take seconds to compile it, or refuse it.
    """
    if isinstance(schema, list):
        return [_with_max_length(part, characters) for part in schema]
    if not isinstance(schema, dict) or "const" in schema or "enum" in schema:
        return schema
    if schema == {"type": "string"}:
        return {**schema, "maxLength": characters}
    return {key: _with_max_length(part, characters) for key, part in schema.items()}


def _serve(name: str, lora: str, settings: str, _host: str, host: str, _port: str, port: str) -> None:
    """Serve until SIGTERM or SIGINT. The arguments are those of the command line above."""
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
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)  # before the library starts its threads
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError:  # llama.cpp has logged the reason
        sys.exit(1)
    signal.sigwait(_STOP_SIGNALS)
    os._exit(0 if server else 1)  # do not wait for requests in flight


if __name__ == "__main__":
    _serve(*sys.argv[1:])
