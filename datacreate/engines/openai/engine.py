"""The `Engine` that a run sees: it hands requests to a thread, where the fleet lives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from datacreate.engines.base import Completion, Messages, Request
from datacreate.engines.openai.addresses import KEY, Addresses
from datacreate.engines.openai.fleet import USUAL, Fleet, Patience
from datacreate.engines.openai.server import USUAL_CAPACITY, Server
from datacreate.engines.openai.wire import Unfit, Unwell, Wire
from datacreate.errors import EngineError, ServersGone

T = TypeVar("T")

_POLL_SECONDS = 0.5

_IDLE_CONNECTIONS_SECONDS = 4.0
"""Less than uvicorn's five, so that no request is sent into a connection that is just being closed."""


class ServedEngine:
    """An `Engine` whose model runs behind OpenAI-compatible servers.

    They are looked for at the first question, and that raises EngineError if none of them will do,
    ServersGone if none can be reached; so does `poll` later. Nothing goes through a proxy, and the
    key is read from the environment alone.
    """

    def __init__(
        self,
        addresses: Addresses,
        wire: Wire,
        *,
        max_num_seqs: int | None = None,
        max_context: int | None = None,
        patience: Patience = USUAL,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._addresses = addresses
        self._wire = wire
        self._capacity = max_num_seqs
        self._most_context = max_context
        self._patience = patience
        self._note = note
        self._notes: SimpleQueue[str] = SimpleQueue()
        self._done: SimpleQueue[Completion | Exception] = SimpleQueue()
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._fleet: Fleet | None = None
        self._last: list[Server] = []  # those that were in when one last was

    @property
    def capacity(self) -> int:
        joined = self._members()
        return sum(server.capacity for server in joined) or USUAL_CAPACITY

    @property
    def copies(self) -> int:
        return 1

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(server.url for server in self._members())

    @property
    def has_chat_template(self) -> bool:
        return True  # servers are asked by chat

    @property
    def settings(self) -> dict[str, Any]:
        joined = self._members()
        told = {
            "engine": "openai",
            "model": self.model,
            "urls": [server.url for server in joined],
            "max_num_seqs": [server.capacity for server in joined],
            "max_model_len": self.max_context,
            "chat_template": dict(self._wire.template),
        }
        versions = dict.fromkeys(server.version for server in joined if server.version)
        return told | ({"server": ", ".join(versions)} if versions else {})

    @property
    def max_context(self) -> int:
        least = min(server.max_context for server in self._members())
        return min(least, self._most_context or least)

    @property
    def model(self) -> str:
        """What the servers call the model."""
        return self._members()[0].model

    def count_tokens(self, messages: Messages) -> int:
        return self._asking(lambda server: server.count_tokens(messages))

    def tells_apart(self, choices: Sequence[str]) -> bool:
        tokens = self._asking(lambda server: server.first_tokens(tuple(choices)))
        return tokens is not None and -1 not in tokens and len(set(tokens)) == len(tokens)

    def _asking(self, ask: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        try:
            return self._run(ask(self._members()[0]))
        except Unfit as flaw:
            raise EngineError(f"{self._members()[0].url}: {flaw}") from None
        except Unwell as trouble:
            raise ServersGone(f"{self._members()[0].url}: {trouble}; run the same command to go on") from None

    def start(self) -> None:
        self._members()
        self._tell()

    def submit(self, request: Request) -> None:
        self._members()
        assert self._loop
        self._loop.call_soon_threadsafe(self._begin, request)

    def _begin(self, request: Request) -> None:
        self._asked[request.id] = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        assert self._fleet
        try:
            self._done.put(await self._fleet.answer(request))
        except Exception as error:  # noqa: BLE001 - a fault of ours: it ends the run, in the run's thread
            self._done.put(error)
        finally:
            del self._asked[request.id]

    def poll(self, timeout_seconds: float) -> list[Completion]:
        completions: list[Completion] = []
        try:
            answer = self._done.get(timeout=timeout_seconds)
            while (completion := self._taken(answer)) is not None:
                completions.append(completion)
                answer = self._done.get_nowait()
        except Empty:
            pass
        finally:
            self._tell()
        return completions

    def _taken(self, answer: Completion | Exception) -> Completion | None:
        """The completion; None for word that no server is left, if one has come back meanwhile."""
        if isinstance(answer, EngineError):
            assert self._fleet
            if self._fleet.joined:
                return None
            raise answer
        if isinstance(answer, Exception):
            raise EngineError(f"the servers' answers could not be read: {answer!r}") from answer
        return answer

    def _tell(self) -> None:
        while not self._notes.empty():
            self._note(self._notes.get())

    def abort(self, request_ids: Iterable[int]) -> None:
        if self._loop and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._cancel, list(request_ids))

    def _cancel(self, request_ids: list[int]) -> None:
        for number in request_ids:
            if task := self._asked.get(number):
                task.cancel()  # the connection closes, and with it the server gives the request up

    def close(self) -> None:
        if self._loop and self._thread:
            self._tell()
            if self._loop.is_running():
                with suppress(TimeoutError):  # the thread ends with the process, whatever it hangs on
                    asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(timeout=10)
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)
        self._loop = self._thread = self._fleet = None

    async def _leave(self) -> None:
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._fleet:
            await self._fleet.disband()
        await self._session.close()

    def _members(self) -> list[Server]:
        """The servers that are in, or the last that were; at the first call they are looked for."""
        if self._fleet is None:
            self._loop = asyncio.new_event_loop()
            self._thread = Thread(target=self._loop.run_forever, name="servers", daemon=True)
            self._thread.start()
            self._run(self._connect())
        assert self._fleet
        if joined := self._fleet.joined:
            self._last = joined
        elif not self._last:
            raise self._gone(self._fleet.why())
        return self._last

    async def _connect(self) -> None:
        import aiohttp

        key = os.environ.get(KEY, "").strip()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_CONNECTIONS_SECONDS),
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        fleet = Fleet(
            self._addresses,
            self._wire,
            self._session,
            self._patience,
            self._capacity,
            self._notes.put,
            lambda why: self._done.put(self._gone(why)),
        )
        self._fleet = fleet
        await fleet.gather()

    def _gone(self, why: str) -> EngineError:
        """What ends a run without servers: for good if none of them will do."""
        assert self._fleet
        if self._fleet.unfit and not self._fleet.troubles:
            return EngineError(f"no server will do: {why}")
        return ServersGone(f"no server answers: {why}; run the same command to go on when they answer")

    def _run(self, question: Coroutine[Any, Any, T]) -> T:
        assert self._loop
        asked: Future[T] = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            while not wait([asked], timeout=_POLL_SECONDS).done:
                self._tell()
        finally:
            asked.cancel()
            self._tell()
        return asked.result()


def served_model(addresses: Addresses, patience: Patience, note: Callable[[str], None]) -> str:
    """The one model that the servers serve, asked of the first that answers.

    Raises ServersGone if none does, EngineError if it serves several models.
    """
    engine = ServedEngine(addresses, Wire(()), patience=patience, note=note)
    try:
        return engine.model
    finally:
        engine.close()
