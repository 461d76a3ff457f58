"""A client that answers with a script instead of a model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from datacreate.engines.request import Completion, FinishReason, Messages, Request, ServerTest, max_in_flight
from datacreate.errors import EngineError
from datacreate.formats.example import Json

Script = Callable[[Request], Completion]


class ScriptedClient:
    """Answers each request with `script`, in an order drawn from `shuffle`.

    After `dies_after` completions every call raises EngineError.
    """

    def __init__(
        self,
        script: Script,
        *,
        slots: int = 4,
        shuffle: random.Random | None = None,
        dies_after: int | None = None,
        scorer: Script | None = None,
    ) -> None:
        self.script = script
        self.scorer = scorer or undecided
        self.slots = slots
        self.max_in_flight = max_in_flight(slots)
        self.max_context = 4096
        self.enforces_longest_text = False
        self.settings: dict[str, Any] = {}
        self.history: list[Request] = []
        self.verified: list[Request] = []
        self.aborted: list[int] = []
        self.starts = 0
        self.closed = False
        self._shuffle = shuffle
        self._left = dies_after
        self._waiting: list[Request] = []

    @property
    def started(self) -> bool:
        return self.starts > 0

    def count_tokens(self, messages: Messages) -> int:
        return sum(len(message["content"]) for message in messages) // 4

    def needs_letters(self, labels: Sequence[Json]) -> bool:
        return False

    def start(self, tests: Sequence[ServerTest] = ()) -> None:
        if self._left == 0:
            raise EngineError("the server ended (code 1): it cannot start")
        self.starts += 1

    def submit(self, request: Request) -> None:
        if request.id >= 0:
            self.history.append(request)
        elif request.choices:
            self.verified.append(request)
        self._waiting.append(request)
        assert len(self._waiting) <= self.max_in_flight

    def poll(self, timeout_seconds: float) -> list[Completion]:
        if self._shuffle:
            self._shuffle.shuffle(self._waiting)
            done, self._waiting = self._waiting[:2], self._waiting[2:]
        else:
            done, self._waiting = self._waiting, []
        return [self._answer(request) for request in done]

    def _answer(self, request: Request) -> Completion:
        if request.choices:
            return self.scorer(request)
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise EngineError("the server ended (code 1): out of luck; run the same command to resume")
        return self.script(request)

    def abort(self, request_ids: Iterable[int]) -> None:
        self.aborted.extend(request_ids)

    def close(self) -> None:
        self.closed = True


def undecided(request: Request) -> Completion:
    """A verifier that gives all choices the same probability."""
    label_ratio = (1 / len(request.choices),) * len(request.choices)
    return Completion(request.id, "", "stop", 20, 0, None, label_ratio)


def written(request: Request, rng: random.Random, vocabulary: int = 1_000_000) -> list[Any]:
    """A random response that is valid under the request's schema."""
    assert request.schema
    value: list[Any] = fill(json.loads(request.schema), rng, vocabulary)
    return value


def fill(schema: dict[str, Any], rng: random.Random, vocabulary: int) -> Any:
    """A random value that is valid under a response schema."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    if "anyOf" in schema:
        return fill(rng.choice(schema["anyOf"]), rng, vocabulary)
    kind = schema["type"]
    if kind == "array":
        if "prefixItems" in schema:
            return [fill(part, rng, vocabulary) for part in schema["prefixItems"]]
        number = rng.randint(schema.get("minItems", 0), schema.get("maxItems", 3))
        return [fill(schema["items"], rng, vocabulary) for _ in range(number)]
    if kind == "object" and "properties" not in schema:
        values = (fill(schema["additionalProperties"], rng, vocabulary) for _ in range(2))
        return {f"key {rng.randrange(vocabulary)}": value for value in values}
    if kind == "object":
        return {name: fill(part, rng, vocabulary) for name, part in schema["properties"].items()}
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "integer":
        return rng.randint(schema.get("minimum", 0), schema.get("maximum", 99))
    if kind == "number":
        return rng.uniform(schema.get("minimum", 0), schema.get("maximum", 1))
    if kind == "null":
        return None
    space = "" if "pattern" in schema else " "
    return f"word{space}{rng.randrange(vocabulary)}"


def saying(text: str, reason: FinishReason = "stop", error: str | None = None) -> Script:
    """A script that always returns the same text."""
    return lambda request: Completion(request.id, text, reason, 50, len(text) // 4, error)


def answering(vocabulary: int = 1_000_000, seed: int = 0) -> Script:
    """A script whose completions depend only on the id and the prompt of the request."""

    def script(request: Request) -> Completion:
        rng = random.Random(f"{seed}:{request.id}:{request.messages}")
        text = json.dumps(written(request, rng, vocabulary))
        return Completion(request.id, text, "stop", 50, len(text) // 4)

    return script
