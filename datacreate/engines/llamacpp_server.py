"""The process of a llama.cpp server: `python -m datacreate.engines.llamacpp_server --model FILE ...`.

xllamacpp has llama.cpp's own HTTP server as a library. This module only turns a command line into its
parameters and waits; the key is read from $LLAMA_API_KEY, which other users of the machine cannot see.
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
    told = parser.parse_args()
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = told.model
    parameters.model_alias = {told.alias}
    parameters.hostnames = [told.host]
    parameters.port = told.port
    parameters.api_keys = [key for key in [os.environ.get("LLAMA_API_KEY")] if key]
    parameters.n_parallel = told.slots
    parameters.n_ctx = told.slots * told.context
    parameters.n_batch = parameters.n_ubatch = 512
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = told.threads
    parameters.n_threads_http = told.slots + 4  # one waits for each request
    parameters.cache_ram_mib = 0  # a copy of each slot's cache for later runs, which never come
    parameters.ui = False
    parameters.offline = True
    if told.chat_template:
        parameters.chat_template = told.chat_template
    if told.lora:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = told.lora, 1.0
        parameters.lora_adapters = [adapter]
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)  # before the library starts its threads
    with tempfile.TemporaryDirectory(prefix="datacreate-slots-") as folder:
        parameters.slot_save_path = folder + os.sep
        try:
            server = xllamacpp.Server(parameters)
        except RuntimeError:  # llama.cpp has said why
            sys.exit(1)
        signal.sigwait(_ENDS)
    os._exit(0 if server else 1)  # what is in flight is not waited for


if __name__ == "__main__":
    main()
