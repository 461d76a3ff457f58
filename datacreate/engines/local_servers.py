"""Starts the servers of a run on this machine: one child process each, on a free port that only this machine reaches.

A server stops when the process that started it ends, even by kill -9 (`child_process`). One that dies or
hangs is restarted once, at the same address; the pool then repeats its unanswered requests.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from datacreate.child_process import supervised
from datacreate.engines.engine_kind import ServerCommand
from datacreate.engines.running_servers import Address, ServerSource
from datacreate.errors import EngineError, ServersUnavailable, UsageError
from datacreate.files import open_regular, storage_error
from datacreate.libraries import NO_DOWNLOADS, NO_TELEMETRY
from datacreate.messages import Notify
from datacreate.signals import deferred

_ENGINE_LINES = ("(EngineCore", "(Worker")
"""How log lines of vLLM's inner processes begin. They have the cause; the outer process only says that they failed."""

_EXCEPTION = re.compile(r"[\w.]*(?:Error|Exception): (?!.*(?:root cause|exiting due))\S.*")
"""An exception in a log; not one whose text only refers to another exception."""

_GRACE_SECONDS = 10.0  # to stop after SIGTERM
_LOG_TAIL_BYTES = 200_000  # in which the reason of an exit is looked for


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

    def stop(self) -> None:
        """Stop it and all its child processes; returns when they have ended."""
        if self._process and self._process.stdin:
            with deferred(), suppress(OSError, subprocess.TimeoutExpired):
                self._process.stdin.close()
                self._process.wait(_GRACE_SECONDS + 5.0)


class LocalServers(ServerSource):
    """The servers of one model on this machine. `prepare` returns their commands; it is called when they start."""

    remote = False

    def __init__(self, prepare: Callable[[], list[ServerCommand]], log: Path | None, notify: Notify) -> None:
        self._key = secrets.token_urlsafe(32)
        self._prepare = prepare
        self._log = log
        self._notify = notify
        self._servers: dict[str, LocalServer] = {}
        self._folder: Path | None = None

    def addresses(self) -> tuple[Address, ...]:
        return tuple(server.address for server in self._servers.values())

    def start(self) -> None:
        commands, log = self._prepare(), self._log
        first, number = commands[0], len(commands)
        replicas = {"replicas": number} if number > 1 else {}
        self.record = {"engine": first.engine.name, **first.record, **replicas}
        servers = f"{number} servers" if number > 1 else "one server"
        self._notify(f"starting {first.engine.title} for {first.model}: {servers} on this machine")
        if log is None or not log.parent.is_dir():  # the run directory does not exist yet
            self._folder = Path(tempfile.mkdtemp(prefix="datacreate-"))
            log = self._folder / "server.log"
        for index, command in enumerate(commands, 1):
            server = LocalServer(command, self._key, log.with_suffix(f".{index}.log") if number > 1 else log)
            self._servers[server.address.url] = server
            server.launch()
        try:
            for server in self._servers.values():
                server.wait_until_ready()
        except EngineError:
            self._folder = None  # it is kept: the error names a log in it
            raise

    def repair(self, url: str, *, hung: bool) -> str | None:
        server = self._servers.get(url)
        if server is None or (server.exit_code is None and not hung):
            return None
        reason = f"{url}, which this command started, does not answer"
        if server.exit_code is not None:
            reason = server.exit_reason()
        if server.restarted:
            del self._servers[url]
            if not self._servers:
                self.failed = f"{reason} failed again after a restart"
            return f"{reason}; not restarted a second time"
        server.restarted = True
        server.stop()
        server.launch()
        return f"{reason}; restarted, its unanswered requests are repeated"

    def stop(self) -> None:
        with deferred():
            for server in self._servers.values():
                server.stop()
            self._servers.clear()
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
