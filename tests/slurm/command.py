"""The `datacreate` that the jobs of the tests run: the real one, with a scripted engine in the place of vLLM.

$STALLS is a number of answers: in the first start of a job the engine gives no more, and waits to be stopped.
`serve` is a server that answers by a script, in the place of vLLM's; it publishes where it is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

from datacreate.engines.base import Completion
from tests.scripted import ScriptedEngine, answering
from tests.servers import Server

COMMAND = (sys.executable, "-m", "tests.slurm.command")


class Stalling(ScriptedEngine):
    """Gives that many answers, and then none."""

    def __init__(self, answers: int) -> None:
        super().__init__(answering(), capacity=1)
        self._answers = answers

    def poll(self, timeout_seconds: float) -> list[Completion]:
        if self._answers <= 0:
            time.sleep(timeout_seconds)
            return []
        done = super().poll(timeout_seconds)
        self._answers -= len(done)
        return done


def serve(arguments: list[str]) -> None:
    told = dict(zip(arguments[::2], arguments[1::2], strict=True))
    with Server() as server:
        place = Path(told["--register-dir"]) / f"{server.port}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"url": server.url, "max_num_seqs": 4}))
        signal.sigwait([signal.SIGTERM])
        place.unlink()
    sys.exit(75)


if __name__ == "__main__":
    verb = sys.argv[1]
    sys.argv[0] = "datacreate"
    if verb == "serve":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        serve(sys.argv[2:])
    if verb == "create":
        sys.argv += ["--verify", "off"]  # random words, which nobody can verify
        stalls = os.environ.get("STALLS") if not int(os.environ.get("SLURM_RESTART_COUNT", "0")) else None
        engine = Stalling(int(stalls)) if stalls else ScriptedEngine(answering())
        import_module("datacreate.run_models").make_engine = lambda *_, **__: engine
    elif verb == "sweep":
        import_module("datacreate.sweep.run").COMMAND = COMMAND
    import_module("datacreate.cli.main").main()
