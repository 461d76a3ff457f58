"""Sends the requests of a run to its servers, and decides what happens when one fails. The policy, in order:

1. A request goes to the server with the largest share of free capacity. If none is free, it waits.
2. A server that fails is suspended: it gets no requests, and those that it did not answer go to other servers. It is
   tested like a new one after a pause that doubles each time, and then gets one request at a time until one succeeds.
   A local server that died or hangs is restarted once. It is given up if it dies again, or hangs twice in a row.
3. The request is the cause of a failure, not the server, if it fails again after a later request was completed. If no
   later request was completed, the last completed one is sent again, to find out whether the server works.
4. A request is given up after three failures of which it may be the cause, or after two if the server refuses it
   (HTTP 4xx). Failures after the first count only if another request was completed since.
5. The run stops, and can be resumed, if all servers fail five times in a row with the same error, or if no server was
   usable for too long. HTTP 429 (too many requests) never counts as the same error.

All code here runs in one event loop; a local server is restarted, and a folder of servers is read, in a thread of its
own.
"""

from __future__ import annotations

import asyncio
import resource
import ssl
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from datacreate.engines import EngineOptions
from datacreate.engines.chat_api import Busy, ChatApi, Incompatible, RequestRejected, ServerProblem, Unavailable
from datacreate.engines.request import Completion, Request, ServerTest
from datacreate.engines.server import Failures, Server
from datacreate.engines.server_sources import ServerSource
from datacreate.errors import EngineError, ServersUnavailable, StorageError
from datacreate.messages import Notify

T = TypeVar("T")

_MAX_FAILURES, _MAX_REJECTIONS = 3, 2  # a request is given up after this many
_MAX_REPEATED_ERRORS = 5  # the run stops after this many equal errors of every server
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0  # before a suspended server is tested

_REMOTE_WAIT_SECONDS, _LOCAL_WAIT_SECONDS = 300.0, 1200.0
"""The run stops after this time without a usable server. A local one may load its model again."""

_SHOWN_SERVERS = 3  # an error shows at most this many failing servers
_SCAN_SECONDS = 2.0  # the interval at which a folder of servers is read
_OPEN_FILES = 65_536  # each request in flight has a connection, and a run has fewer of them
_STRAGGLER_SECONDS = 20.0  # how long, at the start, the servers that are ready wait for the others


