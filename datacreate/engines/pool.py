"""Many servers as one: each request goes to whichever has room, and to another when that one fails.

A server that fails gets no new requests for a pause that doubles each time, with a random part, so that
many runs do not return at the same moment. Then it is tested like a new one, and gets one request at a
time until one succeeds. A request is blamed for failing only if another one succeeded meanwhile;
otherwise the servers are, and without any server for too long the run stops, resumable.
Everything here runs in one event loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from datacreate.engines.addresses import ServerSource
from datacreate.engines.base import Check, Completion, Request
from datacreate.engines.protocol import Busy, Incompatible, Protocol, Refused, Unavailable
from datacreate.engines.server import Server, client
from datacreate.errors import EngineError, ServersGone

MAX_ATTEMPTS = 3
"""Failures of one request after which it counts as its own fault, from when another succeeded that was asked
after its first failure."""

_LONGEST_PAUSE = 30.0

_SCAN_SECONDS = 2.0
"""How often a folder of servers is read."""

_STRAGGLER_SECONDS = 20.0
"""How long servers that are ready wait, at the start, for those that have not answered."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds: for one answer, and with no server; `at_start` where the latter begins before the first.

    `servers` is how many are waited for, at most so long, before the first request.
    """

    answer: float = 300.0
    no_server: float = 300.0
    at_start: bool = False
    servers: int = 1
    first_pause: float = 0.5


class Pool:
    """The servers of one model."""

    def __init__(
        self,
        source: ServerSource,
        protocol: Protocol,
        timeouts: Timeouts,
        capacity: int | None,
        log: Callable[[str], None],
    ) -> None:
        self._source = source
        self._protocol = protocol
        self._timeouts = timeouts
        self._capacity = capacity
        self._log = log
        self._held = AsyncExitStack()  # connections, once there are any
        self._checks: tuple[Check, ...] = ()
        self._servers: dict[str, Server] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self.members: list[Server] = []  # those in use, or the last that were; replaced, never changed
        self.lost: EngineError | None = None  # why the run cannot go on, unless a server is well again
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._changed = asyncio.Event()
        self._asked = 0  # requests; each has its number
        self._answered = 0  # the last one that was answered
        self._last_well = 0.0  # when a server was last in use that answers

    @property
    def well(self) -> bool:
        """Whether a server is in use that has not just failed."""
        return any(server.joined and server.proven for server in self.members)

    async def gather(self) -> None:
        """Test all servers; returns when all have joined, failed, or keep the others waiting."""
        self._http = await self._held.enter_async_context(client(self._source.key))
        self._scan()
        began = self._last_well = time.monotonic()
        self._watcher = asyncio.create_task(self._watch())
        if len(self._servers) < self._timeouts.servers:
            awaited = "a server" if self._timeouts.servers == 1 else f"{self._timeouts.servers} servers"
            seconds = self._timeouts.no_server
            self._log(f"waiting for {awaited} to come to {self._source.shown}, for up to {seconds:.0f} s")
        while not self._gathered(time.monotonic() - began):
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _SCAN_SECONDS)
        self._last_well, self.lost = time.monotonic(), None

    def _gathered(self, seconds: float) -> bool:
        servers = self._servers.values()
        enough = sum(server.joined for server in servers) >= self._timeouts.servers
        longest = self._timeouts.no_server if self._timeouts.at_start else 0.0
        if all(server.joined or server.trouble for server in servers):
            hopeful = self._source.changes or not any(server.refused for server in servers)
            return enough or not hopeful or seconds >= longest
        return bool(self.members) and seconds > (_STRAGGLER_SECONDS if enough else longest)

    async def require(self, checks: Sequence[Check]) -> None:
        """Have every server pass these checks too, now and whenever one joins. EngineError if none can."""
        self._checks = tuple(checks)
        for server in self.members:
            try:
                await server.require(checks)
            except (Unavailable, Incompatible) as trouble:
                self._lose(server, trouble)
        servers = self._servers.values()
        if any(server.refused for server in servers) and not any(server.joined for server in servers):
            raise self.gone()

    async def answer(self, request: Request) -> Completion:
        """The answer of one of the servers, however often they must be asked."""
        failures, retried = 0, False
        first_failure: int | None = None  # when it was: after so many requests
        while True:
            server = await self._with_room(retried)
            retried = True
            server.in_flight += 1
            self._asked = number = self._asked + 1
            try:
                completion = await server.ask(request)
                self._answered = max(self._answered, number)
                self._works(server)
                return completion
            except Busy as trouble:
                if server.in_flight > 1:  # it holds fewer than it was given
                    server.capacity = server.in_flight - 1
                else:
                    self._lose(server, trouble)
            except Unavailable as trouble:
                failures += trouble.counts and first_failure is not None and self._answered > first_failure
                first_failure = self._asked if first_failure is None else first_failure
                if failures >= (1 if isinstance(trouble, Refused) else MAX_ATTEMPTS):
                    return Completion(request.id, "", "error", error=f"asked {failures} times: {trouble}")
                server.proven = server.proven and not trouble.counts
                retried = not trouble.counts  # others first: they show whose fault it is
                self._lose(server, trouble)
            except Incompatible as trouble:
                server.proven = False
                self._lose(server, trouble)
            finally:
                server.in_flight -= 1
                self._wake(1)

    async def _with_room(self, first: bool) -> Server:
        """The server with the largest share of its capacity free; waits until there is one."""
        while (best := max(self.members, key=lambda server: server.room)).room <= 0:
            turn = asyncio.get_running_loop().create_future()
            # All that came later waits for what was asked before.
            (self._waiting.appendleft if first else self._waiting.append)(turn)
            await turn
            first = True
        return best

    def _wake(self, number: int) -> None:
        while self._waiting and number > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                number -= 1

    def _scan(self) -> None:
        """Take in servers that are new; forget those that are gone and published no longer."""
        known = {address.url: address for address in self._source.now()}
        for url, address in known.items():
            if url not in self._servers:
                limit = self._timeouts.answer
                self._servers[url] = Server(address, self._protocol, self._http, self._capacity, limit)
                self._keepers[url] = asyncio.create_task(self._keep(self._servers[url]))
        for url in self._servers.keys() - known.keys():
            if not self._servers[url].joined and not self._servers[url].in_flight:
                self._keepers.pop(url).cancel()
                del self._servers[url]

    async def _keep(self, server: Server) -> None:
        """Admit a server when it is well, wait until it fails, and again."""
        while True:
            try:
                await server.admit(self._checks)
                server.left.clear()
                if server.proven:
                    self._works(server)
                self._recount()
                self._wake(server.capacity)
                await server.left.wait()
            except (Unavailable, Incompatible) as trouble:
                self._note(server, trouble)
            except Exception as error:  # noqa: BLE001 - whatever it sent: the others can be asked
                self._note(server, Incompatible(f"it sent what cannot be read ({type(error).__name__})"))
            if server.refused and not self._source.changes:  # else another may come to the same address
                return
            await asyncio.sleep(self._pause(server))

    def _pause(self, server: Server) -> float:
        """Seconds until it is tried again: doubling, with jitter, at least what it asks for."""
        if not isinstance(server.trouble, Unavailable):
            return _LONGEST_PAUSE
        doubled = self._timeouts.first_pause * 2.0 ** min(server.failures - 1, 10)
        return max(
            server.trouble.retry_after_seconds, min(_LONGEST_PAUSE, doubled) * random.uniform(0.5, 1.0)
        )

    def _works(self, server: Server) -> None:
        """It is well: it may be asked to its capacity."""
        if server.joined and server.trouble:
            self._log(f"{server.url}: available again")
            server.trouble, server.failures, server.proven = None, 0, True
            self._wake(server.capacity)

    def _lose(self, server: Server, trouble: Unavailable | Incompatible) -> None:
        if server.joined:
            server.left.set()
            self._note(server, trouble)

    def _note(self, server: Server, trouble: Unavailable | Incompatible) -> None:
        """Say once why a server is not in use; a local one that died or hangs is started again."""
        before, server.trouble = server.trouble, trouble
        server.failures += 1
        if isinstance(trouble, Incompatible):
            if not isinstance(before, Incompatible):
                self._log(f"{server.url}: {trouble}; it is not used")
        elif told := self._source.repair(server.url, hung=trouble.hung):
            self._log(told)
        elif str(before) != str(trouble):
            self._log(f"{server.url}: {trouble}; suspended, and tried again later")
        self._recount()

    def _recount(self) -> None:
        self.members = [server for server in self._servers.values() if server.joined] or self.members
        self._changed.set()

    async def _watch(self) -> None:
        """See which servers there are, and whether none has worked for too long or none can come any more."""
        while True:
            await asyncio.sleep(min(_SCAN_SECONDS, max(0.05, self._timeouts.no_server / 4)))
            if self._source.changes:
                with suppress(OSError):  # a file server may be away for a while
                    self._scan()
            hopeless = not self._source.changes and all(each.refused for each in self._servers.values())
            hopeless = hopeless or self._source.failed is not None
            if self.well and not hopeless:
                self._last_well = time.monotonic()
            elif hopeless or time.monotonic() - self._last_well > self._timeouts.no_server:
                self.lost = self.gone()

    def gone(self) -> EngineError:
        """What ends a run without servers, in their words: for good if none of them can be used."""
        troubles = {server.url: server.trouble for server in self._servers.values() if server.trouble}
        why = "; ".join(f"{url}: {trouble}" for url, trouble in list(troubles.items())[:3])
        why += f"; and {len(troubles) - 3} more" if len(troubles) > 3 else ""
        if troubles and not any(isinstance(trouble, Unavailable) for trouble in troubles.values()):
            return EngineError(f"no server can be used: {why}")
        why = self._source.failed or why or f"no server has come to {self._source.shown}"
        return ServersGone(f"no server answers: {why}; run the same command to resume")

    async def close(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._held.aclose()
