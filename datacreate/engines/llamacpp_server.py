"""The process of a llama.cpp server.

xllamacpp contains llama.cpp's HTTP server as a library. This module sets its parameters, which `llamacpp_command`
wrote as JSON, and waits. The API key is read from $LLAMA_API_KEY, which other users of the machine cannot see.

    python -m datacreate.engines.llamacpp_server NAME ADAPTER PARAMETERS --host HOST --port PORT
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import reduce

from datacreate.child_process import SCRATCH

_ENDS = {signal.SIGTERM, signal.SIGINT}


def main(name: str, lora: str, settings: str, _host: str, host: str, _port: str, port: str) -> None:
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
    main(*sys.argv[1:])
