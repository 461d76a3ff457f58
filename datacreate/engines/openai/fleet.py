"""Many servers as one: each request to whoever has room, and again elsewhere when that one fails.

A server that fails gets no new requests for a while that doubles each time, with a random part,
so that many runs do not come back at once. Then it is tested like a new one and let in again.
Everything here runs in one event loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from datacreate.engines.base import Completion, Request
from datacreate.engines.openai.addresses import Address, Addresses
from datacreate.engines.openai.server import Server
from datacreate.engines.openai.wire import Full, Unfit, Unwell, Wire

if TYPE_CHECKING:
    import aiohttp

MOST_ATTEMPTS = 5
"""Failed answers to one request after which it, and no longer the server, is held to be the reason."""

_LONGEST_REST = 30.0

_LOOK_SECONDS = 2.0
"""How often a folder of servers is looked at."""

_STRAGGLERS_SECONDS = 20.0
"""How long, at the start, servers that answer wait for those that have not said anything."""


@dataclass(frozen=True)
class Patience:
    """Seconds: for one answer, and with no server at all; `at_start` where that begins before the first.

    `servers` is how many are waited for, at most so long, before the first request.
    """

    answer: float = 300.0
    alone: float = 300.0
    at_start: bool = False
    servers: int = 1
    first_rest: float = 0.5


USUAL = Patience()


class Fleet:
    """The servers of one model."""

    def __init__(
        self,
        addresses: Addresses,
        wire: Wire,
        session: aiohttp.ClientSession,
        patience: Patience,
        capacity: int | None,
        say: Callable[[str], None],
        gone: Callable[[str], None],
    ) -> None:
        self._addresses = addresses
        self._wire = wire
        self._session = session
        self._patience = patience
        self._capacity = capacity
        self._say = say
        self._gone = gone
        self.servers: dict[str, Server] = {}
        self.unfit: dict[str, str] = {}
        self.troubles: dict[str, str] = {}  # of those that are not in, why
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._changed = asyncio.Event()
        self._since = time.monotonic()  # with no server in
        self._background: list[asyncio.Task[None]] = []

    @property
    def joined(self) -> list[Server]:
        # A list first, made in one step: the run's own thread asks, too, while servers come and go.
        return [server for server in list(self.servers.values()) if server.joined]

    async def gather(self) -> None:
        """Test all servers; returns when all are in, have failed, or keep the others waiting."""
        self._look()
        self._background = [asyncio.create_task(self._look_again())]
        began = time.monotonic()
        if len(self.servers) < self._patience.servers:
            awaited = "a server" if self._patience.servers == 1 else f"{self._patience.servers} servers"
            seconds = self._patience.alone
            self._say(f"waiting for {awaited} to come to {self._addresses.shown}, for up to {seconds:.0f} s")
        while not self._gathered(time.monotonic() - began):
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _LOOK_SECONDS)
        self._since = time.monotonic()
        self._background.append(asyncio.create_task(self._watch()))

    def _gathered(self, seconds: float) -> bool:
        enough = len(self.joined) >= self._patience.servers
        patience = self._patience.alone if self._patience.at_start else 0.0
        heard = self.troubles.keys() | self.unfit.keys()
        if all(each.joined or each.url in heard for each in self.servers.values()):
            hopeful = bool(self._addresses.folders) or not self.unfit
            return enough or not hopeful or seconds >= patience
        return bool(self.joined) and seconds > (_STRAGGLERS_SECONDS if enough else patience)

    async def answer(self, request: Request) -> Completion:
        """The answer of one of them, however often it must be asked for."""
        failed, again = 0, False
        while True:
            server = await self._with_room(again)
            again = True
            server.out += 1
            try:
                completion = await server.ask(request)
                server.held()
                return completion
            except Full as trouble:
                server.overflowed()
                self._rest_a_while(server, trouble)
            except Unwell as trouble:
                failed += trouble.counts
                self._leave(server, str(trouble), trouble.after)
                if failed >= MOST_ATTEMPTS:
                    said = f"asked {failed} times, the last answer: {trouble}"
                    return Completion(request.id, "", "error", error=said)
            except Unfit as flaw:
                self._dismiss(server, str(flaw))
            finally:
                server.out -= 1
                self._wake(1)

    async def _with_room(self, again: bool) -> Server:
        """The server with the largest share of its capacity free; waits until there is one."""
        while (best := max(self.servers.values(), key=_room, default=None)) is None or best.room <= 0:
            turn = asyncio.get_running_loop().create_future()
            # What was asked before is waited for by all that came after it.
            (self._waiting.appendleft if again else self._waiting.append)(turn)
            await turn
            again = True
        return best

    def _wake(self, number: int) -> None:
        while self._waiting and number > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                number -= 1

    def _look(self) -> None:
        """Take note of servers that are new; forget those that are gone and published no longer."""
        known = self._addresses.now()
        for address in known:
            if address.url not in self._keepers:
                self.servers[address.url] = self._server(address)
                self._keepers[address.url] = asyncio.create_task(self._keep(self.servers[address.url]))
        for url in self._keepers.keys() - {address.url for address in known}:
            if not self.servers[url].joined and not self.servers[url].out:
                self._keepers.pop(url).cancel()
                del self.servers[url]
                self.troubles.pop(url, None)
                self.unfit.pop(url, None)

    def _server(self, address: Address) -> Server:
        return Server(address, self._wire, self._session, self._capacity, self._patience.answer)

    async def _keep(self, server: Server) -> None:
        """Let a server in when it is well, wait until it fails, and again."""
        while True:
            try:
                await server.admit()
            except Unwell as trouble:
                self._note(server, str(trouble))
                server.failures += 1
                await asyncio.sleep(self._rest(server, trouble.after))
                continue
            except Unfit as flaw:
                self._dismiss(server, str(flaw))
                if not self._addresses.folders:
                    return
                await asyncio.sleep(_LONGEST_REST)  # another may come to the same address
                continue
            except Exception as error:  # noqa: BLE001 - whatever it sent: the others can be asked
                self._dismiss(server, f"it sent what cannot be read ({type(error).__name__})")
                return
            back = self.troubles.pop(server.url, None) is not None
            self.unfit.pop(server.url, None)
            server.left.clear()
            server.joined, server.failures = True, 0
            if back:
                self._say(f"{server.url}: answers, and is asked again")
            self._changed.set()
            self._wake(server.capacity)
            await server.left.wait()
            await asyncio.sleep(self._rest(server, server.asks_for))

    def _rest(self, server: Server, asked: float) -> float:
        """Seconds until it is tried again: doubling, with jitter, at least what it asks for."""
        doubled = self._patience.first_rest * 2.0 ** min(server.failures - 1, 10)
        return max(asked, min(_LONGEST_REST, doubled) * random.uniform(0.5, 1.0))

    def _rest_a_while(self, server: Server, trouble: Full) -> None:
        """Give a full server nothing new for a while; one that stays full is left like one that is ill."""
        if server.resting:  # one of many that it refused at the same moment
            return
        server.failures += 1
        if server.failures > MOST_ATTEMPTS:
            self._leave(server, str(trouble), trouble.after)
        else:
            server.resting = True
            asyncio.get_running_loop().call_later(self._rest(server, trouble.after), self._rested, server)

    def _rested(self, server: Server) -> None:
        server.resting = False
        self._wake(server.capacity)

    def _leave(self, server: Server, why: str, after: float) -> None:
        if server.joined:
            server.joined = False
            server.failures += 1
            server.asks_for = after
            server.left.set()
            self._note(server, why)

    def _note(self, server: Server, why: str) -> None:
        """Say once why a server is not in."""
        if self.troubles.get(server.url) != why:
            self._say(f"{server.url}: {why}; it is left, and tried again")
        self.troubles[server.url] = why
        self.unfit.pop(server.url, None)
        self._changed.set()

    def _dismiss(self, server: Server, why: str) -> None:
        server.joined = False
        self.troubles.pop(server.url, None)
        if server.url not in self.unfit:
            self._say(f"{server.url}: {why}; it is not asked any more")
        self.unfit[server.url] = why
        self._changed.set()

    async def _look_again(self) -> None:
        while self._addresses.folders:
            await asyncio.sleep(_LOOK_SECONDS)
            with suppress(OSError):  # a file server may be away for a while
                self._look()

    async def _watch(self) -> None:
        """Say so when there has been no server for too long, or none can come any more."""
        while True:
            await asyncio.sleep(min(1.0, max(0.05, self._patience.alone / 4)))
            if self.joined:
                self._since = time.monotonic()
                continue
            hopeless = not self._addresses.folders and len(self.unfit) == len(self.servers)
            if hopeless or time.monotonic() - self._since > self._patience.alone:
                self._gone(self.why())

    def why(self) -> str:
        """Why there is no server, in their words."""
        said = {**self.troubles, **self.unfit}
        if not said:
            return f"no server has come to {self._addresses.shown}"
        shown = [f"{url}: {why}" for url, why in list(said.items())[:3]]
        return "; ".join(shown) + (f"; and {len(said) - 3} more" if len(said) > 3 else "")

    async def disband(self) -> None:
        tasks = [*self._keepers.values(), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _room(server: Server) -> float:
    return server.room
