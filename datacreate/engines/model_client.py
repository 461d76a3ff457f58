"""The client of a model. It hands requests to a pool of servers in an event loop on its own thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from datacreate.engines import EngineOptions
from datacreate.engines.chat_api import ChatApi
from datacreate.engines.request import Completion, Messages, Request, ServerTest
from datacreate.engines.server import Server
from datacreate.engines.server_pool import ServerPool
from datacreate.engines.server_sources import ServerSource
from datacreate.formats.example import Json
from datacreate.messages import Notify, no_notify

T = TypeVar("T")

_CHECK_SECONDS = 0.5  # between two checks whether the run must stop


class ModelClient:
    """Sends requests to all servers of one model, and returns their completions.

    It streams: requests are submitted one at a time, and completions are returned as they finish, so that the
    servers' batches stay full (continuous batching). It starts its servers, or connects to them, when a method
    first needs them. Methods raise EngineError when no server can be used, and ServersUnavailable when none can
    be reached. Requests never go through a proxy. `notify` is called in the thread of the event loop.
    """

    def __init__(self, source: ServerSource, api: ChatApi, options: EngineOptions, notify: Notify = no_notify) -> None:
        self._source = source
        self._api = api
        self._pool = ServerPool(source, api, options, notify)
        self._unfinished: dict[int, Future[Completion]] = {}
        self._finished: SimpleQueue[Future[Completion]] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    @property
    def slots(self) -> int:
        """How many requests the servers process at once."""
        return sum(server.slots for server in self._active_servers())

    @property
    def max_in_flight(self) -> int:
        """How many requests keep the servers busy."""
        return sum(server.max_in_flight for server in self._active_servers())

    @property
    def max_context(self) -> int:
        """The maximum number of tokens of a prompt and its completion together."""
        return min(server.max_context for server in self._active_servers())

    @property
    def enforces_longest_text(self) -> bool:
        """Whether the servers end a text that is longer than `Sampling.longest_text`."""
        return all(server.enforces_longest_text for server in self._active_servers())

    @property
    def settings(self) -> dict[str, Any]:
        """For config.json: model, slots, versions, `urls` of remote servers."""
        servers = self._active_servers()
        versions = dict.fromkeys(server.version for server in servers if server.version)
        return {
            "model": servers[0].model,
            **({"urls": [server.url for server in servers]} if self._source.remote else {}),
            "max_num_seqs": [server.slots for server in servers],
            "max_model_len": self.max_context,
            "chat_template": dict(self._api.template_kwargs),
            "thinking": self._api.thinking.model_dump(include={"enable", "disable"}),
            **({"server": ", ".join(versions)} if versions else {}),
            **self._source.record,
        }

    def count_tokens(self, messages: Messages) -> int:
        """The length of the prompt in tokens, including the chat template."""
        return self._query(lambda server: server.count_tokens(messages))

    def needs_letters(self, labels: Sequence[Json]) -> bool:
        """Whether letters stand for these labels when they are scored: several begin with the same token."""
        tokens = self._query(lambda server: server.first_tokens(tuple(map(str, labels)))) if labels else ()
        return tokens is None or -1 in tokens or len(set(tokens)) < len(tokens)

    def _query(self, ask: Callable[[Server], Coroutine[Any, Any, T]]) -> T:
        """What one server answers to a query without generation."""
        self._active_servers()
        return self._run(self._pool.query(ask))

    def start(self, tests: Sequence[ServerTest] = ()) -> None:
        """Return when the servers run and pass these tests."""
        self._active_servers()
        self._run(self._pool.run_tests(tests))

    def submit(self, request: Request) -> None:
        """Send a request; `poll` returns its completion."""
        self._active_servers()
        assert self._loop
        future = asyncio.run_coroutine_threadsafe(self._pool.complete(request), self._loop)
        self._unfinished[request.id] = future
        future.add_done_callback(self._finished.put)

    def poll(self, timeout_seconds: float) -> list[Completion]:
        """Completions finished since the last call, waiting up to `timeout_seconds` for one."""
        completions: list[Completion] = []
        with suppress(Empty):
            future = self._finished.get(timeout=timeout_seconds)
            while True:
                if not future.cancelled():
                    completions.append(future.result())
                    self._unfinished.pop(completions[-1].request_id, None)
                future = self._finished.get_nowait()
        if not completions:
            self._pool.raise_fatal_error()
        return completions

    def abort(self, request_ids: Iterable[int]) -> None:
        """Cancel requests; unfinished ones give no completion."""
        for request_id in request_ids:
            if future := self._unfinished.pop(request_id, None):
                future.cancel()

    def close(self) -> None:
        """Stop servers and free resources; safe to call twice."""
        if self._loop and self._thread:
            with suppress(TimeoutError):  # the daemon thread ends with the process in any case
                asyncio.run_coroutine_threadsafe(self._pool.close(), self._loop).result(timeout=10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)
        self._loop = self._thread = None
        self._source.stop()

    def _active_servers(self) -> list[Server]:
        """The servers in use, or the last ones used. The first call starts or connects to them."""
        if self._loop is None:
            self._source.start()
            self._loop = asyncio.new_event_loop()
            self._thread = Thread(target=self._loop.run_forever, name="servers", daemon=True)
            self._thread.start()
            self._run(self._pool.connect())
        if not self._pool.active_servers:
            raise self._pool.no_server_error()
        return self._pool.active_servers

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs in the event loop."""
        assert self._loop
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while not wait([future], _CHECK_SECONDS).done:
                self._pool.raise_fatal_error()
            return future.result()
        finally:
            future.cancel()
