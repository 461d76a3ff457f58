"""Several engines of the same checkpoint, fed as one of their joint capacity.

Requests wait here until an engine has room, so that one which joins late, or comes back, finds
work at once. An engine that dies is started again once, in the background, while the others go
on; what it had in flight is asked again. An answer counts only while its request is out at the
engine that gives it, so nothing is lost and nothing counted twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, Protocol

from datacreate.engines.base import Completion, Engine, Messages, Request
from datacreate.errors import EngineError


class Member(Engine, Protocol):
    """An engine that loads in the background and can be waited for together with others."""

    @property
    def source(self) -> Connection:
        """What can be read as soon as the engine has loaded, has an answer or has died."""

    def check(self, copies: int) -> None:
        """EngineError, with the numbers, if so many of it do not fit what memory is free."""

    def launch(self) -> None:
        """Begin loading, also again after `close`; returns at once."""

    def loaded(self) -> bool:
        """Whether what `launch` began is done; never waits. EngineError if the engine has died of it."""


@dataclass(eq=False)
class _Seat:
    """One of the engines, and what is out there."""

    number: int  # from 1
    engine: Member
    state: Literal["loading", "ready", "lost"] = "loading"
    restarted: bool = False
    out: dict[int, Request] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        return self.state == "ready" and len(self.out) < self.engine.capacity


class Replicas:
    """An `Engine` over several; `note` is told when one of them dies or is back."""

    def __init__(self, engines: Sequence[Member], note: Callable[[str], None] = lambda _: None) -> None:
        self._seats = [_Seat(number, engine) for number, engine in enumerate(engines, 1)]
        self._first = engines[0]
        self._note = note
        self._started = False
        self._waiting: deque[Request] = deque()  # until an engine has room

    @property
    def members(self) -> tuple[Engine, ...]:
        """The engines that can be asked now."""
        return tuple(seat.engine for seat in self._seats if seat.state == "ready")

    @property
    def capacity(self) -> int:
        """Of those that work; before `start`, of all."""
        states = {"ready"} if self._started else {"loading"}
        # Never nothing: whoever has a request out listens, and so learns that an engine is back.
        return max(1, sum(seat.engine.capacity for seat in self._seats if seat.state in states))

    @property
    def copies(self) -> int:
        return len(self._seats)

    @property
    def urls(self) -> Sequence[str]:
        return self._first.urls

    @property
    def has_chat_template(self) -> bool:
        return self._first.has_chat_template

    @property
    def settings(self) -> dict[str, Any]:
        return {**self._first.settings, "replicas": self.copies}

    @property
    def max_context(self) -> int:
        return self._first.max_context

    def count_tokens(self, messages: Messages) -> int:
        return self._first.count_tokens(messages)

    def tells_apart(self, choices: Sequence[str]) -> bool:
        return self._first.tells_apart(choices)

    def start(self) -> None:
        """Load all at once; returns when each has loaded or died.

        One that died is started again in the background. If all did, starting them again is no use:
        EngineError of the first.
        """
        if self._started:
            return
        for seat in self._seats:
            seat.engine.check(len(self._seats))
        for seat in self._seats:
            seat.engine.launch()
        died: dict[int, tuple[_Seat, EngineError]] = {}
        while loading := [s for s in self._seats if s.state == "loading" and s.number not in died]:
            for seat in _heard(loading, None):
                try:
                    if seat.engine.loaded():
                        seat.state = "ready"
                except EngineError as error:
                    died[seat.number] = (seat, error)
        if len(died) == len(self._seats):
            raise died[1][1]
        self._started = True
        for seat, why in died.values():
            self._died(seat, why)

    def submit(self, request: Request) -> None:
        self._waiting.append(request)
        self._feed()

    def poll(self, timeout_seconds: float) -> list[Completion]:
        deadline = time.monotonic() + timeout_seconds
        completions: list[Completion] = []
        while not completions:
            alive = [seat for seat in self._seats if seat.state != "lost"]
            heard = _heard(alive, max(0.0, deadline - time.monotonic()))
            if not heard:
                break
            for seat in heard:
                completions += self._hear(seat)
            self._feed()
        return completions

    def abort(self, request_ids: Iterable[int]) -> None:
        given_up = set(request_ids)
        self._waiting = deque(request for request in self._waiting if request.id not in given_up)
        for seat in self._seats:
            named = [number for number in seat.out if number in given_up]
            for number in named:
                del seat.out[number]
            if named:
                with suppress(EngineError):  # that it has died is heard when it is listened to again
                    seat.engine.abort(named)

    def close(self) -> None:
        self._waiting.clear()
        with ThreadPoolExecutor(len(self._seats)) as pool:  # an engine may take seconds to go
            list(pool.map(lambda seat: seat.engine.close(), self._seats))

    def _hear(self, seat: _Seat) -> list[Completion]:
        """What one engine has to say: answers, that it has loaded, or that it has died."""
        try:
            if seat.state == "ready":
                return [each for each in seat.engine.poll(0.0) if seat.out.pop(each.request_id, None)]
            if seat.engine.loaded():
                seat.state = "ready"
                self._note(f"engine {seat.number} of {len(self._seats)} is back")
        except EngineError as error:
            self._died(seat, error)
        return []

    def _feed(self) -> None:
        """Hand on what is waiting, each to the engine with the least to do, as far as there is room."""
        while self._waiting and (open := [seat for seat in self._seats if seat.has_room]):
            seat = min(open, key=lambda seat: len(seat.out))
            request = self._waiting.popleft()
            seat.out[request.id] = request
            try:
                seat.engine.submit(request)
            except EngineError as error:
                self._died(seat, error)

    def _died(self, seat: _Seat, error: EngineError) -> None:
        """Start it again, once, or go on without it; raises `error` if none is left."""
        asked = len(seat.out)
        self._waiting.extendleft(reversed(seat.out.values()))  # the oldest are the most waited for
        seat.out.clear()
        seat.engine.close()
        what = str(error).partition(";")[0]  # what to do about it is done here
        name = f"engine {seat.number} of {len(self._seats)}"
        if not seat.restarted:
            seat.restarted, seat.state = True, "loading"
            seat.engine.launch()
            self._note(f"{name} died: {what}; it is started again, its {asked} requests are asked again")
            return
        seat.state = "lost"
        left = sum(each.state != "lost" for each in self._seats)
        if not left:
            raise error
        self._note(f"{name} died again: {what}; going on with the other {left}")


def _heard(seats: Sequence[_Seat], timeout_seconds: float | None) -> list[_Seat]:
    """Those of these engines that have something to say, waiting up to so long for one; None is forever."""
    by_source = {seat.engine.source: seat for seat in seats}
    ready = set(wait(list(by_source), timeout_seconds))
    return [seat for source, seat in by_source.items() if source in ready]
