"""The engine that a run uses: requests go to a thread with an event loop, where the pool lives."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from datacreate.engines.addresses import ServerSource
from datacreate.engines.base import Check, Completion, Messages, Request
from datacreate.engines.pool import Pool, Timeouts
from datacreate.engines.protocol import Incompatible, Protocol, Unavailable
from datacreate.engines.server import Server
from datacreate.errors import EngineError, ServersGone

T = TypeVar("T")

_POLL_SECONDS = 0.5

_KEEP_ALIVE_SECONDS = 4.0
"""Less than uvicorn's five, so that no request is sent into a connection that is just being closed."""


class HttpEngine:
    """An `Engine` whose model runs behind OpenAI-compatible servers.

    The servers are started or connected to at the first question that needs them; that raises
    EngineError if none can be used, ServersGone if none can be reached, and so does `poll` later. No
    request goes through a proxy.
    """

    def __init__(
        self,
        source: ServerSource,
        protocol: Protocol,
        *,
        capacity: int | None = None,
        max_context: int | None = None,
        timeouts: Timeouts | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._protocol = protocol
        self._capacity = capacity
        self._most_context = max_context
        self._timeouts = timeouts or Timeouts()
        self._notify = notify
        self._notes: SimpleQueue[str] = SimpleQueue()
        self._done: SimpleQueue[Completion | Exception] = SimpleQueue()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._pool: Pool | None = None
        self._last: list[Server] = []  # those in use when one last was

    @property
    def capacity(self) -> int:
        return max(1, sum(server.capacity for server in self._members()))

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(server.url for server in self._members()) if self._source.remote else ()

    @property
    def settings(self) -> dict[str, Any]:
        members = self._members()
        versions = dict.fromkeys(server.version for server in members if server.version)
        return {
            "model": self.model,
            **({"urls": [server.url for server in members]} if self._source.remote else {}),
            "max_num_seqs": [server.capacity for server in members],
            "max_model_len": self.max_context,
            "chat_template": dict(self._protocol.template_kwargs),
            **({"server": ", ".join(versions)} if versions else {}),
            **self._source.record,
        }

    @property
    def max_context(self) -> int:
        least = min(server.max_context for server in self._members())
        return min(least, self._most_context or least)

    @property
    def model(self) -> str:
        """What the servers call the model."""
        return self._members()[0].model

    def count_tokens(self, messages: Messages) -> int:
        return self._ask(lambda server: server.count_tokens(messages))

    def tells_apart(self, choices: Sequence[str]) -> bool:
        tokens = self._ask(lambda server: server.first_tokens(tuple(choices)))
        return tokens is not None and -1 not in tokens and len(set(tokens)) == len(tokens)

    def _ask(self, ask: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        server = self._members()[0]
        try:
            return self._run(ask(server))
        except Incompatible as error:
            raise EngineError(f"{server.url}: {error}") from None
        except Unavailable as error:
            raise ServersGone(f"{server.url}: {error}; run the same command to resume") from None

    def start(self, checks: Sequence[Check] = ()) -> None:
        self._members()
        assert self._pool
        self._run(self._pool.require(checks))
        if not self._pool.joined and self._pool.incompatible:
            raise self._lost(self._pool.why())

    def submit(self, request: Request) -> None:
        self._members()
        assert self._loop
        self._loop.call_soon_threadsafe(self._begin, request)

    def _begin(self, request: Request) -> None:
        self._tasks[request.id] = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: Request) -> None:
        assert self._pool
        try:
            self._done.put(await self._pool.answer(request))
        except Exception as error:  # noqa: BLE001 - a fault of ours: it ends the run, in the run's thread
            self._done.put(error)
        finally:
            del self._tasks[request.id]

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
            self._pass_notes()
        return completions

    def _taken(self, answer: Completion | Exception) -> Completion | None:
        """The completion; None for word that no server is left, if one works again meanwhile."""
        if isinstance(answer, EngineError):
            assert self._pool
            if self._pool.well:
                return None
            raise answer
        if isinstance(answer, Exception):
            raise EngineError(f"an answer could not be read: {answer!r}") from answer
        return answer

    def _pass_notes(self) -> None:
        while not self._notes.empty():
            self._notify(self._notes.get())

    def abort(self, request_ids: Iterable[int]) -> None:
        if self._loop and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._cancel, list(request_ids))

    def _cancel(self, request_ids: list[int]) -> None:
        for number in request_ids:
            if task := self._tasks.get(number):
                task.cancel()

    def close(self) -> None:
        if self._loop and self._thread:
            self._pass_notes()
            if self._loop.is_running():
                with suppress(TimeoutError):  # the thread ends with the process, whatever it hangs on
                    asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result(timeout=10)
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)
        self._loop = self._thread = self._pool = None
        self._source.stop()

    async def _leave(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._pool:
            await self._pool.close()
            await self._http.aclose()

    def _members(self) -> list[Server]:
        """The servers in use, or the last that were; at the first call they are started or connected to."""
        if self._pool is None:
            self._source.start()
            self._loop = asyncio.new_event_loop()
            self._thread = Thread(target=self._loop.run_forever, name="servers", daemon=True)
            self._thread.start()
            self._run(self._connect())
        assert self._pool
        if joined := self._pool.joined:
            self._last = joined
        elif not self._last:
            raise self._lost(self._pool.why())
        return self._last

    async def _connect(self) -> None:
        import httpx2

        authorization = {"Authorization": f"Bearer {self._source.key}"} if self._source.key else {}
        self._http = httpx2.AsyncClient(
            headers={"Accept-Encoding": "identity"} | authorization,
            follow_redirects=False,
            trust_env=False,  # no proxies; SSL_CERT_FILE is read by the context
            verify=ssl.create_default_context(),
            timeout=httpx2.Timeout(None, connect=20.0),  # of answers: see Server
            limits=httpx2.Limits(max_connections=None, keepalive_expiry=_KEEP_ALIVE_SECONDS),
        )
        self._pool = Pool(
            self._source,
            self._protocol,
            self._http,
            self._timeouts,
            self._capacity,
            self._notes.put,
            lambda why: self._done.put(self._lost(why)),
        )
        await self._pool.gather()

    def _lost(self, why: str) -> EngineError:
        """What ends a run without servers: for good if none of them can be used."""
        assert self._pool
        if self._pool.incompatible and not self._pool.unavailable:
            return EngineError(f"no server can be used: {why}")
        return ServersGone(f"no server answers: {why}; run the same command to resume")

    def _run(self, question: Coroutine[Any, Any, T]) -> T:
        assert self._loop
        asked: Future[T] = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            while not wait([asked], timeout=_POLL_SECONDS).done:
                self._pass_notes()
        finally:
            asked.cancel()
            self._pass_notes()
        return asked.result()


def served_model(source: ServerSource, timeouts: Timeouts, notify: Callable[[str], None]) -> str:
    """The one model that the servers serve, asked of the first that answers.

    Raises ServersGone if none does, EngineError if it serves several models.
    """
    engine = HttpEngine(source, Protocol(()), timeouts=timeouts, notify=notify)
    try:
        return engine.model
    finally:
        engine.close()
