"""Damage to the files of a run, before and while it is written: no example is lost, no other file is changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from datacreate.engines.request import Completion, Request
from datacreate.errors import DatacreateError, EngineError, LogDamaged
from tests.inprocess import run
from tests.making import COMMONSENSE, make, train
from tests.scripted import ScriptedEngine, answering


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def replace_by_link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


LOGS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda log: cut(log, 0),
    "one line less": lambda log: log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1])),
    "half": lambda log: cut(log, log.stat().st_size // 2),
    "folder": lambda log: (log.unlink(), log.mkdir()),
    "fifo": lambda log: (log.unlink(), os.mkfifo(log)),
    "dangling link": lambda log: replace_by_link(log, log.with_name("nowhere")),
    "link to a copy": lambda log: (log.rename(log.parent.with_name("log")), log.symlink_to("../log")),
}


@pytest.mark.parametrize("left", ["train.jsonl", "summary.json"])
@pytest.mark.parametrize("how", LOGS)
def test_a_log_without_the_examples_is_damage_and_nothing_is_changed(
    tmp_path: Path, model: str, how: str, left: str
) -> None:
    make(tmp_path / "run", model)
    LOGS[how](tmp_path / "run" / "log.jsonl")
    (tmp_path / "run" / ({"train.jsonl", "summary.json"} - {left}).pop()).unlink()
    (tmp_path / "example.json").write_text(json.dumps(COMMONSENSE))
    before = state(tmp_path / "run")
    common = ("--example", tmp_path / "example.json", "--model", model, "--concurrency", 5, "--num-chains", 5)
    for count in (25, 100):
        ended = run("create", *common, "--run-dir", tmp_path / "run", "--count", count, dies_after=0)
        assert ended.code == 1
        assert "log.jsonl: " in ended.failure
        assert state(tmp_path / "run") == before
    assert run("show", tmp_path / "run").code == 1


def state(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """The files of a folder: their inodes, sizes and contents."""
    found = {path: path.lstat() for path in folder.iterdir()}
    return {
        path.name: (stat.st_ino, stat.st_size, path.read_bytes() if path.is_file() else b"")
        for path, stat in found.items()
    }


CHANGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "truncated": lambda path: os.truncate(path, min(10, path.stat().st_size)),
    "appended to": lambda path: path.write_bytes(path.read_bytes() + b"{}\n"),
    "replaced": lambda path: (path.rename(path.with_name("old")), path.write_bytes(b"")),
}


@pytest.mark.parametrize("name", ["train.jsonl", "log.jsonl"])
@pytest.mark.parametrize("how", CHANGES)
def test_files_that_others_change_during_a_run(tmp_path: Path, model: str, how: str, name: str) -> None:
    for folder in ("quiet", "run"):
        make(tmp_path / folder, model, count=25)
    make(tmp_path / "quiet", model, count=50)

    def script(request: Request) -> Completion:
        if request.id == 8:
            CHANGES[how](tmp_path / "run" / name)
        return answering()(request)

    if name == "train.jsonl":
        make(tmp_path / "run", model, script, count=50)
    else:
        with pytest.raises(LogDamaged, match="changed by another program during this run"):
            make(tmp_path / "run", model, script, count=50)
        with pytest.raises(LogDamaged):
            make(tmp_path / "run", model, count=50)
    finished = len(train(tmp_path / "quiet")) if name == "train.jsonl" else len(train(tmp_path / "run"))
    assert train(tmp_path / "run") == train(tmp_path / "quiet")[:finished]


REPLACED = "config.json.part train.jsonl.part summary.json.part README.md.part train.jsonl summary.json README.md"
GROWING = "log.jsonl vectors.f16 .lock"


@pytest.mark.parametrize("name", (REPLACED + " " + GROWING).split())
def test_links_in_a_run_directory_are_not_followed(tmp_path: Path, model: str, name: str) -> None:
    how = {"count": 50, "strategy": "coverage"}
    with pytest.raises(EngineError):
        make(tmp_path / "run", model, ScriptedEngine(answering(), dies_after=6), **how)
    path, victim = tmp_path / "run" / name, tmp_path / "victim"
    victim.write_bytes(path.read_bytes() if path.is_file() else b"{}")
    before = victim.read_bytes()
    replace_by_link(path, victim)
    with pytest.raises(DatacreateError) if name in GROWING.split() else nullcontext() as caught:
        make(tmp_path / "run", model, **how)
    assert caught is None or caught.value.exit_code == (1 if name == "log.jsonl" else 2)
    assert victim.read_bytes() == before
