"""The engine that a run uses. It hands requests to a pool of servers in an event loop on its own thread."""

from __future__ import annotations

import asyncio
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


class HttpEngine:
    """An `Engine` that sends requests to OpenAI-compatible servers.

    It starts or connects to the servers on first use. That raises EngineError if no server can be used and
    ServersGone if none can be reached; `poll` raises the same later. Requests never go through a proxy.
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
        self._max_context = max_context
        self._notify = notify
        self._messages: SimpleQueue[str] = SimpleQueue()
        self._pool = Pool(source, protocol, timeouts or Timeouts(), capacity, self._messages.put)
        self._asked: dict[int, Future[Completion]] = {}
        self._done: SimpleQueue[Future[Completion]] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

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
            **({"urls": list(self.urls)} if self._source.remote else {}),
            "max_num_seqs": [server.capacity for server in members],
            "max_model_len": self.max_context,
            "chat_template": dict(self._protocol.template_kwargs),
            **({"server": ", ".join(versions)} if versions else {}),
            **self._source.record,
        }

    @property
    def max_context(self) -> int:
        least = min(server.max_context for server in self._members())
        return min(least, self._max_context or least)

    @property
    def model(self) -> str:
        """The servers' name for the model."""
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
        self._run(self._pool.require(checks))

    def submit(self, request: Request) -> None:
        self._members()
        assert self._loop
        asked = asyncio.run_coroutine_threadsafe(self._pool.answer(request), self._loop)
        self._asked[request.id] = asked
        asked.add_done_callback(self._done.put)

    def poll(self, timeout_seconds: float) -> list[Completion]:
        completions: list[Completion] = []
        with suppress(Empty):
            asked = self._done.get(timeout=timeout_seconds)
            while True:
                if not asked.cancelled():
                    completions.append(self._result_of(asked))
                asked = self._done.get_nowait()
        self._pass_messages()
        if self._pool.lost and not self._pool.healthy and not completions:
            raise self._pool.lost
        return completions

    def _result_of(self, asked: Future[Completion]) -> Completion:
        try:
            completion = asked.result()
        except Exception as error:
            raise EngineError(f"cannot read an answer: {error!r}") from error
        self._asked.pop(completion.request_id, None)
        return completion

    def _pass_messages(self) -> None:
        while not self._messages.empty():
            self._notify(self._messages.get())

    def abort(self, request_ids: Iterable[int]) -> None:
        for number in request_ids:
            if asked := self._asked.pop(number, None):
                asked.cancel()

    def close(self) -> None:
        if self._loop and self._thread:
            self._pass_messages()
            if self._loop.is_running():
                with suppress(TimeoutError):  # the daemon thread ends with the process in any case
                    asyncio.run_coroutine_threadsafe(self._pool.close(), self._loop).result(timeout=10)
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)
        self._loop = self._thread = None
        self._source.stop()

    def _members(self) -> list[Server]:
        """The servers in use, or the last ones used. The first call starts or connects to them."""
        if self._loop is None:
            self._source.start()
            self._loop = asyncio.new_event_loop()
            self._thread = Thread(target=self._loop.run_forever, name="servers", daemon=True)
            self._thread.start()
            self._run(self._pool.gather())
        if not self._pool.members:
            raise self._pool.no_server_error()
        return self._pool.members

    def _run(self, question: Coroutine[Any, Any, T]) -> T:
        assert self._loop
        asked: Future[T] = asyncio.run_coroutine_threadsafe(question, self._loop)
        try:
            while not wait([asked], timeout=_POLL_SECONDS).done:
                self._pass_messages()
        finally:
            asked.cancel()
            self._pass_messages()
        return asked.result()
