"""Runs a server of one model on this machine until it is stopped (`datacreate serve`).

The server is started with the same settings as `create` uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from datacreate.checkpoints import Checkpoint
from datacreate.engines.addresses import KEY, Address, api_key
from datacreate.engines.factory import choose, server_commands
from datacreate.engines.local import LocalServer, free_port
from datacreate.engines.settings import EngineOptions
from datacreate.errors import ServersUnavailable, UsageError
from datacreate.files import replace_file, storage_error
from datacreate.hardware import slurm_job
from datacreate.messages import Notify

_OURS = re.compile(r"--(model|host|port|uds|served-model-name|max-num-seqs|api-key|ssl-.*)")
"""Arguments of vLLM's server that datacreate sets itself, or that would make it serve with TLS."""

_COPIES = re.compile(r"(?:--data-parallel-size|-dp)[= ](\d+)")


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, and the folder in which it registers once it is ready."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: a free port
    register_dir: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        with suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"


@contextmanager
def serving(
    checkpoint: Checkpoint, options: EngineOptions, endpoint: Endpoint, more: Sequence[str], notify: Notify
) -> Iterator[LocalServer]:
    """Start a server and yield it when it is ready; it is registered until the block ends, then stopped.

    `more` are further arguments for vLLM's server. The API key is $DATACREATE_API_KEY; an address that other
    machines can reach needs one. Raises UsageError for an invalid argument or an address that cannot be used,
    EngineError if the server ends before it is ready.
    """
    key, port = api_key(), free_port(endpoint.host, endpoint.port)
    if not (key or endpoint.is_loopback):
        raise UsageError(
            f"--host {endpoint.host}: set ${KEY}, here and for clients: without a key everybody in the network could "
            "use this server"
        )
    # As for a small run: how many examples its clients want is not known, and llama.cpp starts in seconds.
    engine = choose(checkpoint, options.engine, 1)
    _check(engine, more)
    if folder := endpoint.register_dir:  # created before the model is loaded, so that clients can wait for it
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(folder, error) from None
    notify(f"preparing {checkpoint.name}")
    [command] = server_commands(checkpoint, options.model_copy(update={"engine": engine}), notify=notify)
    copies = _COPIES.search(" ".join(more).replace("_", "-"))
    slots, arguments = command.slots * int(copies[1] if copies else 1), (*command.arguments, *more)
    command = replace(command, slots=slots, arguments=arguments)
    server = LocalServer(command, key, None, endpoint.host, port)
    notify(f"starting {command.engine} for {command.model}")
    try:
        server.launch()
        server.until_ready()
        with _registered(server.address, folder):
            yield server
    finally:
        server.stop()


def wait(server: LocalServer) -> None:
    """Wait until the server ends, then raise ServersUnavailable (resumable)."""
    server.wait()
    raise ServersUnavailable(f"{server.exit_reason()}; run the same command to start it again")


def _check(engine: str, more: Sequence[str]) -> None:
    """UsageError for arguments that the engine does not take; vLLM's server checks the others."""
    if more and engine != "vllm":
        raise UsageError(f"{more[0]}: only vLLM's server accepts further options after --; add --engine vllm")
    for word in more:
        if _OURS.fullmatch(word.partition("=")[0].replace("_", "-")):
            raise UsageError(
                f"{word}: datacreate sets this argument; use its own options (no TLS: use a proxy)"
            )


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
