"""One server: its HTTP requests, the tests that it must pass before it is used, and its failures.

Responses are untrusted: redirects are not followed, a response is read up to a size limit and never
decompressed, numbers are clamped, and names are checked before use.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from datacreate.engines import ENGINES, EngineOptions
from datacreate.engines.chat_api import (
    TEMPORARY,
    Busy,
    ChatApi,
    Incompatible,
    RequestRejected,
    ServerProblem,
    Unavailable,
    connection_error,
    parse_response,
    short_text,
    status_error,
    wrong_address,
)
from datacreate.engines.request import Completion, Messages, Request, ServerTest, max_in_flight, schema_enforcement_test
from datacreate.engines.server_sources import Address
from datacreate.hardware import has_gpu

if TYPE_CHECKING:
    import httpx2

_DEFAULT_SLOTS = 64  # of a server that does not report them
_DEFAULT_CONTEXT = 4096  # tokens, if neither the server nor the user gives a number
_CONNECT_SECONDS = 20.0  # for a connection, and for requests that need no generation
_REQUEST_SECONDS, _CPU_REQUEST_SECONDS = 300.0, 1800.0  # for a response; a busy CPU writes a few tokens per second
_TEST_SECONDS, _TEST_SHARE = 120.0, 0.4  # for one request of a test, or this share of the time of others, if it is more
_KEEP_ALIVE_SECONDS = 4.0  # less than uvicorn's 5 s: no request uses a connection that the server is closing
_MAX_BYTES = 8 * 2**20  # size limit of a response
_MAX_NAME_CHARS = 500  # of a model
Body = dict[str, Any] | None  # of a POST request; None: it is a GET request


def make_http_client(tls: ssl.SSLContext) -> httpx2.AsyncClient:
    """An HTTP client for one connection: a client takes longer for each request, the more connections it has."""
    import httpx2

    return httpx2.AsyncClient(
        headers={"Accept-Encoding": "identity"},
        follow_redirects=False,
        trust_env=False,  # no proxies; SSL_CERT_FILE is read by the context
        verify=tls,
        timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),  # responses have their own timeout: see Server
        limits=httpx2.Limits(max_connections=None, keepalive_expiry=_KEEP_ALIVE_SECONDS),
    )


@dataclass
class Failures:
    """What failed since a server answered the last time."""

    last_problem: ServerProblem | None = None
    last_problem_not_busy: ServerProblem | None = None
    total: int = 0  # failed requests and tests
    failed_requests: int = 0
    repeated_errors: int = 0  # requests that failed in a row, all with the same error
    times_hung: int = 0  # requests and tests in a row to which it sent nothing; 0 after a passed test or a restart


class Server:
    """One server. `test` finds out which engine it is and how requests to it are written; then `ask` sends one."""

    def __init__(
        self, address: Address, api: ChatApi, tls: ssl.SSLContext, options: EngineOptions, *, is_remote: bool
    ) -> None:
        """`is_remote`: another process started it."""
        self.url, self.key = address.url, address.key
        self.version = ""
        self.in_flight = 0
        self.suspended = asyncio.Event()  # set while it gets no requests: it has not passed the tests
        self.suspended.set()
        self.has_passed_tests = False  # at least once
        self.failures = Failures()
        self._was_busy = False  # whether it has ever answered HTTP 429
        self._options = options
        self._is_remote = is_remote
        is_on_cpu = urlsplit(address.url).hostname in ("127.0.0.1", "::1", "localhost") and not has_gpu()
        self.request_seconds = options.request_timeout or (_CPU_REQUEST_SECONDS if is_on_cpu else _REQUEST_SECONDS)
        self._given_slots = options.max_num_seqs or address.max_num_seqs
        self.slots = self._given_slots or _DEFAULT_SLOTS
        self._reported_context: int | None = None  # tokens
        self._api = self._initial_api = api
        self._tls = tls
        self._idle: list[httpx2.AsyncClient] = []  # those without a request
        self._is_closed = False
        self._last_response = 0.0  # when it last answered, in monotonic seconds
        self._first_tokens: dict[str, int] = {}

    @property
    def max_context(self) -> int:
        """The context length in tokens: that of the user or of the server, whichever is shorter."""
        return min(filter(None, (self._reported_context, self._options.max_model_len)), default=_DEFAULT_CONTEXT)

    @property
    def max_in_flight(self) -> int:
        """How many requests keep it busy."""
        return max_in_flight(self.slots)

    @property
    def model(self) -> str:
        """The server's name for the model."""
        return self._api.names[0]

    @property
    def enforces_longest_text(self) -> bool:
        """Whether it ends a text that is longer than `Sampling.longest_text`."""
        return self._api.sends_own_schema_field and self._api.engine.ends_long_texts

    @property
    def is_active(self) -> bool:
        """Whether it passed the tests and gets requests."""
        return not self.suspended.is_set()

    @property
    def is_settled(self) -> bool:
        """Whether it passed or failed the tests."""
        return self.is_active or self.failures.last_problem is not None

    @property
    def is_incompatible(self) -> bool:
        """Whether it can never be used. One that worked before may be behind a proxy that answers for a while."""
        was_usable = self.is_active or self.has_passed_tests
        return not was_usable and isinstance(self.failures.last_problem, Incompatible)

    @property
    def free_share(self) -> float:
        """The free share of the capacity; 0 or less if it can take no request."""
        limit = 1 if self.failures.failed_requests else self.max_in_flight
        return (limit - self.in_flight) / self.max_in_flight if self.is_active else 0.0

    def count_failure(self, problem: ServerProblem, *, in_test: bool) -> bool:
        """Count a failure, and suspend the server; returns whether it failed differently the last time."""
        failures, is_busy = self.failures, isinstance(problem, Busy)
        previous = failures.last_problem_not_busy
        is_new = str(problem) != str(previous)
        if not in_test:
            failures.failed_requests += 1
            if is_busy:
                failures.repeated_errors = 0
            elif is_new:
                failures.repeated_errors = 1
            else:
                failures.repeated_errors += 1
        failures.total += 1
        failures.times_hung = failures.times_hung + 1 if problem.hung else 0
        failures.last_problem = problem
        self.suspended.set()
        if is_busy:
            was_busy, self._was_busy = self._was_busy, True
            return not was_busy
        failures.last_problem_not_busy = problem
        return is_new and not (self.is_incompatible and isinstance(previous, Incompatible))

    async def test(self, tests: Sequence[ServerTest]) -> None:
        """Check that it serves the model and passes the tests. Raises Incompatible or Unavailable."""
        self._api = self._initial_api
        entry = _find_model_entry(await self._json("/v1/models"), self._api.names)
        self._api = replace(self._api, names=(str(entry["id"]),))
        self._reported_context = _plausible_count(entry.get("max_model_len"))
        await self._recognize()
        await self._find_request_form()
        await self.run_tests(tests)
        self.has_passed_tests = True

    async def run_tests(self, tests: Sequence[ServerTest]) -> None:
        """Run more tests, the last one with a prompt of the run: a local server then keeps it in its prompt cache.

        Raises what `_run_test` raises.
        """
        for test in tests:
            await self._run_test(test)
        if tests and not self._is_remote:
            await self._api.engine.after_tests(self._send, self.slots)

    async def _run_test(self, test: ServerTest) -> None:
        """Run one test. Raises Incompatible if it fails, Unavailable if there is no response."""
        completions: list[Completion] = []
        for request in test.requests:
            try:
                completions.append(await self.ask(request, is_test=True))
            except RequestRejected as problem:
                completions.append(Completion(request.id, "", "error", error=str(problem)))
        if reason := test.problem(completions):
            raise Incompatible(f"it {reason}")

    async def _recognize(self) -> None:
        for engine in ENGINES.values():
            if info := await engine.recognize(self._send, self.model):
                self._api = replace(self._api, engine=engine, sends_own_schema_field=engine.own_schema_field)
                self.version = f"{engine.title} {short_text(info.version, 40)}"
                if slots := _plausible_count(info.slots):
                    self.slots = min(self._given_slots or slots, slots)
                self._reported_context = _plausible_count(info.context) or self._reported_context
                return

    async def _find_request_form(self) -> None:
        """Find a form of requests in which it enforces a schema: in its own field or the standard one, with a system
        message or without. Raises what `_run_test` raises if there is none."""
        problems: list[ServerProblem] = []
        for own_field in (True, False) if self._api.sends_own_schema_field else (False,):
            for system in (True, False):
                self._api = replace(self._api, has_system_role=system, sends_own_schema_field=own_field)
                try:
                    return await self._run_test(schema_enforcement_test())
                except ServerProblem as error:
                    if isinstance(error, Unavailable) and (error.hung or not error.request_may_be_cause):
                        raise
                    problems.append(error)  # some chat templates raise an error for a system role
        raise problems[0]

    async def ask(self, request: Request, *, is_test: bool = False) -> Completion:
        """Send a request and return the response. `is_test`: it belongs to a test, which has less time.

        Raises Unavailable if there is no response, Incompatible if there never will be.
        """
        tokens = await self.first_tokens(request.choices) if request.choices else None
        body, seconds = self._api.body(request, tokens), self.request_seconds
        if is_test:
            if not self._api.thinking_limit(request):
                seconds = min(seconds, max(_TEST_SECONDS, _TEST_SHARE * seconds))
            body |= self._api.engine.test_fields
        completion = parse_response(request, await self._json("/v1/chat/completions", body, seconds), tokens)
        self._last_response = time.monotonic()
        return completion

    async def count_tokens(self, messages: Messages) -> int:
        """The length of the prompt in tokens, chat template included; estimated without a tokenizer."""
        prompt = self._api.messages(messages)
        if body := await self._api.engine.prompt_tokens(self._send, self.model, prompt):
            return len(await self._tokens(body))
        return sum(len(message["content"].encode("utf-8", "replace")) for message in messages) // 3 + 16

    async def first_tokens(self, choices: tuple[str, ...]) -> tuple[int, ...] | None:
        """The first token of each choice, -1 for an empty one; None without a tokenizer."""
        for choice in choices:
            if choice not in self._first_tokens:
                body = self._api.engine.text_tokens(self.model, choice)
                if body is None:
                    return None
                self._first_tokens[choice] = next(iter(await self._tokens(body)), -1)
        return tuple(self._first_tokens[choice] for choice in choices)

    async def _tokens(self, body: dict[str, Any]) -> list[int]:
        document = await self._json("/tokenize", body)
        tokens = document.get("tokens") if isinstance(document, dict) else None
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise Incompatible("/tokenize returns no list of token ids; use a server with that of vLLM or llama.cpp")
        return tokens

    async def _json(self, path: str, body: Body = None, seconds: float = _CONNECT_SECONDS) -> Any:
        """The JSON of a response with HTTP status 200. Raises the `status_error` for other statuses."""
        status, document = await self._send(path, body, seconds)
        if status == 404 and not self.has_passed_tests:
            raise wrong_address(path, f"HTTP 404: {short_text(document)}")
        if status != 200:
            raise status_error(status, document)
        if isinstance(document, str) and body:
            raise Unavailable("it returned something other than JSON")
        return document

    async def _send(self, path: str, body: Body = None, seconds: float = _CONNECT_SECONDS) -> tuple[int, Any]:
        """GET, or POST with a body. Returns the HTTP status and the JSON or text.

        Raises Unavailable, also for a temporary status, which says nothing about the request. It may take `seconds`
        without any response of the server. Responses to other requests count, so it may queue requests for longer.
        """
        import httpx2

        exchange, started = asyncio.ensure_future(self._exchange(path, body)), time.monotonic()
        try:
            while not exchange.done():
                remaining = max(started, self._last_response) + seconds - time.monotonic()
                if remaining <= 0:
                    raise Unavailable(f"no response in {seconds:g} s", hung=True)
                await asyncio.wait([exchange], timeout=remaining)
            status, raw = exchange.result()
        except httpx2.ConnectTimeout:
            reason = f"cannot be reached ({_CONNECT_SECONDS:.0f} s)"
            raise Unavailable(reason, request_may_be_cause=False, hung=True) from None
        except httpx2.ConnectError as error:
            raise connection_error(error) from None
        except (httpx2.HTTPError, ValueError) as error:
            reason = f"the connection broke ({type(error).__name__})"
            raise Unavailable(reason, request_may_be_cause=False) from None
        finally:
            exchange.cancel()  # closes the connection, which makes the server cancel the request
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError):
            document = raw[:400].decode("utf-8", "replace")
        if status in TEMPORARY:
            raise status_error(status, document)
        return status, document

    async def _exchange(self, path: str, body: Body) -> tuple[int, bytes]:
        """Send a request; returns the HTTP status and the content. Raises Unavailable, or an error of httpx2."""
        raw, method = bytearray(), "POST" if body else "GET"
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        http = self._idle.pop() if self._idle else make_http_client(self._tls)
        try:
            async with http.stream(method, self.url + path, json=body, headers=headers) as response:
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise Unavailable("it sends compressed responses, which were not requested")
                async for chunk in response.aiter_raw():
                    raw += chunk
                    if len(raw) > _MAX_BYTES:
                        raise Unavailable(f"it returned more than {_MAX_BYTES // 2**20} MB")
                return response.status_code, bytes(raw)
        finally:
            self._idle.append(http)
            if self._is_closed:
                await self.close()

    async def close(self) -> None:
        """Close the connections, even those of requests that are being cancelled."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().aclose()


def _find_model_entry(document: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """The entry in /v1/models of the model with one of these names or folders; without names, of the only model."""
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise wrong_address("/v1/models", "no list of models")
    named = [entry for entry in entries if isinstance(entry, dict) and _is_usable_name(entry.get("id"))]
    if not named:
        raise Incompatible(
            "it serves no model with a printable name; load one, or rename it (vLLM: --served-model-name)"
        )
    served = ", ".join(short_text(entry["id"], 80) for entry in named)
    matching = [entry for entry in named if not names or entry["id"] in names or entry.get("root") in names]
    if not matching:
        raise Incompatible(f"it serves {served}, not {names[0]}; select one of its models with --model")
    if not names and len(named) > 1:
        raise Incompatible(f"it serves {served}; select one with --model")
    return matching[0]


def _is_usable_name(name: Any) -> bool:
    return isinstance(name, str) and name.isprintable() and 0 < len(name) <= _MAX_NAME_CHARS


def _plausible_count(value: Any) -> int | None:
    """A number that a server reports; None if it is not plausible."""
    return value if type(value) is int and 0 < value < 10**8 else None
