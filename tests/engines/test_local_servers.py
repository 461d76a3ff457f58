"""llama.cpp's own servers as a run starts them: on a port of their own, restarted once, gone with the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from datacreate.checkpoints import resolve
from datacreate.create import create
from datacreate.engines.base import Completion, Request, Sampling, scoring
from datacreate.engines.factory import make_engine
from datacreate.engines.settings import EngineOptions
from datacreate.errors import EngineError, ServersGone
from datacreate.hardware import has_llamacpp
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from tests.engines.asking import Notes, is_exact
from tests.making import COMMONSENSE
from tests.process import ROOT
from tests.servers import until
from tests.tiny_model import write_gguf

pytestmark = pytest.mark.skipif(not has_llamacpp(), reason="llama.cpp (xllamacpp) is not installed here")

SMALL = {"engine": "llamacpp", "max_num_seqs": 4, "num_examples": 2, "concurrency": 4, "verify": "off"}


def servers_of(pid: int) -> list[psutil.Process]:
    """The servers below a process, by their own processes and not those that watch them."""
    found = []
    for each in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if each.cmdline()[1:3] == ["-m", "datacreate.engines.llamacpp_server"]:
                found.append(each)
    return found


def port_of(server: psutil.Process) -> str:
    words = server.cmdline()
    return words[words.index("--port") + 1]


class Watching(Notes):
    """A `Progress` that does something after every commit."""

    def __init__(self, on_commit: Callable[[], object]) -> None:
        super().__init__()
        self._on_commit = on_commit

    def update(self, *_: object) -> None:
        self._on_commit()


def make(run_dir: Path, model: Path, notes: Notes, **changes: Any) -> None:
    told = {"example": COMMONSENSE, "count": 30, "model": str(model), "decontaminate": (), **SMALL, **changes}
    create(CreateConfig.of(run_dir=run_dir, **told), progress=notes)


def test_a_model_in_a_file_is_asked_through_a_server_of_its_own(tiny_gguf: Path, tmp_path: Path) -> None:
    options = EngineOptions(engine="llamacpp", max_num_seqs=2)
    engine = make_engine(resolve(str(tiny_gguf), "instruct"), options, count=5)
    try:
        engine.start()
        [server] = servers_of(os.getpid())
        assert (engine.capacity, engine.urls, engine.max_context) == (2, (), 2048)
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}]
        assert 10 < engine.count_tokens(messages) < 100
        assert engine.tells_apart(["yes", "no"])
        assert not engine.tells_apart(["yes", "yes"])
        schema = {
            "type": "array",
            "prefixItems": [{"const": "a b"}, {"enum": [1, 2]}],
            "minItems": 2,
            "maxItems": 2,
        }
        engine.submit(Request(1, messages, json.dumps(schema), Sampling(max_tokens=50)))
        engine.submit(scoring(-2, messages, ("A", "B", "C")))
        answers: dict[int, Completion] = {}
        while len(answers) < 2:
            answers |= {answer.request_id: answer for answer in engine.poll(60.0)}
        assert answers[1].text in ('["a b",1]', '["a b",2]')  # without a space that need not be
        assert answers[1].generated_tokens > 0
        assert sum(answers[-2].scores) == pytest.approx(1)
        assert len(set(answers[-2].scores)) == 3
    finally:
        engine.close()
    assert not server.is_running()


def test_a_server_that_is_killed_is_restarted_once_and_nothing_is_lost(
    tmp_path: Path, tiny_gguf: Path
) -> None:
    killed: list[psutil.Process] = []

    def kill_once() -> None:
        if not killed:
            killed.extend(servers_of(os.getpid()))
            killed[0].kill()

    notes = Watching(kill_once)
    make(tmp_path / "run", tiny_gguf, notes)
    is_exact(tmp_path / "run", 30)
    assert len(killed) == 1
    assert notes.has("llama.cpp server for tiny ended", "restarted", "are repeated")
    rejects = [
        reject.reason for commit in RunDirectory(tmp_path / "run").commits() for reject in commit.rejects
    ]
    assert "no_response" not in rejects
    assert servers_of(os.getpid()) == []


def test_one_that_is_killed_again_ends_the_run_resumable(tmp_path: Path, tiny_gguf: Path) -> None:
    notes = Watching(lambda: [server.kill() for server in servers_of(os.getpid())])
    with pytest.raises(ServersGone, match=r"ended \(exit code -9\).*\(again\); run the same command") as gone:
        make(tmp_path / "run", tiny_gguf, notes, count=1000)
    assert gone.value.exit_code == 75
    assert servers_of(os.getpid()) == []


def test_a_server_that_cannot_start_is_one_line_with_the_last_error_of_its_log(tmp_path: Path) -> None:
    damaged = write_gguf(tmp_path / "damaged.gguf", without="blk.1.attn_k.weight")
    says = r"llama.cpp server for damaged ended \(exit code 1\): .*tensor 'blk\.1\.attn_k\.weight' not found"
    with pytest.raises(EngineError, match=says) as refused:
        make(tmp_path / "run", damaged, Notes())
    assert "\n" not in str(refused.value)
    assert Path(str(refused.value).rpartition("its log is ")[2]).is_file()


def test_runs_at_the_same_time_have_servers_of_their_own_which_end_with_them(
    tmp_path: Path, tiny_gguf: Path
) -> None:
    (tmp_path / "example.json").write_text(json.dumps(COMMONSENSE))
    words = ["create", "--example", tmp_path / "example.json", "--count", "100000", "--model", tiny_gguf]
    words += ["--engine", "llamacpp", "--max-num-seqs", "4", "--num-examples", "2", "--verify", "off"]
    runs: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> None:
        command = [sys.executable, "-m", "datacreate", *map(str, words), "--run-dir", str(tmp_path / name)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (tmp_path / f"{name}.err").open("wb") as err:
            runs.append(subprocess.Popen(command, env=environment, stderr=err, stdout=subprocess.DEVNULL))

    def writes(name: str) -> bool:
        log = tmp_path / name / "log.jsonl"
        return log.exists() and b'"request"' in log.read_bytes()

    try:
        start("first")
        start("second")
        until(lambda: writes("first") and writes("second"), 120)
        first, second = (servers_of(run.pid) for run in runs)
        below = [psutil.Process(run.pid).children(recursive=True) for run in runs]
        assert len({port_of(server) for server in first + second}) == 2
        runs[0].kill()  # kill -9
        _, alive = psutil.wait_procs(below[0], timeout=10)
        assert alive == []
        runs[1].send_signal(signal.SIGTERM)
        assert runs[1].wait(60) == 75
        assert not any(process.is_running() for process in below[1])
        assert b"run the same command" in (tmp_path / "second.err").read_bytes()
    finally:
        for run in runs:
            run.kill()
            run.wait()
