"""The `datacreate` of the SLURM tests: the real one, with scripted clients and servers instead of models.

$STALLS is a number of answers: in the first start of a job the engine stops answering after that many.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path

from datacreate.engines.request import Completion
from tests.support.scripted import ScriptedClient, answering
from tests.support.servers import Server

COMMAND = (sys.executable, "-m", "tests.slurm.command")


class Stalling(ScriptedClient):
    """Gives a number of answers, and then none."""

    def __init__(self, answers: int) -> None:
        super().__init__(answering(), slots=1)
        self._answers = answers

    def poll(self, timeout_seconds: float) -> list[Completion]:
        if self._answers <= 0:
            time.sleep(timeout_seconds)
            return []
        done = super().poll(timeout_seconds)
        self._answers -= len(done)
        return done


def serve(folder: Path) -> None:
    """Answer by a script, and register the address, until SIGTERM."""
    with Server() as server:
        path = folder / f"{server.port}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"url": server.url, "max_num_seqs": 4}))
        signal.sigwait([signal.SIGTERM])
        path.unlink()
    sys.exit(75)


if __name__ == "__main__":
    verb = sys.argv[1]
    sys.argv[0] = "datacreate"
    if verb == "serve":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        serve(Path(sys.argv[sys.argv.index("--register-dir") + 1]))
    if verb == "create":
        sys.argv += ["--verify", "off"]  # the words are random
        stalls = os.environ.get("STALLS") if os.environ.get("SLURM_RESTART_COUNT", "0") == "0" else None
        client = Stalling(int(stalls)) if stalls else ScriptedClient(answering())
        import_module("datacreate.creation.run_models").make_client = lambda *_, **__: client
    elif verb == "sweep":
        import_module("datacreate.sweep.run").COMMAND = COMMAND
    import_module("datacreate.cli.main").main()
