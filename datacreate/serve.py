"""Runs a server of one model on this machine until it is stopped (`datacreate serve`).

The server is started with the same settings as `create` uses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from datacreate.checkpoints import Checkpoint
from datacreate.engines.addresses import Address, api_key
from datacreate.engines.factory import server_command
from datacreate.engines.local import LocalServer, free_port
from datacreate.engines.settings import EngineOptions
from datacreate.errors import ServersUnavailable, UsageError
from datacreate.files import replace_file, storage_error
from datacreate.hardware import slurm_job
from datacreate.signals import Signals

_OURS = {"--model", "--host", "--port", "--uds", "--served-model-name", "--max-num-seqs", "--api-key"}
"""Arguments of vLLM's server that datacreate sets itself."""


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, and the folder in which it registers once it is ready."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: a free port
    register_dir: Path | None = None


@contextmanager
def serving(
    checkpoint: Checkpoint,
    options: EngineOptions,
    endpoint: Endpoint,
    more: Sequence[str],
    signals: Signals,
    notify: Callable[[str], None],
) -> Iterator[LocalServer]:
    """Start a server and yield it when it is ready; it is registered until the block ends, then stopped.

    `more` are further arguments for vLLM's server. The API key is $DATACREATE_API_KEY, if set. Raises
    UsageError for an argument that datacreate sets itself or an address that cannot be used, EngineError if
    the server ends before it is ready.
    """
    copies, key = _copies(more), api_key()
    port = free_port(endpoint.host, endpoint.port)
    if folder := endpoint.register_dir:  # created before the model is loaded, so that clients can wait for it
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from None
    notify(f"preparing {checkpoint.name}")  # converts a GGUF file for vLLM
    command = server_command(checkpoint, options, tuple(more))
    environment = dict(command.environment)
    if own := os.environ.get("VLLM_HOST_IP"):  # set by the user for several nodes
        environment["VLLM_HOST_IP"] = own
    command = replace(command, environment=environment, capacity=command.capacity * copies)
    server = LocalServer(command, key, None, endpoint.host, port)
    notify(f"starting {command.engine} for {command.model}")
    try:
        server.launch()
        server.until_ready()
        with _registered(server.address, folder):
            yield server
    finally:
        with signals.deferred():  # further signals must not leave the server running
            server.stop()


def wait(server: LocalServer) -> None:
    """Wait until the server ends, then raise ServersUnavailable (resumable)."""
    server.wait()
    raise ServersUnavailable(f"{server.exit_reason()}; run the same command to start it again")


def _copies(more: Sequence[str]) -> int:
    """The number of data-parallel copies in vLLM's arguments. UsageError for an invalid argument."""
    copies = 1
    for word, following in zip(more, [*more[1:], ""], strict=False):
        flag, equals, value = word.replace("_", "-").partition("=")
        if flag in _OURS:
            raise UsageError(f"{word}: datacreate sets this argument; remove it, or pass it before the --")
        if flag.startswith("--ssl-"):
            raise UsageError(f"{word}: datacreate serves without TLS; use a proxy for TLS")
        if flag in ("--data-parallel-size", "-dp"):
            number = value if equals else following
            if not number.isdecimal() or not int(number):
                raise UsageError(f"{flag} {number}: use a number of copies above 0")
            copies = int(number)
    return copies


@contextmanager
def _registered(address: Address, folder: Path | None) -> Iterator[None]:
    """Register the address: a file in the folder, removed at the end."""
    if folder is None:
        yield
        return
    # A restarted task of a job array replaces the file of its dead node.
    job = slurm_job() or ""
    name = f"job-{job}" if "_" in job else re.sub(r"[^\w.]+", "-", address.url.partition("://")[2]).strip("-")
    path, text = folder / f"{name}.json", address.model_dump_json() + "\n"
    replace_file(path, text)
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == text:  # otherwise a restart of the same job owns it
                path.unlink()
