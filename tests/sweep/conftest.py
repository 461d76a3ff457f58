"""Small benchmarks, two checkpoints without weights, and plans that use them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from datacreate.sweep import run
from datacreate.sweep.plan import load_plan
from datacreate.sweep.run import CellState, Sweep
from tests.finetuning.conftest import import_rows
from tests.finetuning.sets import choices, claims
from tests.support.process import ROOT
from tests.sweep.quick import COMMAND, run_here


@pytest.fixture(scope="session")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACREATE_HOME", str(folder / "home"))
        for name in ("creak", "strategyqa"):
            import_rows(folder / "reference", name, train=claims(60, 1), test=claims(20, 2))
    return folder / "home"


@pytest.fixture(autouse=True)
def home(imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with CREAK and StrategyQA, 60 training and 20 test rows each."""
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    return Path(shutil.copytree(imported, tmp_path / "home"))


@pytest.fixture
def csqa(home: Path, tmp_path: Path) -> None:
    """Also CommonsenseQA (without a train split) and RiddleSense."""
    import_rows(tmp_path / "reference", "csqa", dev=choices(20, 5, 1), test=choices(20, 5, 2))
    import_rows(tmp_path / "reference", "riddle_sense", test=choices(20, 5, 3))


@dataclass
class Bench:
    """A folder with a plan, its sweep, and the commands of its steps."""

    folder: Path
    usual: dict[str, Any]

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def plan(self) -> Path:
        return self.folder / "plan.yaml"

    def write(self, **changes: Any) -> Path:
        """Write a plan; by default one cell that creates 10 rows of CREAK."""
        self.plan.write_text(yaml.safe_dump({**self.usual, **changes}))
        return self.plan

    def sweep(self, command: Sequence[str] = COMMAND, index: int | None = None, **changes: Any) -> Sweep:
        return Sweep(load_plan(str(self.write(**changes))), self.out, index, command)

    def run(self, **changes: Any) -> list[CellState]:
        return self.sweep(**changes).run()

    def calls(self) -> list[str]:
        """The commands of the steps since the last call, with relative paths."""
        path = self.folder / "calls"
        found = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.replace(f"{self.out}/", "") for line in found]


@pytest.fixture
def bench(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> Bench:
    shutil.copytree(model, tmp_path / "models" / "writer")
    shutil.copytree(model, tmp_path / "models" / "reader")
    monkeypatch.setenv("QUICK_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("SCRIPTED", json.dumps({}))
    monkeypatch.setattr(run, "run_process", run_here)
    monkeypatch.setattr(run, "_CREATED_AT_ONCE", 1)  # `run_here` patches modules of this process
    monkeypatch.setattr(
        run, "start_shared_servers", lambda *_: nullcontext(run.Resources())
    )  # steps have a scripted client each
    usual = {
        "benchmarks": ["creak"],
        "conditions": ["random"],
        "generators": ["./models/writer"],
        "count": 10,
        "train_seeds": [1],
    }
    return Bench(tmp_path, usual)


def states(outcomes: Sequence[CellState]) -> dict[str, str]:
    return {outcome.cell.name: outcome.state for outcome in outcomes}
