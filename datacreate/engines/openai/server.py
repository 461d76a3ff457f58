"""One server: asked over HTTP, let in once it has shown that it does what a run needs."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from datacreate.engines.base import Completion, Messages, Request
from datacreate.engines.openai.addresses import Address
from datacreate.engines.openai.wire import Full, Unfit, Unwell, Wire, read, refusal
from datacreate.engines.selftest import flaw_of, question

if TYPE_CHECKING:
    import aiohttp

USUAL_CAPACITY = 64
"""Requests out at a server that does not say how many it works on at once; vLLM queues the rest."""

USUAL_CONTEXT = 4096
"""Tokens of context of a server that does not say."""

_GLANCE_SECONDS = 20.0
"""How long a server may take to say what it serves."""

_TEST_SECONDS = 60.0
"""How long it may take over the self-test, be it ever so busy."""

_MOST_SAID = 160


class Server:
    """What is known of one server, and its HTTP."""

    def __init__(
        self,
        address: Address,
        wire: Wire,
        session: aiohttp.ClientSession,
        capacity: int | None,
        timeout: float,
    ) -> None:
        self.url = address.url
        self.capacity = capacity or address.max_num_seqs or USUAL_CAPACITY
        self._limit = float(self.capacity)  # what it has been found to hold
        self.max_context = USUAL_CONTEXT
        self.version = ""
        self.out = 0  # requests that are there now
        self.joined = False
        self.failures = 0  # in a row
        self.left = asyncio.Event()
        self.asks_for = 0.0  # seconds that it asked to be left alone when it was left
        self.resting = False  # full: it goes on with what it has, and gets nothing new for a while
        self._wire = wire
        self._session = session
        self._timeout = timeout
        self._tokenizes = False
        self._tokens: dict[str, int] = {}  # first tokens of the choices seen so far

    @property
    def model(self) -> str:
        """What it calls the model."""
        return self._wire.names[0]

    @property
    def room(self) -> float:
        """The share of its capacity that is free; 0 or less if none is, or it is not to be asked."""
        free = int(self._limit) - self.out
        return free / self.capacity if self.joined and not self.resting else 0.0

    def held(self) -> None:
        """It has answered: after as many answers as it holds, it may hold one more."""
        self.failures = 0
        self._limit = min(self.capacity, self._limit + 1 / self._limit)

    def overflowed(self) -> None:
        """It has refused a request for want of room: what it holds is less than it was given."""
        self._limit = max(1.0, min(self._limit, self.out - 1.0))

    async def admit(self) -> None:
        """See that it serves the model and holds to a schema. Unfit or Unwell if not."""
        self.version = await self._version()
        card = _the_model(await self.serves(), self._wire.names)
        self._wire = replace(self._wire, names=(str(card["id"]),))
        self.max_context = _context(card)
        self._tokenizes = await self._has_tokenizer()
        seconds = min(self._timeout, _TEST_SECONDS)
        answer = await self.ask(question(), seconds)
        if answer.error and self._wire.has_system:  # many a chat template refuses that role
            self._wire = replace(self._wire, has_system=False)
            answer = await self.ask(question(), seconds)
        if flaw := flaw_of(answer):
            raise Unfit(f"it {flaw}")

    async def serves(self) -> list[dict[str, Any]]:
        """The cards of the models that it serves."""
        status, document = await self._talk("GET", "/v1/models", None, _GLANCE_SECONDS)
        cards = document.get("data") if isinstance(document, dict) else None
        if status != 200 or not isinstance(cards, list):
            trouble = refusal(status, _said(document))
            raise trouble or Unwell(f"it does not say what it serves (HTTP {status} for /v1/models)")
        return [card for card in cards if isinstance(card, dict)]

    async def ask(self, request: Request, seconds: float | None = None) -> Completion:
        """Its answer; a refusal of this one request is one, too. Unwell if it gave none, Unfit for good."""
        tokens = await self.first_tokens(request.choices) if request.choices else None
        body = self._wire.body(request, tokens)
        status, document = await self._talk("POST", "/v1/chat/completions", body, seconds or self._timeout)
        if status == 200:
            return read(request, document, tokens)
        if trouble := refusal(status, _said(document)):
            raise trouble
        return Completion(request.id, "", "error", error=f"HTTP {status}: {_said(document)}")

    async def count_tokens(self, messages: Messages) -> int:
        """The prompt's tokens, chat template included; where it cannot be asked, a third of the bytes."""
        if self._tokenizes:
            switches = {"chat_template_kwargs": dict(self._wire.template)} if self._wire.template else {}
            return len(await self._tokenized({"messages": self._wire.messages(messages), **switches}))
        return sum(len(message["content"].encode()) for message in messages) // 3 + 16

    async def first_tokens(self, choices: tuple[str, ...]) -> tuple[int, ...] | None:
        """The first token of each choice, -1 for one without; None where it cannot be asked."""
        if not self._tokenizes:
            return None
        for choice in choices:
            if choice not in self._tokens:
                found = await self._tokenized({"prompt": choice, "add_special_tokens": False})
                self._tokens[choice] = found[0] if found else -1
        return tuple(self._tokens[choice] for choice in choices)

    async def _tokenized(self, what: dict[str, Any]) -> list[int]:
        status, document = await self._talk(
            "POST", "/tokenize", {"model": self.model, **what}, _GLANCE_SECONDS
        )
        if status != 200 or not isinstance(document, dict) or "tokens" not in document:
            kind = Unfit if 400 <= status < 500 and status != 408 else Unwell
            raise kind(f"HTTP {status} for /tokenize: {_said(document)}")
        return [int(token) for token in document["tokens"]]

    async def _has_tokenizer(self) -> bool:
        """Whether it has vLLM's /tokenize: another's takes other arguments, or is not there."""
        body = {"model": self.model, "prompt": "a", "add_special_tokens": False}
        status, document = await self._talk("POST", "/tokenize", body, _GLANCE_SECONDS)
        return status == 200 and isinstance(document, dict) and "max_model_len" in document

    async def _version(self) -> str:
        status, document = await self._talk("GET", "/version", None, _GLANCE_SECONDS)
        known = status == 200 and isinstance(document, dict) and "version" in document
        return f"vLLM {document['version']}" if known else ""

    async def _talk(self, verb: str, path: str, body: Any, seconds: float) -> tuple[int, Any]:
        """(HTTP status, the JSON it sent or its text). Unwell where the connection or the body fails."""
        import aiohttp

        try:
            limit = aiohttp.ClientTimeout(total=seconds, sock_connect=_GLANCE_SECONDS)
            async with self._session.request(verb, self.url + path, json=body, timeout=limit) as answer:
                raw = await answer.read()
                after = _seconds(answer.headers.get("Retry-After"))
                status = answer.status
        except aiohttp.ConnectionTimeoutError:
            raise Unwell(f"cannot be reached (nothing in {_GLANCE_SECONDS:.0f} s)", counts=False) from None
        except TimeoutError:
            raise Unwell(f"no answer in {seconds:.0f} s") from None
        except aiohttp.ClientConnectorError as error:
            raise Unwell(f"cannot be reached ({_cause(error.os_error)})", counts=False) from None
        except (aiohttp.ClientError, ValueError) as error:
            raise Unwell(f"the connection broke ({type(error).__name__})", counts=False) from None
        if status == 429 or (status == 503 and after):
            raise Full(f"it has too much to do (HTTP {status})", counts=False, after=after)
        try:
            return status, json.loads(raw)
        except (ValueError, RecursionError):
            if status == 200:
                raise Unwell("it sent something that is no JSON") from None
            return status, raw[:_MOST_SAID].decode("utf-8", "replace")


