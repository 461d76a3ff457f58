"""`datacreate serve`: vLLM's own server, loaded as a run would load it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from datacreate.cli.loading import LOADING
from datacreate.cli.terminal import say

F = TypeVar("F", bound=Callable[..., Any])


def loading_options(command: F) -> F:
    """How vLLM loads a model."""
    for option in reversed(LOADING):
        command = option(command)
    return command


@click.command()
@click.option("--model", required=True, help="Preset name (see `models list`) or checkpoint folder.")
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A LoRA adapter, as PEFT saves it, on top of the model.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Name or address of this machine to listen at."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="[default: one that is free]")
@click.option(
    "--publish",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder to write the address to as soon as it can be asked; `create --url DIR` reads it.",
)
@click.option("--remote-code", is_flag=True, help="Let a preset that needs it run its publisher's code.")
@loading_options
@click.argument("more", nargs=-1, type=click.UNPROCESSED, metavar="[-- VLLM-OPTION...]")
def serve(
    model: str,
    adapter: Path | None,
    host: str,
    port: int,
    publish: Path | None,
    remote_code: bool,
    more: tuple[str, ...],
    **settings: Any,
) -> None:
    """Serve MODEL with vLLM's own OpenAI-compatible server until it is stopped.

    It is loaded as `create` would load it, grammar and all, so runs elsewhere get the same answers
    with `--url`. What follows `--` goes to vLLM's server as it is. The key that clients must give
    is read from $DATACREATE_API_KEY. Stopped (Ctrl-C, a time limit), it exits with 75.

    \b
    datacreate serve --model qwen2.5-coder-1.5b-instruct --port 8000
    datacreate serve --model qwen2.5-7b-instruct --host $(hostname) --publish runs/mine/servers
    datacreate serve --model qwen2.5-7b-instruct -- --data-parallel-size 4
    """
    from datacreate.engines.serve import Endpoint, server
    from datacreate.serving import loading_to_serve
    from datacreate.signals import caught_signals

    loading, name = loading_to_serve(model, adapter, remote_code, settings)

    if publish and host in ("127.0.0.1", "localhost", "::1"):
        say(f"{host}: only this machine can ask; for others name it with --host")
    endpoint = Endpoint(host, port, publish)
    with caught_signals() as signals, server(loading, name, endpoint, more, signals, say) as running:
        click.echo(running.address.url)
        say(f"{name} can be asked; Ctrl-C ends it")
        running.wait()
