"""One server: asked over HTTP, and used once it has shown that it does what a run needs.

Nothing that a server sends can hurt: redirects are not followed, responses are read up to a limit and
never decompressed, numbers are clamped, and every name is checked before it is used.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datacreate.engines.addresses import Address
from datacreate.engines.base import Check, Completion, Messages, Request
from datacreate.engines.protocol import (
    Busy,
    Incompatible,
    Protocol,
    Refused,
    Unavailable,
    read,
    refusal,
    said,
)  # fmt: skip
from datacreate.engines.self_test import schema_enforced

if TYPE_CHECKING:
    import httpx2

DEFAULT_CAPACITY = 64
"""Requests in flight at a server that does not say how many it works on at once; it queues the rest."""

DEFAULT_CONTEXT = 4096
"""Tokens of context of a server that does not say."""

_GLANCE_SECONDS = 20.0
"""How long a server may take to connect, or to say what it serves."""

_KEEP_ALIVE_SECONDS = 4.0
"""Less than uvicorn's five, so that no request is sent into a connection that is just being closed."""

_TEST_SECONDS = 120.0
"""How long it may take over one request of the self-test, however busy it is."""

_MOST_BYTES = 8 * 2**20
"""The largest response that is read; an answer with logprobs has some 100 kB."""


def client(key: str) -> httpx2.AsyncClient:
    """What servers are asked with; `key` is theirs, or empty."""
    import httpx2

    return httpx2.AsyncClient(
        headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {}),
        follow_redirects=False,
        trust_env=False,  # no proxies; SSL_CERT_FILE is read by the context
        verify=ssl.create_default_context(),
        timeout=httpx2.Timeout(None, connect=_GLANCE_SECONDS),  # of answers: see Server
        limits=httpx2.Limits(max_connections=None, keepalive_expiry=_KEEP_ALIVE_SECONDS),
    )


