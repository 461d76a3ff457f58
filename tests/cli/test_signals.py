"""SIGINT and SIGTERM end a command with 75 and one line, whenever they arrive, and leave no file behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datacreate.errors import Stopped
from datacreate.signals import caught_signals, deferred
from tests.support.inprocess import run
from tests.support.making import COMMONSENSE
from tests.support.process import ROOT, Live
from tests.support.servers import Server

STOPPED = "datacreate: stopped by a signal"


@pytest.fixture
def create(tmp_path: Path, model: str) -> list[object]:
    (tmp_path / "example.json").write_text(json.dumps(COMMONSENSE))
    words = ["create", "--example", tmp_path / "example.json", "--run-dir", tmp_path / "run", "--count", 20]
    return [*words, "--model", model]


IMPORTING = """
import os, sys
module, number, *words = sys.argv[1:]
sys.addaudithook(
    lambda event, details: os.kill(os.getpid(), int(number)) if event == "import" and details[0] == module else None
)
from datacreate.cli.main import main
sys.argv = ["datacreate", *words]
main()
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [("click", signal.SIGINT), ("pydantic", signal.SIGTERM), ("datacreate.creation.loop", signal.SIGTERM)],
)
def test_a_signal_during_start_up(create: list[object], tmp_path: Path, module: str, number: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTING, module, str(number), *map(str, create)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr.splitlines()[-1:]) == (75, [STOPPED])
    assert not (tmp_path / "run").exists()


def test_a_signal_while_waiting_for_servers(create: list[object], tmp_path: Path) -> None:
    with Live(*create[:-2], "--url", "http://127.0.0.1:9", "--wait", 60, real_engine=True) as live:
        live.read_until("waiting up to")
        ended = live.stop(signal.SIGTERM)
    assert (ended.code, ended.failure) == (75, STOPPED)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("answers", [2, 10], ids=["of a stopped run", "of a finished run"])
def test_a_signal_during_the_clean_up(create: list[object], tmp_path: Path, answers: int) -> None:
    """The engine sends it when it is closed; for a stopped run it is the second one."""
    with Live(*create, gated=True, signal_at_close=True) as live:
        live.allow(answers)
        log = tmp_path / "run" / "log.jsonl"
        live.wait_for(lambda: log.exists() and log.read_bytes().count(b"\n") > 2)
        ended = live.stop(signal.SIGTERM) if answers == 2 else live.end()
    assert ended.code == 75
    assert "stopped by a signal" in ended.failure
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == set("config.json log.jsonl train.jsonl summary.json README.md".split())
    assert run(*create).code == 0


AT_MOMENTS = """
import os, sys
from pathlib import Path
# Once for all forks; the test above covers moments of such an import.
import click, httpx2, jinja2, jsonschema, numpy, psutil, pydantic, rensa, scipy.sparse.csgraph
import sklearn.feature_extraction.text, sklearn.model_selection, sklearn.pipeline, sklearn.svm, sklearn.tree

def create(run, *moments):
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.dup2(os.open(f"{run}.err", os.O_CREAT | os.O_WRONLY), 2)
    sys.argv[1:] = ["create", "--run-dir", run, *words]
    from datacreate.cli.main import main
    count = 0
    def hook(event, details):
        nonlocal count
        if event in ("import", "open", "socket.connect", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            count += 1
            if count in moments:
                os.kill(os.getpid(), 15)
            elif not moments:
                os.write(2, b"|")
    sys.addaudithook(hook)
    main()

words = sys.argv[1:]
codes = {"whole": create("whole")}
events = Path("whole.err").read_text().count("|")
for moment in {*(events * n // 13 for n in range(13)), *(events - n**2 for n in range(9))}:
    codes[f"run-{moment}"] = create(f"run-{moment}", moment + 1, *([moment + 4] if moment % 2 else []))
codes["again"] = create(f"run-{moment}", -1)
Path("codes").write_text("\\n".join(f"{name} {code}" for name, code in codes.items()))
"""


@pytest.mark.slow
def test_sigterm_at_any_moment_of_the_start_and_of_the_end(tmp_path: Path) -> None:
    """Half of the runs get a second one soon after. A moment is an import, a connection, or a change of a file."""
    (tmp_path / "example.json").write_text(json.dumps(COMMONSENSE))
    with Server() as server:
        words = f"--example example.json --count 10 --url {server.url} --verify off".split()
        command = [sys.executable, "-c", AT_MOMENTS, *words]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, check=True)
    codes = dict(line.split() for line in (tmp_path / "codes").read_text().splitlines())
    assert (codes.pop("whole"), codes.pop("again")) == ("0", "0")
    assert len(codes) >= 20
    for name, code in codes.items():
        said, folder = (tmp_path / f"{name}.err").read_text(), tmp_path / name
        assert code in ("0", "75"), (name, said)
        assert "Traceback" not in said, (name, said)
        assert not list(folder.glob(".*")), name
        assert code == "75" or len((folder / "train.jsonl").read_bytes().splitlines()) == 10


def test_only_the_first_signal_raises_and_never_in_a_deferred_block() -> None:
    steps = []

    def work() -> None:
        with caught_signals() as signals:
            try:
                with deferred(), deferred():
                    os.kill(os.getpid(), signal.SIGTERM)
                    steps.append(signals.received)
                steps.append("not reached")
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                steps.append("cleaned up")

    with pytest.raises(Stopped):
        work()
    assert steps == [True, "cleaned up"]
