"""The process of a llama.cpp server: `python -m datacreate.engines.llamacpp_server PARAMETERS --host H --port P`.

xllamacpp contains llama.cpp's HTTP server as a library. This module sets its parameters (JSON, from
`llamacpp_command`) and waits. The API key is read from $LLAMA_API_KEY, which other users of the machine cannot
see.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys

from datacreate.child_process import SCRATCH

_ENDS = {signal.SIGTERM, signal.SIGINT}


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parameters", type=json.loads)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    chosen = options.parameters
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = chosen["model"]
    parameters.model_alias = {chosen["alias"]}
    parameters.hostnames = [options.host]
    parameters.port = options.port
    parameters.api_keys = [key for key in [os.environ.get("LLAMA_API_KEY")] if key]
    parameters.n_parallel = chosen["slots"]
    parameters.n_ctx = chosen["slots"] * chosen["context"]
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = chosen["threads"]
    # Each request, also a queued one, occupies one thread.
    parameters.n_threads_http = 2 * chosen["slots"] + 4
    parameters.cache_ram_mib = 0  # no cache for later conversations: this client has none
    parameters.ui = False
    parameters.offline = True
    parameters.slot_save_path = os.environ[SCRATCH] + os.sep
    if chosen["lora"]:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = chosen["lora"], 1.0
        parameters.lora_adapters = [adapter]
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # before the library starts its threads
    try:
        server = xllamacpp.Server(parameters)
    except RuntimeError:  # llama.cpp has logged the reason
        sys.exit(1)
    signal.sigwait(_ENDS)
    os._exit(0 if server else 1)  # do not wait for requests in flight


if __name__ == "__main__":
    main()
