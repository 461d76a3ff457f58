"""Distributes requests over servers; retries, suspends failing servers, and tests them again.

A request goes to the server with the largest share of free capacity. A server that fails is suspended for a pause
that doubles each time. Then it is tested like a new one and gets one request at a time until one succeeds.

If a request fails again after another one succeeded, the request is the cause, otherwise the server is. If no other
request is in flight, the last successful one is sent again to find out. The run stops, and can be resumed, if no server
is usable for too long, or if servers return the same error again and again.

All code here runs in one event loop.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress

from datacreate.engines.addresses import ServerSource
from datacreate.engines.chat_api import Busy, ChatApi, Incompatible, RequestRejected, Unavailable
from datacreate.engines.options import EngineOptions
from datacreate.engines.request import Completion, Request, ServerTest
from datacreate.engines.server import Server
from datacreate.errors import EngineError, ServersUnavailable
from datacreate.messages import Notify

_MAX_ATTEMPTS = 3
"""Failures after which a request is given up. A failure counts only if a request that was sent after the first
failure has been completed since."""

_MAX_REPEATED_ERRORS = 5
"""Suspensions of a server for the same error, without a success in between, after which the run stops."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0

_REMOTE_WAIT_SECONDS, _LOCAL_WAIT_SECONDS = 300.0, 1200.0
"""After so long without a usable server the run stops. A local one may load its model again."""

_SHOWN_SERVERS = 3  # of those that fail, in an error
_SCAN_SECONDS = 2.0  # interval between two reads of a folder of servers
_OPEN_FILES = 65_536  # more than a run has requests in flight, of which each has a connection
_STRAGGLER_SECONDS = 20.0  # how long, at the start, the servers that are ready wait for the others


