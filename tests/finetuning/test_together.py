"""Several processes train one model together, and fail and stop as one."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from datacreate.errors import Stopped, TrainingError
from datacreate.finetuning.directory import read_model
from datacreate.finetuning.evaluate import evaluate
from datacreate.finetuning.together import LEFT_ALONE, run_together
from tests.offline.guarding import Guarded, unset
from tests.process import Live

SCRIPT = """
import os, signal, sys, time
rank = int(os.environ["RANK"])
how = sys.argv[1:][rank]
print("rank", rank, "of", os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"])
if how == "wait":
    time.sleep(60)
if how == "patient":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    open(f"ready {rank}", "w").close()
    time.sleep(60)
if how.startswith("-"):
    os.kill(os.getpid(), -int(how))
if int(how):
    print(f"datacreate: {rank} failed", file=sys.stderr)
sys.exit(int(how))
"""


def together(*how: str) -> int:
    return run_together([sys.executable, "-c", SCRIPT, *how], len(how))


def test_all_are_told_their_places_and_the_first_one_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    assert together("0", "0", "0") == 0
    assert capfd.readouterr().out == "rank 0 of 3 0\n"


def test_when_the_first_fails_its_code_is_the_commands_and_the_others_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert together("2", "wait") == 2
    assert capfd.readouterr().err == "datacreate: 0 failed\n"


def test_when_another_fails_its_line_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert together("wait", "0", "1") == 1
    assert capfd.readouterr().err == "datacreate: 2 failed\n"
    assert together(str(LEFT_ALONE), "1") in (1, LEFT_ALONE)


def test_a_killed_process_is_told_of() -> None:
    with pytest.raises(TrainingError, match=r"process 2 of 2 was ended by SIGKILL.*--device-batch-size"):
        together("wait", "-9")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.chdir(tmp_path)

    def when_ready(*ranks: int) -> None:
        while not all((tmp_path / f"ready {rank}").exists() for rank in ranks):
            time.sleep(0.02)  # and leave them the processor
        os.kill(os.getpid(), number)

    threading.Thread(target=when_ready, args=(0, 1), daemon=True).start()
    assert together("patient", "patient") == 75
    (tmp_path / "ready 1").unlink()
    threading.Thread(target=when_ready, args=(1,), daemon=True).start()
    with pytest.raises(Stopped):
        together("wait", "patient")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow
def test_two_processes_train_one_model_stop_together_and_go_on(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    """And none of them calls anything but this machine, or lets a library do so."""
    out = tmp_path / "out"
    told = ["--encoder", encoder, "--out", out, "--learning-rates", "3e-3", "--nproc", 2]
    asked = ["train", "creak", *told, "--epochs", 8, "--seeds", "1,2", "--json"]
    with Live(*asked) as process:
        process.wait_for(lambda: any(out.glob(".trials/*/checkpoint-*")))
        ended = process.stop(signal.SIGTERM)
    assert ended.code == 75
    assert "stopped by a signal after step" in ended.failure
    guarded = Guarded(tmp_path / "calls.jsonl")
    assert [model["seed"] for model in json.loads(guarded.run(*asked).out)] == [1, 2]
    assert {path.name for path in out.iterdir()} == {"training.json", "seed-1", "seed-2"}
    for seed in (1, 2):
        assert read_model(out / f"seed-{seed}").steps == 8 * 12
        [found] = evaluate(out / f"seed-{seed}", ["creak"])
        assert found.scores.accuracy == 1
    assert guarded.called == set()
    assert {"0", "1"} <= {line["environment"].get("RANK") for line in guarded.noted("import")}
    assert [line["command"] for line in guarded.noted("import") if unset(line)] == []
