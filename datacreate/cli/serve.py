"""`datacreate serve`: serves a model over HTTP."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from datacreate.cli.options import command, option, path_option, settings_options
from datacreate.cli.terminal import TerminalProgress, echo, say
from datacreate.engines import EngineOptions


@command()
@option("--model", required=True, group="engine", help="Preset (`models list`), Hub id, folder or GGUF file.")
@path_option("--adapter", metavar="DIR|FILE.gguf", group="engine", help="LoRA adapter: PEFT folder or GGUF.")
@option("--host", default="127.0.0.1", show_default=True, group="output", help="Address to listen on.")
@option("--port", type=click.IntRange(0, 65535), default=0, group="output", help="Port.  [default: free]")
@path_option("--register-dir", metavar="DIR", group="output", help="Folder in which `create --url DIR` finds it.")
@settings_options(EngineOptions, "engine", without=("url", "request_timeout", "servers", "wait", "replicas"))
@click.argument("more", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM-OPTION...]")
def serve(model: str, adapter: Path | None, engine: dict[str, Any], more: tuple[str, ...], **address: Any) -> None:
    """Serve MODEL with vLLM or llama.cpp, OpenAI-compatible, until it is stopped.

    The server is started with the settings that `create` would use for a small run. Options after `--` go to
    vLLM's server unchanged. $DATACREATE_API_KEY is the key that clients must send; a --host that other machines
    can reach needs one. A stopped server (Ctrl-C, time limit) exits with 75.

    \b
    datacreate serve --model qwen2.5-coder-1.5b-instruct --port 8000
    datacreate serve --model qwen2.5-7b-instruct --host $(hostname) --register-dir runs/mine/servers
    datacreate serve --model qwen2.5-7b-instruct -- --data-parallel-size 4
    """
    from datacreate.checkpoints.checkpoint import read_adapter, resolve, with_adapter
    from datacreate.engines.factory import start_shared_server

    options = EngineOptions.of(**engine)
    checkpoint = resolve(model, "instruct", trust_remote_code=options.trust_remote_code)
    if adapter is not None:
        checkpoint = with_adapter(checkpoint, read_adapter(adapter))
    with ExitStack() as starting:
        notify = starting.enter_context(TerminalProgress()).notify
        with start_shared_server(checkpoint, options, more, notify, **address) as server:
            starting.close()
            echo(server.address.url)
            say(f"{checkpoint.name} is ready; Ctrl-C ends it")
            server.wait()
