"""The process of a llama.cpp server: `python -m datacreate.engines.llamacpp_server --model FILE ...`.

xllamacpp contains llama.cpp's HTTP server as a library. This module converts a command line into its
parameters and waits. The API key is read from $LLAMA_API_KEY, which other users of the machine cannot see.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile

_ENDS = {signal.SIGTERM, signal.SIGINT}


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    for flag in ("--model", "--alias", "--host", "--chat-template", "--lora"):
        parser.add_argument(flag, default="")
    for flag in ("--port", "--slots", "--context", "--threads"):
        parser.add_argument(flag, type=int, required=True)
    options = parser.parse_args()
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = options.model
    parameters.model_alias = {options.alias}
    parameters.hostnames = [options.host]
    parameters.port = options.port
    parameters.api_keys = [key for key in [os.environ.get("LLAMA_API_KEY")] if key]
    parameters.n_parallel = options.slots
    parameters.n_ctx = options.slots * options.context
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = options.threads
    parameters.n_threads_http = options.slots + 4  # each request occupies one thread
    parameters.cache_ram_mib = 0  # no cache for later conversations: this client has none
    parameters.ui = False
    parameters.offline = True
    if options.chat_template:
        parameters.chat_template = options.chat_template
    if options.lora:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = options.lora, 1.0
        parameters.lora_adapters = [adapter]
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # before the library starts its threads
    with tempfile.TemporaryDirectory(prefix="datacreate-slots-") as folder:
        parameters.slot_save_path = folder + os.sep
        try:
            server = xllamacpp.Server(parameters)
        except RuntimeError:  # llama.cpp has logged the reason
            sys.exit(1)
        signal.sigwait(_ENDS)
    os._exit(0 if server else 1)  # do not wait for requests in flight


if __name__ == "__main__":
    main()
