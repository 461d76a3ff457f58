"""An engine is one class and its entry in `ENGINES`: a run chooses it, starts its server and recognizes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import pytest

from datacreate.checkpoints.checkpoint import Checkpoint
from datacreate.checkpoints.presets import ServerSettings
from datacreate.commands import doctor
from datacreate.engines import ENGINES
from datacreate.engines.engine import Engine, Send, ServerCommand, ServerInfo, Workload
from datacreate.engines.llamacpp import LLAMACPP
from datacreate.engines.vllm import VLLM
from datacreate.runs.directory import RunDirectory
from tests.engines.helpers import Notes, make
from tests.support.inprocess import typed
from tests.support.process import ROOT

SERVER = """
import os, sys, threading
from tests.support.servers import Server
assert os.environ["NEW_API_KEY"]
with Server(kind="bare", model="tiny", port=int(sys.argv[sys.argv.index("--port") + 1]), page=b"healthy"):
    threading.Event().wait()
"""


class New(Engine):
    name = "new"
    title = "New engine"
    packages = ("pytest",)
    needed_for = "new models"
    key_variable = "NEW_API_KEY"

    def build(self) -> str:
        return "new"

    def speed(self, *, gguf: bool, long_run: bool) -> Literal["fast"]:
        return "fast"

    def command(self, checkpoint: Checkpoint, settings: ServerSettings, work: Workload) -> ServerCommand:
        command = (sys.executable, "-c", SERVER)
        return ServerCommand(self, checkpoint.name, command, {"PYTHONPATH": str(ROOT)}, 4, {"made": "here"})

    async def recognize(self, send: Send, model: str) -> ServerInfo:
        return ServerInfo("7", slots=2)


@pytest.fixture(autouse=True)
def new_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "new", New())
    for other in (VLLM, LLAMACPP):
        monkeypatch.setattr(other, "build", lambda: None)


def test_a_run_chooses_and_starts_a_new_engine(tmp_path: Path, tiny_gguf: Path) -> None:
    notes = Notes()
    make(tmp_path / "run", model=str(tiny_gguf), notes=notes, max_num_seqs=None)
    assert notes.has("starting New engine for tiny")
    record = RunDirectory(tmp_path / "run").read_config().engines["engine"]
    found = {name: record[name] for name in ("engine", "made", "server", "max_num_seqs")}
    assert found == {"engine": "new", "made": "here", "server": "New engine 7", "max_num_seqs": [2]}
    assert RunDirectory(tmp_path / "run").read_config().versions["pytest"] == pytest.__version__


def test_doctor_checks_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "run_import", lambda code: doctor.ImportResult(code, ""))
    found = {finding.name: finding.message for finding in doctor.examine()["software"]}
    assert found["pytest"] == f"{pytest.__version__} cannot be imported: import pytest"
    monkeypatch.setattr(New, "build", lambda _: None)
    found = {finding.name: finding.message for finding in doctor.examine()["software"]}
    assert found["pytest"] == "not installed; needed for new models"


def test_settings_that_it_does_not_have_are_refused(tiny_gguf: Path) -> None:
    ended = typed("serve", "--model", str(tiny_gguf), "--dtype", "float16")
    assert (ended.code, "--dtype: New engine has no such setting" in ended.failure) == (2, True)
    ended = typed("serve", "--model", str(tiny_gguf), "--", "--seed", "1")
    assert (ended.code, "--seed: New engine's server accepts no" in ended.failure) == (2, True)
