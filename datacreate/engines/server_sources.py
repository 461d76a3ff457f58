"""Where the servers of a model come from: running ones (`--url`), or those that this process starts on this machine.

A local server is a child process on a free port that only this machine reaches. It stops when the process that started
it ends, even by kill -9 (`child_process`).
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from datacreate.child_process import supervised
from datacreate.engines.engine import ServerCommand
from datacreate.errors import EngineError, ServersUnavailable, UsageError
from datacreate.files import expand_home, open_regular, storage_error
from datacreate.libraries import NO_DOWNLOADS, NO_TELEMETRY
from datacreate.messages import Notify
from datacreate.signals import deferred

API_KEY_VARIABLE = "DATACREATE_API_KEY"
"""The environment variable with the API key of servers that have not registered their own; no option takes the key."""

_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/|$)")  # an address without http://, as opposed to a path

_ENGINE_LINES = ("(EngineCore", "(Worker")
"""How log lines of vLLM's inner processes begin. They have the cause; the outer process only says that they failed."""

_EXCEPTION = re.compile(r"[\w.]*(?:Error|Exception): (?!.*(?:root cause|exiting due))\S.*")
"""An exception in a log; not one whose text only refers to another exception."""

_GRACE_SECONDS = 10.0  # to stop after SIGTERM
_LOG_TAIL_BYTES = 200_000  # in which the reason of an exit is looked for


def api_key() -> str:
    """The servers' API key, or "". UsageError if it cannot be sent in an HTTP header."""
    key = os.environ.get(API_KEY_VARIABLE, "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise UsageError(
            f"${API_KEY_VARIABLE} has a space, a line break or a non-ASCII character; set it to the key only"
        )
    return key


