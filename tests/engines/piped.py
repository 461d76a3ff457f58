"""A scripted engine that can be waited for, loads when a test lets it, and dies when a test wants it."""

from __future__ import annotations

import random
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from datacreate.engines.base import Completion, Request
from datacreate.errors import EngineError
from tests.scripted import Script, ScriptedEngine, answering


class PipedEngine(ScriptedEngine):
    """Speaks up through a pipe, as an engine in a process of its own does.

    It gives two answers each time it is heard, in an order of its own. `lives` says after how many
    answers each of its lives ends, with whatever is out at that moment; beyond these it lives for
    ever. 0 is an engine that dies while it loads.
    """

    def __init__(
        self,
        *,
        lives: tuple[int, ...] = (),
        capacity: int = 4,
        script: Script | None = None,
        loads_at_once: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(script or answering(), capacity=capacity, shuffle=random.Random(seed))
        self.lives = list(lives)
        self.launched = 0
        self.polled = 0
        self.loads_at_once = loads_at_once
        self.checked_for = 0
        self._is_loaded = False
        self._ears: Connection | None = None
        self._mouth: Connection | None = None
        self._told = False  # that it has something to say

    @property
    def source(self) -> Connection:
        assert self._ears
        return self._ears

    def check(self, copies: int) -> None:
        self.checked_for = copies

    def launch(self) -> None:
        self.launched += 1
        self.closed, self._is_loaded, self._told = False, False, False
        self._waiting = []
        self._ears, self._mouth = Pipe(duplex=False)
        self._left = self.lives.pop(0) if self.lives else None
        if self._left == 0:
            self.die()
        elif self.loads_at_once:
            self.finish_loading()

    def finish_loading(self) -> None:
        self._speak_up()

    def die(self) -> None:
        assert self._mouth
        self._mouth.close()

    def loaded(self) -> bool:
        if not self._is_loaded and self.source.poll():
            self._listen()
            self._is_loaded = True
        return self._is_loaded

    def start(self) -> None:
        raise AssertionError("replicas are launched, all of them, and then waited for")

    def submit(self, request: Request) -> None:
        assert self._is_loaded, "asked before it had loaded"
        assert self._mouth
        if self._mouth.closed:
            raise self._death()
        super().submit(request)
        self._speak_up()

    def poll(self, timeout_seconds: float) -> list[Completion]:
        self.polled += 1
        if not self.source.poll(timeout_seconds):
            return []
        self._listen()
        if self._left == 0 and self._waiting and self._waiting[0].id >= 0:
            self.die()
            raise self._death()
        answers = super().poll(timeout_seconds)
        if self._waiting:
            self._speak_up()
        return answers

    def _answer(self, request: Request) -> Completion:
        if self._left is not None and request.id >= 0:
            self._left = max(0, self._left - 1)
        return self.script(request) if request.id >= 0 else super()._answer(request)

    def _speak_up(self) -> None:
        if not self._told:
            assert self._mouth
            self._mouth.send("!")
            self._told = True

    def _listen(self) -> None:
        try:
            self.source.recv()
        except EOFError:
            raise self._death() from None
        self._told = False

    def _death(self) -> EngineError:
        return EngineError(
            f"the model's process ended (life {self.launched}): out of luck; run again to go on"
        )

    def close(self) -> None:
        super().close()
        for end in (self._ears, self._mouth):
            if end is not None:
                end.close()