class ServerPool:
    """The servers of one model."""

    def __init__(self, source: ServerSource, api: ChatApi, options: EngineOptions, notify: Notify) -> None:
        self._source = source
        self._api = api
        self._options = options
        default_wait_seconds = _REMOTE_WAIT_SECONDS if source.remote else _LOCAL_WAIT_SECONDS
        self._longest_wait_seconds = default_wait_seconds if options.wait is None else options.wait
        self._notify = notify
        self._tls = ssl.create_default_context()
        self._tests: tuple[ServerTest, ...] = ()
        self._servers: dict[str, Server] = {}
        # The tasks are stored here because an event loop has only weak references to them.
        self._monitors: dict[str, asyncio.Task[None]] = {}
        self._pool_monitor: asyncio.Task[None] | None = None
        # The servers in use; if there are none, those that were used last. Other threads read this list, so it is
        # replaced and never changed.
        self.active_servers: list[Server] = []
        self._fatal_error: EngineError | StorageError | None = None  # stops the run, unless a server recovers
        self._changed = asyncio.Event()  # set and cleared at once whenever a server may have become free
        self._sent = 0  # number of requests sent
        self._last_completed: Request | None = None
        self._last_completed_number = 0  # of the completed requests, the number (`_sent`) of the one sent last
        self._last_healthy = 0.0  # the time (monotonic) at which a healthy server was last in use

    @property
    def _is_healthy(self) -> bool:
        """Whether a server is in use whose last request did not fail."""
        return any(server.is_active and not server.failures.failed_requests for server in self.active_servers)

    def raise_fatal_error(self) -> None:
        """Raise the error that stops the run, if there is one and no server has recovered. Other threads call it."""
        for monitor in (*self._monitors.values(), self._pool_monitor):
            if monitor and monitor.done() and not monitor.cancelled():
                monitor.result()  # raises the unexpected error that ended it
        if self._fatal_error and not self._is_healthy:
            raise self._fatal_error

    async def complete(self, request: Request) -> Completion:
        """The completion of a request by one of the servers; one with an error if the request is given up."""
        failures = 0  # those that the request may have caused
        sent_before_failure: int | None = None  # requests sent before its first failure
        while True:
            server = await self._free_server()
            sent = request
            try:
                cause_is_unknown = (
                    sent_before_failure is not None and self._last_completed_number <= sent_before_failure
                )
                if cause_is_unknown and self._last_completed:
                    sent = self._last_completed
                    await self._ask(server, sent)
                    sent = request
                return await self._ask(server, sent)
            except Incompatible as problem:
                self._suspend(server, problem)
            except Unavailable as problem:
                # While another request was sent in its place, further ones may have been completed.
                if sent is request and (
                    sent_before_failure is None or self._last_completed_number > sent_before_failure
                ):
                    failures += problem.request_may_be_cause
                    if failures >= (_MAX_REJECTIONS if isinstance(problem, RequestRejected) else _MAX_FAILURES):
                        return Completion(request.id, "", "error", error=f"{failures} failures: {problem}")
                if sent_before_failure is None:
                    sent_before_failure = self._sent
                self._suspend(server, problem)

    async def query(self, ask: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        """What one of the servers answers to a query without generation. EngineError if it can never answer."""
        while True:
            server = await self._free_server()
            try:
                result = await ask(server)
                self._restore(server)
                return result
            except Incompatible as problem:
                raise EngineError(f"{server.url}: {problem}") from None
            except Unavailable as problem:
                self._suspend(server, problem)

    async def _free_server(self) -> Server:
        """The server with the largest share of free capacity; waits until there is one."""
        while True:
            server = max(self.active_servers, key=lambda server: server.free_share)
            if server.free_share > 0:
                return server
            await self._changed.wait()

    async def _ask(self, server: Server, request: Request) -> Completion:
        """The completion of a request by this server."""
        self._sent = number = self._sent + 1
        server.in_flight += 1
        try:
            completion = await server.ask(request)
            self._last_completed_number, self._last_completed = max(self._last_completed_number, number), request
            self._restore(server)
            return completion
        finally:
            server.in_flight -= 1
            self._wake()

    def _restore(self, server: Server) -> None:
        """Mark a server that answered as working."""
        if server.is_active and server.failures.last_problem:
            if server.failures.last_problem_not_busy:
                self._notify(f"{server.url}: available again")
            server.failures = Failures()
            self._fatal_error = None
            self._wake()

    def _suspend(self, server: Server, problem: ServerProblem, *, in_test: bool = False) -> None:
        """Send no more requests to a server that failed, and say why unless that is known. Its monitor tests it."""
        if not (in_test or server.is_active):
            return  # another request has suspended it
        is_new = server.count_failure(problem, in_test=in_test)
        self._update_active_servers()
        if not in_test:
            self._check_repeated_errors(server, problem)
        if server.is_incompatible:
            message = f"{server.url} cannot be used: {problem}"
        else:
            how_long = "for a moment each time" if isinstance(problem, Busy) else "until it answers"
            message = f"{server.url}: {problem}; suspended {how_long}"
        if is_new and not self._is_broken(server):
            self._notify(message)

    def _check_repeated_errors(self, server: Server, problem: ServerProblem) -> None:
        """Stop the run if all servers in use, this one among them, have repeated an error too often."""
        used = [server, *(other for other in self._servers.values() if other.has_passed_tests)]
        if all(one.failures.repeated_errors >= _MAX_REPEATED_ERRORS for one in used):
            self._fatal_error = ServersUnavailable(
                f"{server.url}: the same error {_MAX_REPEATED_ERRORS} times in a row: {problem}; see the log of the "
                "server, then run the same command to resume"
            )

    def _is_broken(self, server: Server) -> bool:
        """Whether a server that failed must be restarted or given up by this process."""
        return not server.is_incompatible and self._source.is_broken(server.url, server.failures.times_hung)

    async def _monitor_server(self, server: Server) -> None:
        """Test a server; when it is suspended, test it again after a pause, and restart it before if it is broken."""
        while True:
            try:
                await server.test(self._tests)
                server.suspended.clear()
                server.failures.times_hung = 0
                if not server.failures.failed_requests:
                    self._restore(server)
                self._update_active_servers()
                await server.suspended.wait()
            except ServerProblem as problem:
                self._suspend(server, problem, in_test=True)
            except Exception as error:  # noqa: BLE001 - a malformed response must not stop the other servers
                self._suspend(server, Incompatible(f"invalid response ({type(error).__name__})"), in_test=True)
            if server.is_incompatible and not self._source.changes:
                return  # no other server can start at its address
            if self._is_broken(server):
                await self._repair(server)
            pause_seconds = _FIRST_PAUSE_SECONDS * 2.0 ** min(server.failures.total - 1, 10)
            await asyncio.sleep(min(_LONGEST_PAUSE_SECONDS, pause_seconds))

    async def _repair(self, server: Server) -> None:
        """Restart a server. It may take seconds to end, so this is done in a thread: others answer meanwhile."""
        try:
            message = await asyncio.to_thread(self._source.repair, server.url)
        except StorageError as error:
            self._fatal_error = error
        except OSError as error:
            self._fatal_error = ServersUnavailable(
                f"{server.url} cannot be restarted ({error.strerror or error}); run the same command to resume"
            )
        else:
            server.failures.times_hung = 0
            if message:
                self._notify(message)

    async def _monitor_pool(self) -> None:
        """Read the list of servers; stop the run if none was usable for too long or none can ever be used again."""
        while True:
            await asyncio.sleep(min(_SCAN_SECONDS, max(0.05, self._longest_wait_seconds / 4)))
            await self._scan()
            none_possible = self._source.failed is not None or (
                not self._source.changes and all(server.is_incompatible for server in self._servers.values())
            )
            if self._is_healthy and not none_possible:
                self._last_healthy = time.monotonic()
            elif none_possible or time.monotonic() - self._last_healthy > self._longest_wait_seconds:
                self._fatal_error = self.no_server_error()

    def no_server_error(self) -> EngineError:
        """The error that stops a run without servers: resumable unless all servers are incompatible."""
        failing = [server for server in self._servers.values() if server.failures.last_problem]
        reasons = "; ".join(f"{server.url}: {server.failures.last_problem}" for server in failing[:_SHOWN_SERVERS])
        if failing and all(server.is_incompatible for server in failing):
            advice = "use another --model or --engine"
            if self._source.remote:
                advice = "use a server that passes the tests of `datacreate doctor --url URL`"
            return EngineError(f"no server can be used: {reasons}; {advice}")
        reason = self._source.failed or reasons or f"no server at {self._source.description}"
        advice = "check --url, or start the server, and " if self._source.remote else ""
        return ServersUnavailable(f"no server answers: {reason}; {advice}run the same command to resume")

    def _wake(self) -> None:
        """Let all waiting tasks look again, in the order in which they began to wait."""
        self._changed.set()
        self._changed.clear()

    def _update_active_servers(self) -> None:
        active = [server for server in self._servers.values() if server.is_active]
        self.active_servers = active or self.active_servers
        self._wake()

    async def connect(self) -> None:
        """Test all servers. Returns when each has passed or failed, or after a limited wait for the rest."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _OPEN_FILES)), hard))
        await self._scan()
        began = time.monotonic()
        is_wait_shown = False
        while not self._can_start(time.monotonic() - began):
            if not is_wait_shown and all(server.is_settled for server in self._servers.values()):
                servers = "a server" if self._options.servers == 1 else f"{self._options.servers} servers"
                limit = f"{self._longest_wait_seconds:.0f} s"
                self._notify(f"waiting up to {limit} for {servers} at {self._source.description}")
                is_wait_shown = True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _SCAN_SECONDS)
            await self._scan()
        self._last_healthy = time.monotonic()
        self._pool_monitor = asyncio.create_task(self._monitor_pool())

    def _can_start(self, waited_seconds: float) -> bool:
        """Whether the run can start, this long after the first test; True if there is no server to wait for."""
        servers = self._servers.values()
        has_enough = sum(server.is_active for server in servers) >= self._options.servers
        # At the start only several servers or a folder of servers are waited for, unless --wait is set.
        must_wait = self._options.wait is not None or self._options.servers > 1 or self._source.changes
        limit_seconds = self._longest_wait_seconds if must_wait else 0.0
        if all(server.is_settled for server in servers):
            can_get_more = self._source.changes or not any(server.is_incompatible for server in servers)
            return has_enough or not can_get_more or waited_seconds >= limit_seconds
        return bool(self.active_servers) and waited_seconds > (_STRAGGLER_SECONDS if has_enough else limit_seconds)

    async def run_tests(self, tests: Sequence[ServerTest]) -> None:
        """Run these tests on every server, now and when one joins. EngineError if none passes."""
        self._tests = tuple(tests)
        for server in self.active_servers:
            try:
                await server.run_tests(tests)
            except ServerProblem as problem:
                # A server that is only unavailable keeps the result of its earlier tests.
                server.has_passed_tests = isinstance(problem, Unavailable)
                self._suspend(server, problem)
        servers = self._servers.values()
        if any(server.is_incompatible for server in servers) and not any(server.is_active for server in servers):
            raise self.no_server_error()

    async def _scan(self) -> None:
        """Add new servers; remove those that fail and are no longer registered."""
        if self._servers and not self._source.changes:
            return
        with suppress(OSError):  # a network file system may be unavailable for a while, or slow: hence the thread
            addresses = {address.url: address for address in await asyncio.to_thread(self._source.addresses)}
            for url, address in addresses.items():
                if url not in self._servers:
                    server = Server(address, self._api, self._tls, self._options, is_remote=self._source.remote)
                    self._servers[url] = server
                    self._monitors[url] = asyncio.create_task(self._monitor_server(server))
                self._servers[url].key = address.key  # a server that was started again has another one
            for url in self._servers.keys() - addresses.keys():
                if not self._servers[url].is_active and not self._servers[url].in_flight:
                    self._monitors.pop(url).cancel()
                    await self._servers.pop(url).close()

    async def close(self) -> None:
        """Cancel all tasks, and close the connections."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers.values():
            await server.close()