def _the_model(cards: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """The card of a model of these names, or loaded from a folder so called; without names, of the only one.

    Unfit if there is none.
    """
    cards = [card for card in cards if "id" in card]
    served = ", ".join(str(card["id"]) for card in cards) or "nothing"
    fits = [card for card in cards if not names or card["id"] in names or card.get("root") in names]
    if not fits:
        raise Unfit(f"it serves {served}, and not {names[0]}; name one that it serves with --model")
    if not names and len(fits) > 1:
        raise Unfit(f"it serves {served}; say with --model which of them is to write")
    return fits[0]


def _context(card: dict[str, Any]) -> int:
    """Tokens of context: as vLLM tells it, or llama.cpp."""
    meta = card.get("meta") if isinstance(card.get("meta"), dict) else {}
    told = card.get("max_model_len") or (meta or {}).get("n_ctx")
    return told if isinstance(told, int) and told > 0 else USUAL_CONTEXT


def _cause(error: OSError) -> str:
    """Connection refused, no route to host, name not known: without the call that failed."""
    number = error.errno or 0
    # The errors of a name have numbers of their own, below zero.
    return os.strerror(number) if number > 0 else str(error.strerror or error)


def _said(document: Any) -> str:
    """A server's own words on what is wrong, in one line."""
    if isinstance(document, dict):
        error = document.get("error", document)
        document = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(document).split())[:_MOST_SAID]


def _seconds(told: str | None) -> float:
    """Retry-After in seconds; 0 if it says none, or a date."""
    try:
        return min(60.0, max(0.0, float(told or 0)))
    except ValueError:
        return 0.0
