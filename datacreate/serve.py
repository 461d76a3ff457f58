"""A server of one model on this machine that runs until it is stopped, and says where it is.

It is started as a run would start it, so whoever asks it gets the answers that the run would get.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from datacreate.checkpoints import Checkpoint
from datacreate.engines.addresses import Address, api_key
from datacreate.engines.factory import server_command
from datacreate.engines.local import LocalServer
from datacreate.engines.settings import EngineOptions
from datacreate.errors import ServersGone, UsageError
from datacreate.files import replace_file, storage_error
from datacreate.locking import slurm_job
from datacreate.signals import Signals

_OURS = {"--model", "--host", "--port", "--uds", "--served-model-name", "--max-num-seqs", "--api-key"}
"""Arguments of vLLM's server that are options of `datacreate serve`, or follow from them."""


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, and the folder in which it says so once it is ready."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: one that is free
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
    """A server that is ready; its address is published until the block ends, then the server is ended.

    `more` are arguments for vLLM's server as they are. Clients need the key in $DATACREATE_API_KEY, if
    there is one. Raises UsageError for an argument that is not vLLM's to get or an address that cannot be
    listened at, EngineError if the server ends before it is ready.
    """
    copies, key = _copies(more), api_key()
    _check_address(endpoint)
    _make(endpoint.register_dir)
    notify(f"preparing {checkpoint.name}")  # a GGUF file is converted for vLLM
    command = server_command(checkpoint, options, tuple(more))
    environment = dict(command.environment)
    if own := os.environ.get("VLLM_HOST_IP"):  # who serves over several nodes knows better
        environment["VLLM_HOST_IP"] = own
    command = replace(command, environment=environment, capacity=command.capacity * copies)
    server = LocalServer(command, key, None, endpoint.host, endpoint.port)
    notify(f"starting {command.engine} for {command.model}")
    try:
        server.launch()
        server.until_ready()
        with _published(server.address, endpoint.register_dir):
            yield server
    finally:
        with signals.held():  # nothing is left running, however often it is told to stop
            server.end()


def wait(server: LocalServer) -> None:
    """Until the server ends, which is a ServersGone: it has worked, and may again."""
    server.wait()
    raise ServersGone(f"{server.death()}; run the same command to start it again")


def _copies(more: Sequence[str]) -> int:
    """Engines behind the address, of which vLLM may start several. UsageError for what is not for vLLM."""
    copies = 1
    for word, following in zip(more, [*more[1:], ""], strict=False):
        flag, equals, value = word.replace("_", "-").partition("=")
        if flag in _OURS:
            raise UsageError(f"{word}: datacreate sets that; leave it out, or give it before the --")
        if flag.startswith("--ssl-"):
            raise UsageError(f"{word}: servers are asked without TLS; put a proxy in front for that")
        if flag in ("--data-parallel-size", "-dp"):
            given = value if equals else following
            if not given.isdecimal() or not int(given):
                raise UsageError(f"{flag} {given}: give the number of copies, above 0")
            copies = int(given)
    return copies


def _check_address(endpoint: Endpoint) -> None:
    """UsageError if nobody can listen there, or somebody does."""
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with socket.socket(family) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the one before may just have gone
        try:
            found.bind((endpoint.host, endpoint.port))
        except OSError as error:
            raise UsageError(
                f"--host {endpoint.host} --port {endpoint.port}: {error.strerror or error}; name an address "
                "of this machine and a port that is free, or leave --port out"
            ) from None


def _make(folder: Path | None) -> None:
    """Make the folder at once: whoever is told of it may look before the model is loaded."""
    if folder is not None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from None


@contextmanager
def _published(address: Address, folder: Path | None) -> Iterator[None]:
    """The address in a file of the folder, written whole, and removed in the end."""
    if folder is None:
        yield
        return
    path = folder / f"{_file_name(address)}.json"
    text = address.model_dump_json() + "\n"
    replace_file(path, text)
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == text:  # else a later start of the same job has it
                path.unlink()


def _file_name(address: Address) -> str:
    """Of a task of a job array the task's, so that its next start replaces what a dead node left."""
    if (job := slurm_job()) and "_" in job:
        return f"job-{job}"
    return re.sub(r"[^\w.]+", "-", address.url.partition("://")[2]).strip("-")