class Address(BaseModel):
    """The address of a server and its slots; the content of the file that a server registers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str  # without /v1 and without a trailing slash
    max_num_seqs: int | None = Field(default=None, gt=0)  # its slots
    key: str = Field(default="", pattern=r"^[!-~]*$", max_length=1000, repr=False)  # API key, if it needs one


class ServerSource(ABC):
    """Where the servers of a model come from."""

    remote = True  # False if this process starts them
    changes = False  # whether other servers may be added during the run
    description = "this machine"  # where they are, for messages
    failed: str | None = None  # why no server can ever be used again; None as long as one can
    record: Mapping[str, Any] = MappingProxyType({})  # how they were started, for config.json

    @abstractmethod
    def addresses(self) -> tuple[Address, ...]:
        """The servers that are known at this moment."""

    def start(self) -> None:  # noqa: B027 - remote servers need nothing
        """Return when the servers that this process starts accept requests. EngineError if they cannot be started."""

    def stop(self) -> None:  # noqa: B027
        """Stop the servers that were started."""

    def is_broken(self, url: str, times_hung: int) -> bool:
        """Whether `repair` is needed: this process started the server, and it has ended or hangs.

        `times_hung` is the number of requests and tests in a row to which it sent nothing.
        """
        return False

    def repair(self, url: str) -> str | None:
        """Restart a broken server, which takes seconds; returns a message, None if it was stopped meanwhile.

        StorageError if its log cannot be written.
        """
        return None


class RemoteServers(ServerSource):
    """The value of `--url`: addresses, and folders in which servers register and unregister."""

    def __init__(self, urls: Iterable[str]) -> None:
        """Parse `--url`. UsageError for neither an address nor a folder, or an address with a password."""
        self._key = api_key()
        self._listed: list[Address] = []
        self._folders: list[Path] = []
        descriptions: list[str] = []
        for url in urls:
            path = expand_home(url)
            if url and (path.is_dir() or is_path(url)):
                self._folders.append(path)
                descriptions.append(str(path) if path.is_dir() else f"{path} (no such folder yet)")
            else:
                self._listed.append(Address(url=_checked(url), key=self._key))
                descriptions.append(self._listed[-1].url)
        self.changes = bool(self._folders)
        self.description = ", ".join(descriptions)

    def addresses(self) -> tuple[Address, ...]:
        by_url = {address.url: address for address in self._listed}
        for path in (path for folder in self._folders for path in sorted(folder.glob("*.json"))):
            # A file may have been removed, be incomplete, or not be an address.
            with suppress(OSError, ValidationError, UsageError):
                address = Address.model_validate_json(path.read_bytes())
                url, key = _checked(address.url), address.key or self._key
                by_url.setdefault(url, address.model_copy(update={"url": url, "key": key}))
        return tuple(by_url.values())


def is_path(url: str) -> bool:
    """Whether a value of `--url` is the path of a folder, which need not exist yet, and no address."""
    return "/" in url and "://" not in url and not _HOST_AND_PORT.match(url)


def _checked(url: str) -> str:
    """The URL without /v1 and trailing slashes. UsageError if it is invalid."""
    try:
        parsed = urlsplit(url)
        _ = parsed.port  # ValueError if it is none
        is_valid = parsed.scheme in ("http", "https") and bool(parsed.hostname)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise UsageError(
            f"--url {url or '(empty)'}: neither an address nor a folder; write it as http://HOST:PORT, several with "
            "commas"
        )
    if parsed.username or parsed.password:
        raise UsageError(f"--url: an address must not contain a password; set ${API_KEY_VARIABLE} instead")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


class LocalServer:
    """The process of one server. Its output goes to the file `log`, or without one to stderr."""

    def __init__(
        self, command: ServerCommand, key: str, log: Path | None, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._command = command
        self._key = key
        self._log = log
        self._host = host
        self.port = port or free_port(host)
        url = f"http://{socket.gethostname() if host == '0.0.0.0' else host}:{self.port}"
        self.address = Address(url=url, max_num_seqs=command.slots, key=key)
        self.restarted = False
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start the process. StorageError if its log cannot be written."""
        address = ["--host", self._host, "--port", str(self.port)]
        keys = {self._command.engine.key_variable: self._key} if self._key else {}
        try:
            file = open_regular(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if self._log else os.dup(2)
        except OSError as error:
            raise storage_error(self._log or Path("stderr"), error) from None
        with os.fdopen(file, "wb") as output:
            self._process = subprocess.Popen(
                supervised([*self._command.arguments, *address], _GRACE_SECONDS),
                env={**os.environ, **NO_DOWNLOADS, **NO_TELEMETRY, **self._command.environment, **keys},
                stdin=subprocess.PIPE,  # closing it makes the server stop
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only the run, which then stops the server
            )

    def wait_until_ready(self) -> None:
        """Return when it answers. Raises EngineError, with the last error in its log, if it ends before."""
        import httpx2

        host = "127.0.0.1" if self._host == "0.0.0.0" else self._host
        while self.exit_code is None:
            with suppress(httpx2.HTTPError):
                if httpx2.get(f"http://{host}:{self.port}/health", timeout=5.0, trust_env=False).is_success:
                    return
            time.sleep(0.1)
        raise EngineError(self.exit_reason())

    @property
    def exit_code(self) -> int | None:
        """The exit code of its process; None while it runs."""
        return self._process.poll() if self._process else None

    def exit_reason(self) -> str:
        """Why the process ended, for messages: its exit code, and the last error in its log."""
        error = "killed, most likely out of memory; use a smaller model or a smaller --max-num-seqs"
        if self.exit_code != -9:
            error = self._last_error() or "see its output above"
        log = f"; its log is {self._log}" if self._log else ""
        server = f"{self._command.engine.title} server for {self._command.model}"
        return f"{server} ended (exit code {self.exit_code}): {error[:300]}{log}"

    def _last_error(self) -> str | None:
        """The line of its log that most likely has the cause: the last error, or else the last line."""
        text = ""
        with suppress(OSError):
            text = self._log.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace") if self._log else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        exceptions = [(line, match[0]) for line in lines if (match := _EXCEPTION.search(line))]
        engine_errors = [error for line, error in exceptions if line.startswith(_ENGINE_LINES)]
        # llama.cpp's last line only says that there was an error.
        error_lines = [line for line in lines if "error" in line.lower() and "exiting due" not in line]
        candidates = engine_errors or [error for _, error in exceptions] or error_lines or lines
        return candidates[-1] if candidates else None

    def wait(self) -> None:
        """Wait until it ends. Then raise ServersUnavailable."""
        if self._process:
            self._process.wait()
        raise ServersUnavailable(f"{self.exit_reason()}; run the same command to start it again")

    def begin_stop(self) -> None:
        """Make it and all its child processes stop."""
        if self._process and self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()

    def stop(self) -> None:
        """Stop it and all its child processes; returns when they have ended."""
        with deferred(), suppress(subprocess.TimeoutExpired):
            self.begin_stop()
            if self._process:
                self._process.wait(_GRACE_SECONDS + 5.0)


class LocalServers(ServerSource):
    """The servers of one model on this machine. `prepare` returns their commands; it is called when they start.

    A server that ends or hangs is restarted once, at the same address. It is stopped if it ends again, or hangs
    twice in a row: the first time, it may only have been slow.
    """

    remote = False

    def __init__(self, prepare: Callable[[], list[ServerCommand]], log: Path | None, notify: Notify) -> None:
        self._key = secrets.token_urlsafe(32)
        self._prepare = prepare
        self._log = log
        self._notify = notify
        self._servers: dict[str, LocalServer] = {}
        self._lock = threading.Lock()  # `stop` must not miss a server that `repair` starts in another thread
        self._folder: Path | None = None

    def addresses(self) -> tuple[Address, ...]:
        return tuple(server.address for server in self._servers.values())

    def start(self) -> None:
        commands, log = self._prepare(), self._log
        first, count = commands[0], len(commands)
        replicas = {"replicas": count} if count > 1 else {}
        self.record = {"engine": first.engine.name, **first.record, **replicas}
        servers = f"{count} servers" if count > 1 else "one server"
        self._notify(f"starting {first.engine.title} for {first.model}: {servers} on this machine")
        if log is None or not log.parent.is_dir():  # the run directory does not exist yet
            self._folder = Path(tempfile.mkdtemp(prefix="datacreate-"))
            log = self._folder / "server.log"
        for index, command in enumerate(commands, 1):
            server = LocalServer(command, self._key, log.with_suffix(f".{index}.log") if count > 1 else log)
            self._servers[server.address.url] = server
            server.launch()
        try:
            for server in self._servers.values():
                server.wait_until_ready()
        except EngineError:
            self._folder = None  # it is kept: the error names a log in it
            raise

    def is_broken(self, url: str, times_hung: int) -> bool:
        server = self._servers.get(url)
        if server is None:
            return False
        return server.exit_code is not None or times_hung >= (2 if server.restarted else 1)

    def repair(self, url: str) -> str | None:
        with self._lock:
            server = self._servers.get(url)
            if server is None:
                return None
            reason = f"{url}, which this command started, does not answer in time (--request-timeout)"
            if server.exit_code is not None:
                reason = server.exit_reason()
            server.stop()
            if url not in self._servers:
                return None
            if server.restarted:
                self._servers.pop(url, None)
                if not self._servers:
                    self.failed = f"{reason}; it failed again after a restart"
                return f"{reason}; not restarted a second time"
            server.launch()
            server.restarted = True
            return f"{reason}; restarted, its unanswered requests are repeated"

    def stop(self) -> None:
        with deferred():
            servers = list(self._servers.values())
            self._servers.clear()  # `repair` starts none of them from now on
            for server in servers:
                server.begin_stop()  # all at the same time: each may take seconds
            with self._lock:  # `repair` may just have started one
                for server in servers:
                    server.stop()
            if self._folder:
                shutil.rmtree(self._folder, ignore_errors=True)


def free_port(host: str, port: int = 0) -> int:
    """The port, or a free one for 0. UsageError if the address cannot be used."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server may just have stopped
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"--host {host} --port {port}: {error.strerror or error}; use an address of this machine and a free "
                "port, or omit --port"
            ) from None
        return int(probe.getsockname()[1])