class Server:
    """What is known of one server, and its HTTP."""

    def __init__(
        self,
        address: Address,
        protocol: Protocol,
        http: httpx2.AsyncClient,
        capacity: int | None,
        timeout_seconds: float,
    ) -> None:
        self.url = address.url
        self.max_context = DEFAULT_CONTEXT
        self.version = ""
        self.in_flight = 0
        self.left = asyncio.Event()  # set while it is not to be asked: it has not passed the self-test
        self.left.set()
        self.proven = True  # no real request has failed since one last succeeded
        self.trouble: Unavailable | Incompatible | None = None  # the last, until it is well again
        self.failures = 0  # in a row
        self._told_capacity = capacity or address.max_num_seqs
        self.capacity = self._told_capacity or DEFAULT_CAPACITY
        self._unproven_protocol = protocol
        self._protocol = protocol
        self._http = http
        self._timeout_seconds = timeout_seconds
        self._last_answer = 0.0
        self._first_tokens: dict[str, int] = {}

    @property
    def model(self) -> str:
        """What it calls the model."""
        return self._protocol.names[0]

    @property
    def joined(self) -> bool:
        """Whether it passed the self-test, and may be asked."""
        return not self.left.is_set()

    @property
    def refused(self) -> bool:
        """Whether it cannot be used, however often it is asked."""
        return not self.joined and isinstance(self.trouble, Incompatible)

    @property
    def room(self) -> float:
        """The share of its capacity that is free; 0 or less if it is not to be asked."""
        limit = self.capacity if self.proven else 1  # after a failure, one request at a time
        return (limit - self.in_flight) / self.capacity if self.joined else 0.0

    async def admit(self, checks: Sequence[Check]) -> None:
        """See that it serves the model and passes the checks. Incompatible or Unavailable if not."""
        self._protocol = self._unproven_protocol
        card = _the_model(await self.serves(), self._protocol.names)
        self._protocol = replace(self._protocol, names=(str(card["id"]),))
        self.max_context = _positive(card.get("max_model_len")) or DEFAULT_CONTEXT
        await self._recognise()
        await self._adapt()
        await self.require(checks)

    async def require(self, checks: Sequence[Check]) -> None:
        """See that it passes more checks, the last of them with a prompt of the run. Errors as of `check`."""
        for check in checks:
            await self.check(check)
        if checks:
            await self.share_prompt()

    async def check(self, check: Check) -> None:
        """Incompatible if it does not pass; Unavailable if it cannot be asked."""
        completions = []
        for request in check.requests:
            try:
                seconds = min(self._timeout_seconds, _TEST_SECONDS)
                completions.append(await self.ask(request, seconds, slot=0))
            except Refused as trouble:
                completions.append(Completion(request.id, "", "error", error=str(trouble)))
        if fault := check.fault(completions):
            raise Incompatible(f"it {fault}")

    async def serves(self) -> list[dict[str, Any]]:
        """The cards of the models that it serves."""
        document = await self._json("/v1/models")
        cards = document.get("data") if isinstance(document, dict) else None
        if not isinstance(cards, list):
            raise Unavailable("it does not say what it serves (/v1/models)")
        named = [card for card in cards if isinstance(card, dict) and _is_name(card.get("id"))]
        if cards and not named:
            raise Incompatible("the name of its model cannot be used: it is no text that can be shown")
        return named

    async def _recognise(self) -> None:
        """What kind of server it is: vLLM and llama.cpp can do more than the API says."""
        status, props = await self._talk("/props")
        if status == 200 and isinstance(props, dict) and "total_slots" in props:
            self._protocol = replace(self._protocol, kind="llamacpp", compact_grammar=True)
            self.version = f"llama.cpp {said(props.get('build_info', ''), 40)}"
            slots, defaults = _positive(props["total_slots"]), props.get("default_generation_settings")
            context = _positive(defaults.get("n_ctx")) if isinstance(defaults, dict) else None
            self.max_context = context or self.max_context
            self.capacity = min(self._told_capacity or slots or DEFAULT_CAPACITY, slots or DEFAULT_CAPACITY)
            return
        status, found = await self._talk("/version")
        known = status == 200 and isinstance(found, dict) and "version" in found
        body = {"model": self.model, "prompt": "a", "add_special_tokens": False}
        status, tokens = await self._talk("/tokenize", body)
        # Another server's /tokenize takes other arguments, and it knows no token ids in logprobs.
        if known and status == 200 and isinstance(tokens, dict) and "max_model_len" in tokens:
            self._protocol = replace(self._protocol, kind="vllm")
            self.version = f"vLLM {said(found['version'], 40)}"

    async def _adapt(self) -> None:
        """Find the way of asking in which it enforces schemas: system role or not, compact or standard."""
        ways = [(True, True), (False, True)] if self._protocol.compact_grammar else []
        trouble: Exception | None = None
        for system, compact in [*ways, (True, False), (False, False)]:
            self._protocol = replace(self._protocol, has_system_role=system, compact_grammar=compact)
            try:
                return await self.check(schema_enforced())
            except Incompatible as error:
                trouble = trouble or error
            except Unavailable as error:
                if error.hung or not error.counts:
                    raise
                trouble = trouble or error  # many a chat template raises an error at a system role
        assert trouble
        raise trouble

    async def share_prompt(self) -> None:
        """Copy what slot 0 of a llama.cpp server has read to the other slots.

        Each slot has a cache of its own, so that without this the first prompt is read once for each: on
        2 cores a second a slot, where a copy takes a millisecond. Only a server that was started with
        --slot-save-path can do it.
        """
        if self._protocol.kind != "llamacpp":
            return
        file, url = {"filename": "prompt"}, "/slots/{}?action={}"
        status, _ = await self._talk(url.format(0, "save"), file)
        for slot in range(1, self.capacity if status == 200 else 1):
            await self._talk(url.format(slot, "restore"), file)

    async def ask(
        self, request: Request, timeout_seconds: float | None = None, slot: int | None = None
    ) -> Completion:
        """Its answer; of a llama.cpp server, that of a slot. Unavailable if it gave none, Incompatible if it
        never will."""
        tokens = await self.first_tokens(request.choices) if request.choices else None
        body = self._protocol.body(request, tokens)
        if slot is not None and self._protocol.kind == "llamacpp":
            body["id_slot"] = slot
        seconds = timeout_seconds or self._timeout_seconds
        completion = read(request, await self._json("/v1/chat/completions", body, seconds), tokens)
        self._last_answer = time.monotonic()
        return completion

    async def count_tokens(self, messages: Messages) -> int:
        """The prompt's tokens, chat template included; a third of its bytes where it cannot be asked."""
        shown = self._protocol.messages(messages)
        kwargs = self._protocol.template_kwargs
        extra = {"chat_template_kwargs": dict(kwargs)} if kwargs else {}
        if self._protocol.kind == "vllm":
            return len(await self._tokens({"model": self.model, "messages": shown, **extra}))
        if self._protocol.kind == "llamacpp":
            status, found = await self._talk("/apply-template", {"messages": shown, **extra})
            if status == 200 and isinstance(found, dict) and isinstance(found.get("prompt"), str):
                return len(await self._tokens({"content": found["prompt"], "add_special": True}))
        return sum(len(message["content"].encode("utf-8", "replace")) for message in messages) // 3 + 16

    async def first_tokens(self, choices: tuple[str, ...]) -> tuple[int, ...] | None:
        """The first token of each choice, -1 for one without; None where it cannot be asked."""
        if self._protocol.kind == "other":
            return None
        for choice in choices:
            if choice not in self._first_tokens:
                body = {"model": self.model, "prompt": choice, "add_special_tokens": False}
                if self._protocol.kind == "llamacpp":
                    body = {"content": choice, "add_special": False}
                self._first_tokens[choice] = next(iter(await self._tokens(body)), -1)
        return tuple(self._first_tokens[choice] for choice in choices)

    async def _tokens(self, body: dict[str, Any]) -> list[int]:
        document = await self._json("/tokenize", body)
        tokens = document.get("tokens") if isinstance(document, dict) else None
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise Incompatible("its /tokenize gives no list of token ids")
        return tokens

    async def _json(self, path: str, body: dict[str, Any] | None = None, seconds: float | None = None) -> Any:
        """What it sent with HTTP status 200; any other is raised as what it means."""
        status, document = await self._talk(path, body, seconds or _GLANCE_SECONDS)
        if status != 200:
            raise refusal(status, document)
        return document

    async def _talk(
        self, path: str, body: dict[str, Any] | None = None, seconds: float = _GLANCE_SECONDS
    ) -> tuple[int, Any]:
        """(HTTP status, the JSON it sent or its text) of a GET, with a body of a POST. Unavailable where that
        fails."""
        import httpx2

        try:
            status, after, raw = await self._within(seconds, self._exchange(path, body))
        except httpx2.ConnectTimeout:
            raise Unavailable(
                f"cannot be reached ({_GLANCE_SECONDS:.0f} s)", counts=False, hung=True
            ) from None
        except (TimeoutError, httpx2.TimeoutException):
            raise Unavailable(f"no answer in {seconds:g} s", hung=True) from None
        except httpx2.ConnectError as error:
            raise _connection_trouble(error) from None
        except (httpx2.HTTPError, ValueError) as error:
            raise Unavailable(f"the connection broke ({type(error).__name__})", counts=False) from None
        if status == 429 or (status == 503 and after):
            raise Busy(f"it has too much to do (HTTP {status})", counts=False, retry_after_seconds=after)
        try:
            return status, json.loads(raw)
        except (ValueError, RecursionError):
            if status == 200:
                raise Unavailable("an answer that is not JSON") from None
            return status, raw[:400].decode("utf-8", "replace")

    async def _exchange(self, path: str, body: Any) -> tuple[int, float, bytes]:
        raw = bytearray()
        async with self._http.stream("POST" if body else "GET", self.url + path, json=body) as answer:
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise Unavailable("it compresses its answers, which it was not asked for")
            async for chunk in answer.aiter_raw():
                raw += chunk
                if len(raw) > _MOST_BYTES:
                    raise Unavailable(f"an answer of more than {_MOST_BYTES // 2**20} MB")
            return answer.status_code, _retry_after(answer.headers.get("retry-after")), bytes(raw)

    async def _within(self, seconds: float, exchange: Any) -> Any:
        """The result of an exchange; TimeoutError after so many seconds without any answer of the server.

        A server that queues requests is waited for while it answers others.
        """
        task, started = asyncio.ensure_future(exchange), time.monotonic()
        try:
            while not task.done():
                left = max(started, self._last_answer) + seconds - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                await asyncio.wait([task], timeout=left)
            return task.result()
        finally:
            task.cancel()  # the connection closes, and with it the server gives the request up


