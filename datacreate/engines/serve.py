"""vLLM's own OpenAI-compatible server for a checkpoint on this machine, and word of where it is.

What a preset and the machine ask of vLLM in a run they ask of its server, too: whoever is asked
through it answers as the engine in the run would.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from datacreate.engines.openai.addresses import KEY, Address
from datacreate.engines.vllm import VllmEngine
from datacreate.errors import EngineError, StorageError

_LOOK_SECONDS = 0.5

_NOT_FOR_VLLM = {"device", "kv_cache_gib", "chat_template", "adapter", "prompt"}
"""What an engine's settings tell besides vLLM's own arguments."""

_GRAMMAR = {"backend": "xgrammar", "disable_any_whitespace": True}
"""As in the worker: no request can set it."""


@dataclass(frozen=True)
class Place:
    """Where a server listens, and where it says so."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: one that is free
    publish: Path | None = None  # the folder of those who are ready


@contextmanager
def server(
    engine: VllmEngine, name: str, place: Place, more: Sequence[str], timeout_seconds: float = 1800.0
) -> Iterator[Server]:
    """A server that is ready; its file is published until the block ends, and then it is ended.

    `engine` is only asked how it would be loaded; `more` are arguments for vLLM's server as they are.
    Raises EngineError if the server ends before it is ready.
    """
    port = place.port or _free_port(place.host)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments(engine, name)]
    command += ["--host", place.host, "--port", str(port), "--uvicorn-log-level", "warning", *more]
    process = subprocess.Popen(
        command, env=_environment(engine), stdin=subprocess.DEVNULL, start_new_session=True
    )
    address = Address(url=f"http://{place.host}:{port}", model=name, max_num_seqs=_capacity(engine, more))
    running = Server(process, address)
    try:
        running.ready(timeout_seconds)
        with _published(address, place.publish):
            yield running
    finally:
        running.end()


@dataclass(frozen=True)
class Server:
    """A server's process, and where it answers."""

    process: subprocess.Popen[bytes]
    address: Address

    def ready(self, timeout_seconds: float) -> None:
        """Wait until it answers. EngineError if it ends or does not come to that."""
        opener = build_opener(ProxyHandler({}))
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            self.check()
            with suppress(URLError, OSError), opener.open(f"{self.address.url}/health", timeout=5):
                return
            time.sleep(_LOOK_SECONDS)
        raise EngineError(
            f"the server at {self.address.url} was not ready in {timeout_seconds:.0f} s; its words are above"
        )

    def check(self) -> None:
        """EngineError if it has ended."""
        if (code := self.process.poll()) is not None:
            raise EngineError(
                f"vLLM's server at {self.address.url} ended (code {code}); what it said is above; "
                "run the same command to start it again"
            )

    def wait(self, look: Callable[[], None]) -> None:
        """Until it ends, which is an EngineError; `look` is called now and then, and may raise."""
        while True:
            look()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=_LOOK_SECONDS)
            self.check()

    def end(self) -> None:
        """End it and all that it started, in order where it can be had."""
        for number, seconds in ((signal.SIGTERM, 20.0), (signal.SIGKILL, 5.0)):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=seconds)
                break
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # workers that outlived it


def arguments(engine: VllmEngine, name: str) -> list[str]:
    """What vLLM's server is told, as flags: the model, its name, and how the engine would load it."""
    weights, adapter, lora = engine.weights()
    told: dict[str, Any] = {
        name_: value for name_, value in {**engine.settings, **lora}.items() if name_ not in _NOT_FOR_VLLM
    }
    flags = ["--model", str(weights), "--served-model-name", name]
    flags += ["--structured-outputs-config", json.dumps(_GRAMMAR), "--enable-prefix-caching"]
    if adapter:  # asked for by its own name, which then is the model's
        flags[3:4] = [f"{name}-base"]
        flags += ["--lora-modules", f"{name}={adapter}"]
    for setting, value in told.items():
        flag = f"--{setting.replace('_', '-')}"
        if isinstance(value, bool):
            flags += [flag] if value else []
        elif value is not None:
            flags += [flag, str(value)]
    return flags


def _capacity(engine: VllmEngine, more: Sequence[str]) -> int:
    """Requests at once: of each engine behind the address, of which vLLM may start several."""
    copies = [more[i + 1] for i, word in enumerate(more[:-1]) if word in ("--data-parallel-size", "-dp")]
    return engine.capacity * (int(copies[-1]) if copies and copies[-1].isdecimal() else 1)


def _environment(engine: VllmEngine) -> Mapping[str, str]:
    environment = engine.environment()
    # In a server vLLM's engine is a process of its own, and cannot be otherwise.
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    if key := environment.get(KEY):
        environment["VLLM_API_KEY"] = key  # not on the command line, which everybody can read
    return environment


def _free_port(host: str) -> int:
    with socket.socket() as found:
        try:
            found.bind((host, 0))
        except OSError as error:
            raise EngineError(f"--host {host}: {error.strerror}; name an address of this machine") from None
        return int(found.getsockname()[1])


@contextmanager
def _published(address: Address, folder: Path | None) -> Iterator[None]:
    """The address in a file of the folder, written whole, and removed in the end."""
    if folder is None:
        yield
        return
    path = folder / f"{address.url.partition('://')[2].replace(':', '-')}.json"
    part = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_text(address.model_dump_json() + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; mend that and run the same command again") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