class ServerPool:
    """The servers of one model."""

    def __init__(self, source: ServerSource, api: ChatApi, options: EngineOptions, notify: Notify) -> None:
        self._source = source
        self._api = api
        self._options = options
        default_wait = _REMOTE_WAIT_SECONDS if source.remote else _LOCAL_WAIT_SECONDS
        self._longest_wait = default_wait if options.wait is None else options.wait
        self._notify = notify
        self._tls = ssl.create_default_context()
        self._tests: tuple[ServerTest, ...] = ()
        self._servers: dict[str, Server] = {}
        self._monitors: dict[str, asyncio.Task[None]] = {}
        # Those in use, or the last ones used. Other threads read it: the list is replaced, never changed.
        self.active_servers: list[Server] = []
        self.fatal_error: EngineError | None = None  # why the run must stop, unless a server recovers
        self._changed = asyncio.Event()  # set for a moment whenever a server may have become free
        self._sent = 0  # number of requests sent
        self._completed = 0  # number of the last request that was completed
        self._last_completed: Request | None = None
        self._last_healthy = 0.0  # when a healthy server was last in use

    @property
    def healthy(self) -> bool:
        """Whether a server is in use whose last request did not fail."""
        return any(server.is_active and server.last_request_succeeded for server in self.active_servers)

    async def connect(self) -> None:
        """Test all servers. Returns when each has passed or failed, or after a limited wait for the rest."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _OPEN_FILES)), hard))
        await self._scan()
        began = self._last_healthy = time.monotonic()
        self._watcher = asyncio.create_task(self._watch())
        is_wait_shown = False
        while not self._is_connected(time.monotonic() - began):
            if not is_wait_shown and all(server.is_settled for server in self._servers.values()):
                servers = "a server" if self._options.servers == 1 else f"{self._options.servers} servers"
                limit = f"{self._longest_wait:.0f} s"
                self._notify(f"waiting up to {limit} for {servers} at {self._source.description}")
                is_wait_shown = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _SCAN_SECONDS)
        self._last_healthy, self.fatal_error = time.monotonic(), None

    def _is_connected(self, seconds: float) -> bool:
        """Whether the run can start, so many seconds after the first test; also if there is no server to wait for."""
        servers = self._servers.values()
        enough = sum(server.is_active for server in servers) >= self._options.servers
        # At the start only several servers or a folder of servers are waited for, unless --wait is set.
        waits = self._options.wait is not None or self._options.servers > 1 or self._source.changes
        longest = self._longest_wait if waits else 0.0
        if all(server.is_settled for server in servers):
            more_possible = self._source.changes or not any(server.is_incompatible for server in servers)
            return enough or not more_possible or seconds >= longest
        return bool(self.active_servers) and seconds > (_STRAGGLER_SECONDS if enough else longest)

    async def run_tests(self, tests: Sequence[ServerTest]) -> None:
        """Run these tests on every server, now and when one joins. EngineError if none passes."""
        self._tests = tuple(tests)
        for server in self.active_servers:
            try:
                await server.run_tests(tests)
            except (Unavailable, Incompatible) as problem:
                # These tests are a part of its self-test.
                server.has_passed_self_test = isinstance(problem, Unavailable)
                self._suspend(server, problem)
        servers = self._servers.values()
        is_any_active = any(server.is_active for server in servers)
        if any(server.is_incompatible for server in servers) and not is_any_active:
            raise self.no_server_error()

    async def complete(self, request: Request) -> Completion:
        """Return the answer of one of the servers; retries as described above."""
        failures = 0
        sent_at_first_failure: int | None = None  # how many requests had been sent before it
        while True:
            server = await self._free_server()
            server.in_flight += 1
            self._sent = number = self._sent + 1
            try:
                is_uncompleted = sent_at_first_failure is not None and self._completed <= sent_at_first_failure
                if is_uncompleted and self._last_completed:
                    await server.ask(self._last_completed)
                    self._completed = max(self._completed, number)
                    self._mark_healthy(server)
                completion = await server.ask(request)
                self._completed, self._last_completed = max(self._completed, number), request
                self._mark_healthy(server)
                return completion
            except Unavailable as problem:
                if sent_at_first_failure is None:
                    sent_at_first_failure = self._sent
                elif self._completed > sent_at_first_failure:
                    failures += problem.request_may_be_cause
                if failures >= (1 if isinstance(problem, RequestRejected) else _MAX_ATTEMPTS):
                    return Completion(request.id, "", "error", error=f"{failures} attempts: {problem}")
                self._suspend(server, problem)
            except Incompatible as problem:
                self._suspend(server, problem)
            finally:
                server.in_flight -= 1
                self._wake()

    async def _free_server(self) -> Server:
        """The server with the largest share of free capacity; waits until there is one."""
        while True:
            server = max(self.active_servers, key=lambda server: server.free_share)
            if server.free_share > 0:
                return server
            await self._changed.wait()

    def _wake(self) -> None:
        """Let all waiting tasks look again, in the order in which they began to wait."""
        self._changed.set()
        self._changed.clear()

    async def _scan(self) -> None:
        """Add new servers; remove those that fail and are no longer registered."""
        addresses = {address.url: address for address in self._source.addresses()}
        for url, address in addresses.items():
            if url not in self._servers:
                server = Server(address, self._api, self._tls, self._options, self._source.remote)
                self._servers[url] = server
                self._monitors[url] = asyncio.create_task(self._monitor(server))
            self._servers[url].key = address.key  # a server that was started again has another one
        for url in self._servers.keys() - addresses.keys():
            if not self._servers[url].is_active and not self._servers[url].in_flight:
                self._monitors.pop(url).cancel()
                await self._servers.pop(url).close()

    async def _monitor(self, server: Server) -> None:
        """Admit a server when it passes its tests; when it is suspended, test it again after a pause."""
        while True:
            try:
                await server.test(self._tests)
                server.suspended.clear()
                if server.last_request_succeeded:
                    self._mark_healthy(server)
                self._update_active_servers()
                await server.suspended.wait()
            except (Unavailable, Incompatible) as problem:
                self._handle_failure(server, problem)
            except Exception as error:  # noqa: BLE001 - a malformed answer must not stop the other servers
                self._handle_failure(server, Incompatible(f"invalid response ({type(error).__name__})"))
            if server.is_incompatible and not self._source.changes:
                return  # no other server can start at its address
            await asyncio.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(server.failures - 1, 10)))

    def _mark_healthy(self, server: Server) -> None:
        """Reset the failure state of a server that answered."""
        if server.is_active and server.problem:
            if server.last_error:
                self._notify(f"{server.url}: available again")
            server.problem = server.last_error = None
            server.failures = server.repeated_errors = 0
            server.last_request_succeeded = True
            self.fatal_error = None
            self._wake()

    def _suspend(self, server: Server, problem: Unavailable | Incompatible) -> None:
        """Send it no more requests; stop the run if it, like all others, always fails with the same problem."""
        if not server.is_active:
            return
        is_repeated = str(problem) == str(server.last_error)
        server.repeated_errors = server.repeated_errors + 1 if is_repeated else 1
        if isinstance(problem, Busy):  # a rate limit does not stop the run
            server.repeated_errors = 0
        server.last_request_succeeded = False
        server.suspended.set()
        used = [server, *(other for other in self._servers.values() if other.has_passed_self_test)]
        if all(one.repeated_errors >= _MAX_REPEATED_ERRORS for one in used):
            self.fatal_error = ServersUnavailable(
                f"{server.url}: the same error {_MAX_REPEATED_ERRORS} times in a row: {problem}; see the log of the "
                "server, then run the same command to resume"
            )
        self._handle_failure(server, problem)

    def _handle_failure(self, server: Server, problem: Unavailable | Incompatible) -> None:
        """Log once why a server is suspended; restart a local one that died or hangs."""
        previous, server.problem = server.last_error, problem
        if not isinstance(problem, Busy):
            server.last_error = problem
        server.failures += 1
        if server.is_incompatible:
            if not isinstance(previous, Incompatible):
                self._notify(f"{server.url} cannot be used: {problem}")
        elif message := self._source.repair(server.url, hung=problem.hung):
            self._notify(message)
        elif isinstance(problem, Busy):
            if not server.was_busy:
                self._notify(f"{server.url}: {problem}; suspended for a moment each time")
            server.was_busy = True
        elif str(previous) != str(problem):
            self._notify(f"{server.url}: {problem}; suspended until it answers")
        self._update_active_servers()

    def _update_active_servers(self) -> None:
        active = [server for server in self._servers.values() if server.is_active]
        self.active_servers = active or self.active_servers
        self._wake()

    async def _watch(self) -> None:
        """Read the list of servers; stop the run if none was usable for too long or none can be used any more."""
        while True:
            await asyncio.sleep(min(_SCAN_SECONDS, max(0.05, self._longest_wait / 4)))
            if self._source.changes:
                with suppress(OSError):  # a network file system may be unavailable for a while
                    await self._scan()
            none_possible = self._source.failed is not None or (
                not self._source.changes and all(server.is_incompatible for server in self._servers.values())
            )
            if self.healthy and not none_possible:
                self._last_healthy = time.monotonic()
            elif none_possible or time.monotonic() - self._last_healthy > self._longest_wait:
                self.fatal_error = self.no_server_error()

    def no_server_error(self) -> EngineError:
        """The error that stops a run without servers: resumable unless all servers are incompatible."""
        failing = [server for server in self._servers.values() if server.problem]
        reasons = "; ".join(f"{server.url}: {server.problem}" for server in failing[:_SHOWN_SERVERS])
        if failing and all(server.is_incompatible for server in failing):
            return EngineError(f"no server can be used: {reasons}")
        reason = self._source.failed or reasons or f"no server at {self._source.description}"
        advice = "check --url, or start the server, and " if self._source.remote else ""
        return ServersUnavailable(f"no server answers: {reason}; {advice}run the same command to resume")

    async def close(self) -> None:
        """Cancel all tasks, and close the connections."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers.values():
            await server.close()
