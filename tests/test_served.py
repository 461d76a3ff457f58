"""Two real servers of vLLM's, one killed while it works: nothing is lost, and it is taken back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from datacreate import CreateConfig, create
from datacreate.runs.directory import RunDirectory
from tests.guard import LOG
from tests.making import COMMONSENSE, examples
from tests.offline.guarding import Guarded
from tests.process import ROOT
from tests.servers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from datacreate.runs.summary import Tally

pytestmark = [pytest.mark.model, pytest.mark.slow]

MODEL = "qwen2.5-coder-0.5b-instruct"
COUNT = 60


class Serving:
    """`datacreate serve` as a process, and its address as soon as it is published."""

    def __init__(self, folder: Path, port: int, calls: Path) -> None:
        self.published = folder / f"127.0.0.1-{port}.json"
        self.url = f"http://127.0.0.1:{port}"
        self._log = folder.parent / f"serve-{port}.log"
        self._command = [sys.executable, "-m", "datacreate", "serve", "--model", MODEL, "--enforce-eager"]
        self._command += ["--port", str(port), "--publish", str(folder), "--max-num-seqs", "8"]
        paths = os.pathsep.join([str(ROOT / "tests" / "offline" / "guarded"), str(ROOT)])
        # Two engines on the same cores: threads that spin while they wait keep each other from working.
        passive = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "GOMP_SPINCOUNT": "0"}
        self._environment = {**os.environ, **passive, "PYTHONPATH": paths, LOG: str(calls)}
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )

    def ready(self) -> None:
        until(lambda: self.published.exists() or self.process.poll() is not None, 300)
        assert self.process.poll() is None, self._log.read_text(encoding="utf-8")[-2000:]

    def kill(self) -> None:
        """SIGKILL to the server, all of it; what published it notices, and ends by itself."""
        [server] = [int(pid) for pid in _children(self.process.pid)]
        os.killpg(server, signal.SIGKILL)

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


@contextmanager
def serving(folder: Path, port: int, calls: Path) -> Iterator[Serving]:
    one = Serving(folder, port, calls)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.end()


class Watching:
    """A `Progress` that does things as soon as so many examples are there."""

    def __init__(self, steps: dict[int, Callable[[], None]]) -> None:
        self.said: list[str] = []
        self._steps = steps

    def note(self, text: str) -> None:
        print(text)
        self.said.append(text)

    def update(self, tally: Tally, count: int) -> None:
        for number in [number for number in self._steps if tally.accepted >= number]:
            self._steps.pop(number)()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_one_of_two_servers_is_killed_while_it_works(tmp_path: Path) -> None:
    folder = tmp_path / "servers"
    with ExitStack() as stack:
        calls = Guarded(tmp_path / "calls.jsonl")
        first, second = (stack.enter_context(serving(folder, free_port(), calls.log)) for _ in range(2))
        first.ready()
        second.ready()
        watching = Watching({20: first.kill})
        told = {"example": COMMONSENSE, "count": COUNT, "verify": "keep", "against": ()}
        summary = create(
            CreateConfig.of(run_dir=tmp_path / "run", urls=(str(folder),), **told), progress=watching
        )
        assert first.process.wait(60) == 75  # it had worked, and may be started again
        assert not first.published.exists()
        assert second.end() == 75
    assert calls.called == set()
    assert {"vllm", "transformers"} <= {line["library"] for line in calls.noted("import")}
    run = RunDirectory(tmp_path / "run")
    questions = [example["question"] for example in examples(run.path)]
    assert len(questions) == len(set(questions)) == summary["accepted"] == COUNT
    numbers = [commit.request for commit in run.commits()]
    assert numbers == list(range(len(numbers)))
    assert any(first.url in said and "it is left" in said for said in watching.said)
    assert all(verdict is not None for verdict in run.verdicts())
    assert run.read_config().identity.model == MODEL
    print({name: summary[name] for name in ("accepted", "requests", "rejected", "seconds")})
