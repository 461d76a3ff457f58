"""`datacreate serve`: a model's server, started as a run would start it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from datacreate.cli.engine_options import ADAPTER, read_engine_options, serving_options
from datacreate.cli.terminal import say


@click.command()
@click.option(
    "--model", required=True, help="Preset name (see `models list`), checkpoint folder or GGUF file."
)
@ADAPTER
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Name or address of this machine to listen at."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="[default: one that is free]")
@click.option(
    "--register-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder to write the address to when the server is ready; `create --url DIR` reads it.",
)
@serving_options
@click.argument("more", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM-OPTION...]")
def serve(
    model: str,
    adapter: Path | None,
    host: str,
    port: int,
    register_dir: Path | None,
    more: tuple[str, ...],
    **engine: Any,
) -> None:
    """Serve MODEL with vLLM or llama.cpp, OpenAI-compatible, until it is stopped.

    The server is started as `create` would start it, so that runs elsewhere get the same answers with
    `--url`. What follows `--` goes to vLLM's server as it is. The key that clients must give is read
    from $DATACREATE_API_KEY; without one nobody needs any. Stopped (Ctrl-C, a time limit), it exits
    with 75.

    \b
    datacreate serve --model qwen2.5-coder-1.5b-instruct --port 8000
    datacreate serve --model qwen2.5-7b-instruct --host $(hostname) --register-dir runs/mine/servers
    datacreate serve --model qwen2.5-7b-instruct -- --data-parallel-size 4
    """
    from datacreate.checkpoints import read_adapter, resolve, with_adapter
    from datacreate.cli.progress import CreationProgress
    from datacreate.serve import Endpoint, serving, wait
    from datacreate.signals import caught_signals

    options = read_engine_options(engine)
    checkpoint = resolve(model, "instruct", trust_remote_code=options.trust_remote_code)
    if adapter is not None:
        checkpoint = with_adapter(checkpoint, read_adapter(adapter))
    if register_dir and host in ("127.0.0.1", "localhost", "::1"):
        say(f"{host}: only this machine can ask; for others name it with --host")
    endpoint = Endpoint(host, port, register_dir)
    with caught_signals() as signals, ExitStack() as starting:
        notify = starting.enter_context(CreationProgress()).note
        with serving(checkpoint, options, endpoint, more, signals, notify) as server:
            starting.close()
            click.echo(server.address.url)
            say(f"{checkpoint.name} is ready; Ctrl-C ends it")
            wait(server)
