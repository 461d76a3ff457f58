"""What every command that writes files promises, whatever interrupts it: see docs/reliability.md."""

from __future__ import annotations

import os
import re
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from datacreate.benchmarks import find_benchmark, read_split
from datacreate.locking import locked
from tests.finetuning.conftest import import_rows, save_encoder
from tests.finetuning.sets import claims
from tests.finetuning.training import trained
from tests.reporting.evaluations import answers, evaluated
from tests.support.faults import at, changes_of, contents, forked, killed, terminated
from tests.support.inprocess import typed
from tests.support.making import make
from tests.support.process import Ended


@dataclass(frozen=True)
class Command:
    """A command that writes into OUT, from inputs in IN; HOME is the data directory."""

    words: str
    lock: str  # the folder in OUT that one process may have
    files: tuple[str, ...]  # in OUT
    start: str | None = None  # a folder in IN with which OUT starts


COMMANDS = {
    "filter": Command(
        "filter IN/run --out OUT/kept.jsonl --rejects OUT/rejects.jsonl --near 0.3",
        ".kept.jsonl.part",
        ("kept.jsonl", "rejects.jsonl"),
    ),
    "export": Command("export IN/run --layout chat --out OUT", ".train_chat.jsonl.part", ("train_chat.jsonl",)),
    "export as a folder": Command("export IN/run --layout hf --out OUT/hf", ".hf.part", ("hf",)),
    "report": Command("report IN/evaluations --out OUT", ".", ("report.md", "report.html", "report.json")),
    "evaluate": Command(
        "evaluate OUT --benchmark creak",
        "evaluations/creak-test",
        ("evaluations/creak-test/predictions.jsonl", "evaluations/creak-test/evaluation.json"),
        "model",
    ),
    "benchmarks import": Command(
        "benchmarks import strategyqa --from IN/reference --allow-count-mismatch",
        "benchmarks/strategyqa",
        ("benchmarks/strategyqa/test.jsonl", "benchmarks/strategyqa/manifest.json"),
    ),
    "benchmarks import --replace": Command(
        "benchmarks import strategyqa --from IN/reference --allow-count-mismatch --replace",
        "benchmarks/strategyqa",
        ("benchmarks/strategyqa/test.jsonl", "benchmarks/strategyqa/manifest.json"),
        "home",
    ),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    """A run, a trained model, evaluations, and a benchmark to import."""
    import torch

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("inputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACREATE_HOME", str(folder / "home"))
        import_rows(folder / "old", "strategyqa", train=claims(9, 4), test=claims(9, 5))
        import_rows(folder / "reference", "creak", train=claims(40, 1), test=claims(20, 2))
        import_rows(folder / "reference", "strategyqa", dev=claims(30, 1), test=claims(20, 2))
        shutil.rmtree(folder / "home" / "benchmarks" / "strategyqa")
        shutil.copytree(folder / "home", folder / "trained")
        import_rows(folder / "old", "strategyqa", train=claims(9, 4), test=claims(9, 5))
        encoder = save_encoder(folder / "encoder")
        trained("creak", folder / "training", str(encoder), epochs=1)
    shutil.copytree(folder / "training" / "seed-1", folder / "model")
    make(folder / "run", model, count=40)
    evaluated(folder / "evaluations" / "one", answers(6, 10))
    return folder


Prepare = Callable[[str, Path], Callable[[], Ended]]


@pytest.fixture
def command(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """A command in an output folder, which is made as it is before the command."""

    def prepared(name: str, out: Path) -> Callable[[], Ended]:
        chosen = COMMANDS[name]
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        if chosen.start:
            shutil.copytree(inputs / chosen.start, out, dirs_exist_ok=True)
        words = chosen.words.replace("IN/", f"{inputs}/").replace("OUT", str(out)).split()
        monkeypatch.setenv("DATACREATE_HOME", str(out if "import" in name else inputs / "trained"))
        return lambda: typed(*words)

    return prepared


def result(out: Path) -> dict[str, Any]:
    """The contents of a folder; a time in them is replaced by a word."""
    found = contents(out)
    return {name: re.sub(rb'"when": "[^"]*"', b"time", content) for name, content in found.items()}


@pytest.mark.parametrize("act", [killed, terminated])
@pytest.mark.parametrize("most", [4, pytest.param(1000, marks=pytest.mark.slow)], ids=["some", "every"])
@pytest.mark.parametrize("name", COMMANDS)
def test_interrupted_at_a_change_of_a_file_the_same_command_gives_the_same_result(
    command: Prepare, tmp_path: Path, name: str, most: int, act: Callable[[], None]
) -> None:
    out, whole = tmp_path / "out", command(name, tmp_path / "out")
    number = changes_of(whole)
    expected = result(out)
    assert set(COMMANDS[name].files) <= expected.keys() | {path.name for path in out.iterdir()}
    assert leftovers(out) == []
    for change in range(number - 1, -1, -max(1, number // most)):
        run = command(name, out)
        code = forked(lambda run=run: run().code, at(change, act))  # type: ignore[misc]
        assert code == 9 if act is killed else code in (0, 75), change
        assert act is killed or leftovers(out) == [], change
        assert run().code == 0
        assert result(out) == expected, change


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.name.endswith((".part", ".lock"))]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_process_is_refused_and_the_message_names_the_first(
    command: Prepare, tmp_path: Path, name: str
) -> None:
    run = command(name, tmp_path / "out")
    with locked(tmp_path / "out" / COMMANDS[name].lock):
        before = result(tmp_path / "out")
        ended = run()
        assert ended.code == 75
        assert f"is locked by process {os.getpid()} on " in ended.failure
        assert result(tmp_path / "out") == before
    assert run().code == 0


@pytest.mark.parametrize("size", [0, 400], ids=["at once", "while it writes"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line_and_what_was_there_stays(
    command: Prepare, tmp_path: Path, name: str, size: int
) -> None:
    out, run = tmp_path / "out", command(name, tmp_path / "out")
    before = result(out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        ended = run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (ended.code, "the disk is full" in ended.failure) == (75, True)
    assert result(out) == before
    assert run().code == 0


@pytest.mark.parametrize("name", ["export", "report", "evaluate", "benchmarks import"])
def test_links_among_the_outputs_are_not_followed(command: Prepare, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for file in COMMANDS[name].files:
        out, run = tmp_path / "out", command(name, tmp_path / "out")
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).unlink(missing_ok=True)
        (out / file).symlink_to(victim)
        run()
        assert victim.read_text() == "mine"


def test_folders_that_are_links_are_refused(command: Prepare, tmp_path: Path, inputs: Path) -> None:
    command("evaluate", tmp_path / "out")
    (tmp_path / "out" / "evaluations").symlink_to(tmp_path)
    run = shutil.copytree(inputs / "run", tmp_path / "run")
    (run / "export").symlink_to(tmp_path)
    before = result(tmp_path)
    for words in (["evaluate", tmp_path / "out", "--benchmark", "creak"], ["export", run, "--layout", "chat"]):
        ended = typed(*map(str, words))
        assert (ended.code, "a symbolic link is there" in ended.failure) == (2, True)
    assert result(tmp_path) == before


def test_the_splits_of_a_benchmark_stay_usable_while_others_are_imported(
    command: Prepare, tmp_path: Path, inputs: Path
) -> None:
    """A kill at any moment of an import without --replace leaves the splits that were there."""
    words = ["benchmarks", "import", "strategyqa", "--from", str(inputs / "reference"), "--allow-count-mismatch"]
    for change in range(99):
        command("benchmarks import --replace", tmp_path / "home")
        if forked(lambda: typed(*words).code, at(change, killed)) == 0:
            break
        assert all(map(partial(read_split, find_benchmark("strategyqa")), ("train", "test")))
    assert change > 3
