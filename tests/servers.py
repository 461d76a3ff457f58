"""OpenAI-compatible servers on loopback, that answer by a script: fast, and as unwell as a test wants."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any, Self

from aiohttp import web

from datacreate.engines.base import Request, Sampling
from tests.scripted import Script, answering, prove

MODEL = "scripted"

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Server:
    """One server in a thread of its own. What it does can be changed while it runs."""

    script: Script = field(default_factory=answering)
    model: str = MODEL
    latency: float = 0.0  # seconds an answer takes
    holds: int | None = None  # requests at once; one more is refused with 429
    obeys: bool = True  # whether it holds to schemas
    fault: Fault | None = None  # answers instead, if set
    key: str | None = None  # that it asks for
    port: int = 0
    asked: Counter[str] = field(default_factory=Counter)  # path -> requests
    answered: int = 0
    out: int = 0
    most_out: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    on_answer: Callable[[int], object] = lambda _: None  # told how many it has answered
    on_models: Callable[[int], object] = lambda _: None  # told how often its models were asked for
    system_role: bool = True  # whether its chat template has one
    card: dict[str, Any] | None = None  # of its model, if it is not the usual one

    def __enter__(self) -> Self:
        self._ready = Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Die: connections break, and nothing listens any more."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    def again(self) -> None:
        """Come back at the same address."""
        self.__enter__()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self.out = 0
        app = web.Application(client_max_size=2**24)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/version", self._version)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/chat/completions", self._chat)
        runner = web.AppRunner(app, shutdown_timeout=0.01, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self._ready.set()
        await self._stopping.wait()
        for connection in list(runner.server.connections if runner.server else ()):
            if connection.transport:
                connection.transport.abort()
        await runner.cleanup()

    def _refused(self, request: web.Request) -> web.Response | None:
        self.asked[request.path] += 1
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "wrong key"}}, status=401)
        return None

    async def _models(self, request: web.Request) -> web.Response:
        usual = {"id": self.model, "object": "model", "root": f"/models/{self.model}", "max_model_len": 4096}
        refused = self._refused(request)
        self.on_models(self.asked[request.path])
        return refused or web.json_response({"data": [self.card or usual]})

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "0.0 (scripted)"})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        text = body.get("prompt") or "".join(message["content"] for message in body.get("messages", ()))
        tokens = [ord(letter) for letter in text[::4]]
        return web.json_response({"tokens": tokens, "count": len(tokens), "max_model_len": 4096})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        body = await request.json()
        if body["model"] != self.model:
            return web.json_response({"error": {"message": "no such model"}}, status=404)
        self.bodies.append(body)
        if not self.system_role and body["messages"][0]["role"] == "system":
            return web.json_response({"error": {"message": "no role but user"}}, status=400)
        if self.holds is not None and self.out >= self.holds:
            return web.json_response({"error": {"message": "busy"}}, status=429)
        self.out += 1
        self.most_out = max(self.most_out, self.out)
        try:
            if self.latency:
                await asyncio.sleep(self.latency)
            if self.fault:
                return await self.fault(request)
            return web.json_response(self._answer(body))
        finally:
            self.out -= 1

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        if body.get("logprobs"):
            return self._scores(body)
        schema = body["response_format"]["json_schema"]["schema"]
        sampling = Sampling(body["max_tokens"])
        test = "Say good morning." in body["messages"][-1]["content"]
        number = -1 if test else self.answered
        asked = Request(number, body["messages"], json.dumps(schema), sampling)
        completion = (prove if test else self.script)(asked)
        if not test:
            self.answered += 1
            self.on_answer(self.answered)
        text = completion.text if self.obeys else "Good morning!"
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": completion.prompt_tokens, "completion_tokens": completion.generated_tokens}
        choice = {"index": 0, "message": message, "finish_reason": completion.finish_reason}
        return {"choices": [choice], "usage": usage}

    def _scores(self, body: dict[str, Any]) -> dict[str, Any]:
        tokens = body["logprob_token_ids"]
        likeliest = [
            {"token": f"token_id:{token}", "logprob": -0.1 if place == 0 else -3.0}
            for place, token in enumerate(tokens)
        ]
        content = [{"token": "A", "logprob": -0.1, "top_logprobs": likeliest}]
        choice = {"message": {"content": "A"}, "finish_reason": "length", "logprobs": {"content": content}}
        return {"choices": [choice], "usage": {"prompt_tokens": 20, "completion_tokens": 1}}


async def _serve(servers: list[Server]) -> None:
    for server in servers:
        server._ready = Event()
    running = [asyncio.create_task(server._serve()) for server in servers]
    while not all(server._ready.is_set() for server in servers):
        await asyncio.sleep(0.01)
    print(",".join(server.url for server in servers), flush=True)
    await asyncio.gather(*running)


def main() -> None:
    """`python -m tests.servers NUMBER SECONDS`: so many, each with that latency; prints their addresses."""
    number, latency = int(sys.argv[1]), float(sys.argv[2])
    asyncio.run(_serve([Server(answering(seed=port), latency=latency) for port in range(number)]))


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that another thread brings about."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


if __name__ == "__main__":
    main()
