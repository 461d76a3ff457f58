"""vLLM's own OpenAI-compatible server for a checkpoint on this machine, and word of where it is.

What a preset and the machine ask of vLLM in a run they ask of its server, too: whoever is asked
through it answers as the engine in the run would.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from datacreate.engines.loading import Loading
from datacreate.engines.openai.addresses import KEY, Address
from datacreate.errors import EngineError, ServersGone, UsageError
from datacreate.files import replace_file, storage_error
from datacreate.leash import leashed
from datacreate.locking import slurm_job
from datacreate.signals import Signals

_LOOK_SECONDS = 0.5

_OURS = {"--model", "--host", "--port", "--uds", "--served-model-name", "--max-num-seqs", "--api-key"}
"""Arguments of vLLM's server that are options of `datacreate serve`, or follow from them."""

_GRAMMAR = {"backend": "xgrammar", "disable_any_whitespace": True}
"""As in the worker: no request can set it."""


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens, and where it says so."""

    host: str = "127.0.0.1"
    port: int = 0  # 0: one that is free
    publish: Path | None = None  # the folder of those who are ready

    @property
    def name(self) -> str:
        """What others call the host."""
        return socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host


@contextmanager
def server(
    loading: Loading,
    name: str,
    endpoint: Endpoint,
    more: Sequence[str],
    signals: Signals,
    say: Callable[[str], None],
) -> Iterator[Server]:
    """A server that is ready; its file is published until the block ends, and then it is ended.

    `more` are arguments for vLLM's server as they are.
    Raises UsageError for one that is not its to give or an address that cannot be listened at,
    EngineError if the server ends before it is ready.
    """
    port = _bindable(endpoint.host, endpoint.port)
    url = f"http://{f'[{endpoint.name}]' if ':' in endpoint.name else endpoint.name}:{port}"
    address = Address(url=url, model=name, max_num_seqs=loading.capacity * _copies(more))
    _made(endpoint.publish)
    say(f"loading {name}")
    listening = ["--host", endpoint.host, "--port", str(port), "--uvicorn-log-level", "warning"]
    process = subprocess.Popen(
        leashed([*_program(loading, name), *listening, *more]),
        env=_environment(loading),
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us, who then end it in order
    )
    running = Server(process, address)
    try:
        running.ready()
        with _published(address, endpoint.publish):
            yield running
    finally:
        with signals.held():  # nothing is left on a GPU, however often it is told to stop
            running.end()


@dataclass(frozen=True)
class Server:
    """A server's process, and where it answers."""

    process: subprocess.Popen[bytes]
    address: Address

    def ready(self, timeout_seconds: float = 1800.0) -> None:
        """Wait until it answers. EngineError if it ends or does not come to that."""
        opener = build_opener(ProxyHandler({}))
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            if (code := self.process.poll()) is not None:
                raise EngineError(
                    f"vLLM's server for {self.address.url} ended (code {code}) before it was ready; "
                    "what it said is above"
                )
            with suppress(URLError, OSError), opener.open(f"{self.address.url}/health", timeout=5):
                return
            time.sleep(_LOOK_SECONDS)
        raise EngineError(
            f"the server for {self.address.url} was not ready in {timeout_seconds:.0f} s; its words are above"
        )

    def wait(self) -> None:
        """Until it ends, which is a ServersGone: it has worked, and may again."""
        code = self.process.wait()
        raise ServersGone(
            f"vLLM's server at {self.address.url} ended (code {code}); what it said is above; "
            "run the same command to start it again"
        )

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


def _program(loading: Loading, name: str) -> list[str]:
    """vLLM's server as a command, all but where it listens."""
    weights, *flags = arguments(loading, name)
    if loading.device == "cpu":  # whose `vllm` does not find its own metadata
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", weights, *flags]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", weights, *flags]


def arguments(loading: Loading, name: str) -> list[str]:
    """What vLLM's server is told: the model, and as flags its name and how it is loaded."""
    weights, adapter, lora = loading.weights()
    told = {**loading.arguments, **lora}
    # An adapter is asked for by a name of its own, which then is the model's.
    flags = ["--served-model-name", f"{name}-base" if adapter else name]
    flags += ["--lora-modules", f"{name}={adapter}"] if adapter else []
    flags += ["--structured-outputs-config", json.dumps(_GRAMMAR), "--enable-prefix-caching"]
    if loading.device == "cpu" and told.get("tensor_parallel_size") == 1:
        # A worker of its own is given one core less than there are: on 2 cores 1.5 examples/s, not 3.6.
        flags += ["--distributed-executor-backend", "uni"]
    for setting, value in told.items():
        flag = f"--{setting.replace('_', '-')}"
        if isinstance(value, bool):
            flags += [flag] if value else []
        elif value is not None:
            flags += [flag, str(value)]
    return [str(weights), *flags]


def _copies(more: Sequence[str]) -> int:
    """Engines behind the address, of which vLLM may start several. UsageError for what is not for vLLM."""
    copies = 1
    for word, following in zip(more, [*more[1:], ""], strict=False):
        flag, equals, value = word.replace("_", "-").partition("=")
        if flag in _OURS:
            raise UsageError(f"{word}: that is datacreate's to say; leave it out, or give it before the --")
        if flag.startswith("--ssl-"):
            raise UsageError(f"{word}: servers are asked without TLS; put a proxy in front for that")
        if flag in ("--data-parallel-size", "-dp"):
            told = value if equals else following
            if not told.isdecimal() or not int(told):
                raise UsageError(f"{flag} {told}: give the number of copies, above 0")
            copies = int(told)
    return copies


def _environment(loading: Loading) -> Mapping[str, str]:
    environment = loading.environment()
    if own := os.environ.get("VLLM_HOST_IP"):  # who serves over several nodes knows better
        environment["VLLM_HOST_IP"] = own
    if key := environment.get(KEY):
        environment["VLLM_API_KEY"] = key  # not on the command line, which everybody can read
    return environment


def _bindable(host: str, port: int) -> int:
    """The port, or one that is free; nobody listens there. UsageError if there is none."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the one before us may just have gone
        try:
            found.bind((host, port))
            return int(found.getsockname()[1])
        except OSError as error:
            raise UsageError(
                f"--host {host} --port {port}: {error.strerror or error}; name an address of this machine "
                "and a port that nobody has, or leave --port out"
            ) from None


def _made(folder: Path | None) -> None:
    """Make the folder at once: who is told of it may look before the model is loaded."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder or Path(), error) from None


@contextmanager
def _published(address: Address, folder: Path | None) -> Iterator[None]:
    """The address in a file of the folder, written whole, and removed in the end."""
    if folder is None:
        yield
        return
    path = folder / f"{_own_name(address)}.json"
    text = address.model_dump_json() + "\n"
    replace_file(path, text)
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == text:  # else a later start of the same job has it
                path.unlink()


def _own_name(address: Address) -> str:
    """Of the file: in a task of an array the task's, whose next start then replaces what a dead node left."""
    if (job := slurm_job()) and "_" in job:
        return f"job-{job}"
    return re.sub(r"[^\w.]+", "-", address.url.partition("://")[2]).strip("-")
