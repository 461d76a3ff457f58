"""The command with a scripted client, for tests that need a process.

`python -m tests.support.driver create --example ...` is `datacreate create --example ...`. The environment
variable SCRIPTED has JSON: `script` (a name below), `slots`, `shuffle` (a seed), `gated`
(each completion waits for a byte on standard input), `loads` (the start waits for a byte), `signal_at_close`
(closing it sends SIGTERM to this process), `real_engine` (no scripted one), `lock_speed` (a factor for the
heartbeats of locks).
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
from collections.abc import Sequence
from typing import Any

from datacreate.cli.main import main
from datacreate.creation import run_models as models
from datacreate.engines.request import Completion, Request, ServerTest
from tests.support.locks import speed_up
from tests.support.scripted import Script, ScriptedClient, answering, saying


def ignorant(request: Request) -> Completion:
    """Obeys the schema, except that the label is always the same."""
    answer = answering()(request)
    items = [["entailment", *item[1:]] for item in json.loads(answer.text)]
    return Completion(request.id, json.dumps(items), "stop", 50, 50)


MARKUP = ["[bold red]a[/] \x1b[31m\u202e b\u2028c 日本\u3000語", ["[link=x]y[/link]", "b", "c", "d", "e"]]


def marked(request: Request) -> Completion:
    text, options = MARKUP
    items = [[f"{text} {request.id} {k}", options] for k in range(5)]
    return Completion(request.id, json.dumps(items).replace("\\u001b", ""), "stop", 50, 50)


SCRIPTS: dict[str, Script] = {
    "answering": answering(),
    "garbage": saying("\x1b[31mnothing of use"),
    "ignorant": ignorant,
    "marked": marked,
}


class Gated(ScriptedClient):
    """Returns one completion per byte on standard input."""

    def poll(self, timeout_seconds: float) -> list[Completion]:
        if self._waiting and self._waiting[0].id < 0:
            return super().poll(timeout_seconds)
        if not select.select([0], [], [], timeout_seconds)[0]:
            return []
        allowed = len(os.read(0, self.max_in_flight))
        if self._shuffle:
            self._shuffle.shuffle(self._waiting)
        done, self._waiting = self._waiting[:allowed], self._waiting[allowed:]
        return [self._answer(request) for request in done]


class Loading(ScriptedClient):
    """Starts when a byte arrives."""

    def start(self, tests: Sequence[ServerTest] = ()) -> None:
        os.read(0, 1)


def client_of(spec: dict[str, Any]) -> ScriptedClient:
    kind = Gated if spec.get("gated") else Loading if spec.get("loads") else ScriptedClient
    shuffle = random.Random(spec["shuffle"]) if "shuffle" in spec else None
    script = SCRIPTS[spec.get("script", "answering")]
    return kind(script, slots=spec.get("slots", 4), shuffle=shuffle, dies_after=spec.get("dies_after"))


if __name__ == "__main__":
    spec = json.loads(os.environ.get("SCRIPTED", "{}"))
    if "lock_speed" in spec:
        speed_up(spec["lock_speed"])
    if not spec.get("real_engine"):
        client = client_of(spec)
        models.make_client = lambda *_, **__: client
        if spec.get("signal_at_close"):
            client.close = lambda: os.kill(os.getpid(), signal.SIGTERM)
    sys.argv[0] = "datacreate"
    main()