def _the_model(cards: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """The card of a model of these names, or loaded from a folder so called; without names, of the only one.

    Incompatible if there is none.
    """
    served = ", ".join(said(card["id"], 80) for card in cards) or "no model"
    fits = [card for card in cards if not names or card["id"] in names or card.get("root") in names]
    if not cards:
        raise Incompatible("it serves no model; load one there first")
    if not fits:
        raise Incompatible(f"it serves {served}, and not {names[0]}; name one that it serves with --model")
    if not names and len(fits) > 1:
        raise Incompatible(f"it serves {served}; say with --model which of them is to write")
    return fits[0]


def _is_name(value: Any) -> bool:
    """Whether a server's name for a model can be sent back and written down."""
    try:
        return isinstance(value, str) and 0 < len(value.encode()) <= 500 and value.isprintable()
    except UnicodeEncodeError:  # half a character
        return False


def _positive(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 10**8 else None


def _connection_trouble(error: Exception) -> Exception:
    """Connection refused, no route to host, name not known: without the call that failed."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and len(causes) < 9:
        causes.append(cause)
    for cause in causes:
        if "CERTIFICATE" in str(cause).upper():
            return Incompatible(
                "its TLS certificate is not trusted (self-signed?); set SSL_CERT_FILE to its CA's file"
            )
    numbers = [cause.errno for cause in causes if isinstance(cause, OSError) and (cause.errno or 0) > 0]
    reason = os.strerror(numbers[0] or 0) if numbers else said(str(causes[-1]) or type(error).__name__, 80)
    return Unavailable(f"cannot be reached ({reason})", counts=False)


def _retry_after(value: str | None) -> float:
    """Retry-After in seconds, at most 60; 0 if it says none, or a date."""
    try:
        return min(60.0, max(0.0, float(value or 0)))
    except ValueError:
        return 0.0
