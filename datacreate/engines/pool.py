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
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datacreate.engines.addresses import ServerSource
from datacreate.engines.base import Check, Completion, Request
from datacreate.engines.protocol import Busy, Incompatible, Protocol, Refused, Unavailable
from datacreate.engines.server import Server

if TYPE_CHECKING:
    import httpx2

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
        http: httpx2.AsyncClient,
        timeouts: Timeouts,
        capacity: int | None,
        log: Callable[[str], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._source = source
        self._protocol = protocol
        self._http = http
        self._timeouts = timeouts
        self._capacity = capacity
        self._log = log
        self._on_lost = on_lost
        self._checks: tuple[Check, ...] = ()
        self._servers: dict[str, Server] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self.incompatible: dict[str, str] = {}  # why a server is not used
        self.unavailable: dict[str, str] = {}  # why a server is not in use now
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._changed = asyncio.Event()
        self._asked = 0  # requests; each has its number
        self._answered = 0  # the last one that was answered
        self._last_well = time.monotonic()  # when a server was last in use that answers
        self._background: list[asyncio.Task[None]] = []

    @property
    def joined(self) -> list[Server]:
        # list() is atomic: the run's own thread reads this while servers come and go.
        return [server for server in list(self._servers.values()) if server.joined]

    @property
    def well(self) -> bool:
        """Whether a server is in use that has not just failed."""
        return any(server.proven for server in self.joined)

    async def gather(self) -> None:
        """Test all servers; returns when all have joined, failed, or keep the others waiting."""
        self._scan()
        self._background = [asyncio.create_task(self._scan_again())]
        began = time.monotonic()
        if len(self._servers) < self._timeouts.servers:
            awaited = "a server" if self._timeouts.servers == 1 else f"{self._timeouts.servers} servers"
            seconds = self._timeouts.no_server
            self._log(f"waiting for {awaited} to come to {self._source.shown}, for up to {seconds:.0f} s")
        while not self._gathered(time.monotonic() - began):
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _SCAN_SECONDS)
        self._last_well = time.monotonic()
        self._background.append(asyncio.create_task(self._watch()))

    def _gathered(self, seconds: float) -> bool:
        enough = len(self.joined) >= self._timeouts.servers
        longest = self._timeouts.no_server if self._timeouts.at_start else 0.0
        heard = self.unavailable.keys() | self.incompatible.keys()
        if all(each.joined or each.url in heard for each in self._servers.values()):
            hopeful = self._source.changes or not self.incompatible
            return enough or not hopeful or seconds >= longest
        return bool(self.joined) and seconds > (_STRAGGLER_SECONDS if enough else longest)

    async def require(self, checks: Sequence[Check]) -> None:
        """Have every server pass these checks too, now and whenever one joins."""
        self._checks = tuple(checks)
        for server in self.joined:
            try:
                await server.require(checks)
            except Incompatible as error:
                self._dismiss(server, str(error))
            except Unavailable as error:
                self._leave(server, error)

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
                self._succeeded(server, number)
                return completion
            except Busy as trouble:
                if server.in_flight > 1:  # it holds fewer than it was given
                    server.capacity = server.in_flight - 1
                else:
                    self._leave(server, trouble)
            except Unavailable as trouble:
                failures += trouble.counts and first_failure is not None and self._answered > first_failure
                first_failure = self._asked if first_failure is None else first_failure
                if failures >= (1 if isinstance(trouble, Refused) else MAX_ATTEMPTS):
                    return Completion(request.id, "", "error", error=f"asked {failures} times: {trouble}")
                server.proven = server.proven and not trouble.counts
                retried = not trouble.counts  # others first: they show whose fault it is
                self._leave(server, trouble)
            except Incompatible as error:
                self._dismiss(server, str(error))
            finally:
                server.in_flight -= 1
                self._wake(1)

    def _succeeded(self, server: Server, number: int) -> None:
        self._answered = max(self._answered, number)
        if not server.proven:
            self._log(f"{server.url}: available again")
            self._wake(server.capacity)
        server.failures, server.proven = 0, True

    async def _with_room(self, first: bool) -> Server:
        """The server with the largest share of its capacity free; waits until there is one."""
        while (best := max(self._servers.values(), key=_room, default=None)) is None or best.room <= 0:
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
            if url not in self._keepers:
                limit = self._timeouts.answer
                self._servers[url] = Server(address, self._protocol, self._http, self._capacity, limit)
                self._keepers[url] = asyncio.create_task(self._keep(self._servers[url]))
        for url in self._keepers.keys() - known.keys():
            if not self._servers[url].joined and not self._servers[url].in_flight:
                self._keepers.pop(url).cancel()
                del self._servers[url]
                self.unavailable.pop(url, None)
                self.incompatible.pop(url, None)

    async def _keep(self, server: Server) -> None:
        """Admit a server when it is well, wait until it fails, and again."""
        while True:
            try:
                await server.admit(self._checks)
            except Unavailable as trouble:
                self._note(server, trouble)
                server.failures += 1
                await asyncio.sleep(self._pause(server, trouble.retry_after_seconds))
                continue
            except Incompatible as error:
                self._dismiss(server, str(error))
                if not self._source.changes:
                    return
                await asyncio.sleep(_LONGEST_PAUSE)  # another may come to the same address
                continue
            except Exception as error:  # noqa: BLE001 - whatever it sent: the others can be asked
                self._dismiss(server, f"it sent what cannot be read ({type(error).__name__})")
                return
            back = self.unavailable.pop(server.url, None) is not None
            self.incompatible.pop(server.url, None)
            server.left.clear()
            server.joined = True
            if server.proven:
                server.failures = 0
                if back:
                    self._log(f"{server.url}: available again")
            self._changed.set()
            self._wake(server.capacity)
            await server.left.wait()
            await asyncio.sleep(self._pause(server, server.retry_after_seconds))

    def _pause(self, server: Server, asked: float) -> float:
        """Seconds until it is tried again: doubling, with jitter, at least what it asks for."""
        doubled = self._timeouts.first_pause * 2.0 ** min(server.failures - 1, 10)
        return max(asked, min(_LONGEST_PAUSE, doubled) * random.uniform(0.5, 1.0))

    def _leave(self, server: Server, trouble: Unavailable) -> None:
        if server.joined:
            server.joined = False
            server.failures += 1
            server.retry_after_seconds = trouble.retry_after_seconds
            server.left.set()
            self._note(server, trouble)

    def _note(self, server: Server, trouble: Unavailable) -> None:
        """Say once why a server is not in use; a local one that died or hangs is started again."""
        reason = str(trouble)
        if told := self._source.repair(server.url, hung=trouble.hung):
            self._log(told)
        elif self.unavailable.get(server.url) != reason:
            self._log(f"{server.url}: {reason}; suspended, and tried again later")
        self.unavailable[server.url] = reason
        self.incompatible.pop(server.url, None)
        self._changed.set()

    def _dismiss(self, server: Server, reason: str) -> None:
        server.joined = False
        self.unavailable.pop(server.url, None)
        if server.url not in self.incompatible:
            self._log(f"{server.url}: {reason}; it is not used")
        self.incompatible[server.url] = reason
        self._changed.set()

    async def _scan_again(self) -> None:
        while self._source.changes:
            await asyncio.sleep(_SCAN_SECONDS)
            with suppress(OSError):  # a file server may be away for a while
                self._scan()

    async def _watch(self) -> None:
        """Report when no server has worked for too long, or none can come any more."""
        while True:
            await asyncio.sleep(min(1.0, max(0.05, self._timeouts.no_server / 4)))
            hopeless = not self._source.changes and len(self.incompatible) == len(self._servers)
            hopeless = hopeless or self._source.failed is not None
            if self.well and not hopeless:
                self._last_well = time.monotonic()
            elif hopeless or time.monotonic() - self._last_well > self._timeouts.no_server:
                self._on_lost(self.why())

    def why(self) -> str:
        """Why there is no server, in their words."""
        if self._source.failed:
            return self._source.failed
        reasons = {**self.unavailable, **self.incompatible}
        if not reasons:
            return f"no server has come to {self._source.shown}"
        shown = [f"{url}: {why}" for url, why in list(reasons.items())[:3]]
        return "; ".join(shown) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")

    async def close(self) -> None:
        tasks = [*self._keepers.values(), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _room(server: Server) -> float:
    return server.room
