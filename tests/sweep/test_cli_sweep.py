"""`datacreate sweep` on the command line."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from datacreate.runs.directory import RunDirectory
from tests.support.inprocess import typed
from tests.support.process import Ended
from tests.sweep.conftest import Bench
from tests.sweep.quick import COMMAND, quick

BOTH = {"conditions": ["human", "tree"], "encoders": ["./models/reader"]}
CELLS = ["creak-human-42", "creak-writer-tree-42"]


def sweep(bench: Bench, *arguments: object) -> Ended:
    words = ["sweep", str(bench.plan), "--out", str(bench.out), *map(str, arguments)]
    with quick(words):
        return typed(*words)


def test_a_dry_run_shows_cells_and_commands_and_writes_nothing(bench: Bench) -> None:
    bench.write(**BOTH)
    ended = sweep(bench, "--dry-run")
    table = [
        ["INDEX", "CELL", "STEPS", "STATE"],
        ["0", "creak-human-42", "0/2", "pending"],
        ["1", "creak-writer-tree-42", "0/3", "pending"],
    ]
    assert (ended.code, [line.split() for line in ended.out.splitlines()[:3]]) == (0, table)
    assert "2 cells; as a job array: --array=0-1" in ended.out
    cells = json.loads(sweep(bench, "--dry-run", "--json").out)
    assert [cell["name"] for cell in cells] == CELLS
    assert cells[1]["steps"][0]["command"][:3] == ["create", "--benchmark", "creak"]
    ended = sweep(bench, "--dry-run", "--index", "1")
    assert ended.code == 0
    _, _, _, name, *commands = ended.out.splitlines()
    assert (name, [line.split()[:2] for line in commands]) == (
        CELLS[1],
        [["datacreate", "create"], ["datacreate", "train"], ["datacreate", "evaluate"]],
    )
    assert not bench.out.exists()


def test_a_dry_run_reports_what_is_missing_and_exits_with_1(bench: Bench) -> None:
    bench.write(conditions=["tree", "random"], encoders=["roberta-large"])
    ended = sweep(bench, "--dry-run")
    assert ended.code == 1
    assert ended.err.startswith("missing: roberta-large is not downloaded: run `datacreate models pull")
    assert len(ended.out.splitlines()) > 3
    ended = sweep(bench)
    assert ended.code == 1
    assert ended.failure.startswith("datacreate: plan plan: nothing was run: roberta-large is not downloaded")


def test_steps_are_lines_on_stderr_and_the_result_is_on_stdout(bench: Bench) -> None:
    bench.write(**BOTH, count=70)
    ended = sweep(bench)
    assert ended.code == 1
    assert [line.rpartition(",")[0] for line in ended.lines] == [
        "2 of 2  creak-writer-tree-42  create  finished",
        "1 of 2  creak-human-42  train-human-reader-70  failed: --count 70 but only 60 rows; "
        "lower --count or add sources",
        "2 of 2  creak-writer-tree-42  train-tree-reader-70  finished",
        "2 of 2  creak-writer-tree-42  evaluate-tree-reader-70  finished",
    ]
    failed, log, counted, _ = ended.out.splitlines()
    assert failed.startswith("creak-human-42  failed: train-human-reader-70: --count 70 but only")
    assert Path(log.split()[-1]).is_file()
    assert counted == "1 failed, 1 finished"
    assert "failed: train-human-reader-70: --count 70" in sweep(bench, "--dry-run").out


def test_a_task_of_an_array_runs_its_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write(**BOTH)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    ended = sweep(bench, "--index", "auto", "--json")
    assert ended.code == 0
    [cell] = json.loads(ended.out)
    assert (cell["name"], cell["state"]) == (CELLS[0], "finished")
    assert [line.split("  ")[0] for line in ended.lines] == [CELLS[0], CELLS[0]]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("auto", "--index auto: give the number of a cell"),
        ("first", "--index first: give the number of a cell"),
        ("2", "plan plan has the cells 0 to 1, and no 2"),
    ],
)
def test_a_wrong_index_is_wrong_usage(index: str, message: str, bench: Bench) -> None:
    bench.write(**BOTH)
    ended = sweep(bench, "--index", index)
    assert ended.code == 2
    assert message in ended.failure


def test_a_signal_stops_the_step_and_the_sweep(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write()
    run = RunDirectory(bench.out / "runs" / "creak-writer-random-42")
    monkeypatch.setenv("SCRIPTED", json.dumps({"gated": True}))  # the engine never answers
    command = [*COMMAND, "sweep", str(bench.plan), "--out", str(bench.out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        while not run.exists:
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, errors.splitlines()[-1]) == (
        75,
        "datacreate: stopped by a signal; finished steps are kept: run the same command to resume",
    )
    with run.locked():  # the step has also ended
        pass


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="Linux ends the step with its sweep")
def test_a_sweep_that_is_killed_leaves_no_step_behind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.write()
    monkeypatch.setenv("SCRIPTED", json.dumps({"gated": True}))
    claim = bench.out / "runs" / "creak-writer-random-42" / ".lock"
    process = subprocess.Popen([*COMMAND, "sweep", str(bench.plan), "--out", str(bench.out)])
    try:
        while not (claim.is_file() and claim.read_text()):
            assert process.poll() is None
            time.sleep(0.02)
        step = claim.read_text().split()[1]  # process 123 on ...
    finally:
        process.kill()
        process.wait()
    while Path(f"/proc/{step}").exists() and "\nState:\tZ" not in Path(f"/proc/{step}/status").read_text():
        time.sleep(0.02)
