"""Damage to the files of a run, before and while it is written: no example is lost, no other file is changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from datacreate.engines.request import Completion, Request
from datacreate.errors import DatacreateError, EngineError, LogDamaged, RunError
from datacreate.review.session import reviewing
from datacreate.runs.directory import RunDirectory
from datacreate.runs.export import export
from tests.review.reviews import edit, reject, review
from tests.support.inprocess import run
from tests.support.making import COMMONSENSE, make, train
from tests.support.scripted import ScriptedClient, answering


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
        is_edited = how in ("truncated", "appended to")  # it has rows that are not from the log
        with pytest.raises(RunError, match=r"train.jsonl was changed outside") if is_edited else nullcontext():
            make(tmp_path / "run", model, script, count=50)
        if is_edited:
            (tmp_path / "run" / name).unlink()
            make(tmp_path / "run", model, count=50)
    else:
        with pytest.raises(LogDamaged, match="changed by another program during this run"):
            make(tmp_path / "run", model, script, count=50)
        with pytest.raises(LogDamaged):
            make(tmp_path / "run", model, count=50)
    finished = len(train(tmp_path / "quiet")) if name == "train.jsonl" else len(train(tmp_path / "run"))
    assert train(tmp_path / "run") == train(tmp_path / "quiet")[:finished]


EDITS: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "edited": (lambda rows: [*rows[:2], rows[2].replace(b"{", b'{"mine": 1, '), *rows[3:]], " (line 3)"),
    "appended": (lambda rows: [*rows, b'{"question": "mine"}\n'], " (line 26)"),
    "repeated": (lambda rows: [*rows, rows[0]], " (line 26)"),
    "repeated in place of another": (lambda rows: [*rows[:-1], rows[0]], " (line 25)"),
    "reordered": (lambda rows: [rows[0], rows[2], rows[1], *rows[3:]], " (line 2)"),
    "removed": (lambda rows: rows[1:], ""),
}


@pytest.mark.parametrize("how", EDITS)
def test_rows_that_are_edited_by_hand_are_never_lost(tmp_path: Path, model: str, how: str) -> None:
    make(tmp_path / "run", model)
    path = tmp_path / "run" / "train.jsonl"
    written, (change, where) = path.read_bytes(), EDITS[how]
    path.write_bytes(b"".join(change(written.splitlines(keepends=True))))
    before = state(tmp_path / "run")
    message = rf"train.jsonl was changed outside of datacreate{re.escape(where)}; change rows with `datacreate review`"
    for work in (
        lambda: make(tmp_path / "run", model),
        lambda: make(tmp_path / "run", model, count=50),
        lambda: export(RunDirectory(tmp_path / "run"), "jsonl"),
        lambda: reviewing(RunDirectory(tmp_path / "run")).__enter__(),
    ):
        with pytest.raises(RunError, match=message):
            work()
    assert state(tmp_path / "run") == before
    path.rename(path.with_name("edited.jsonl"))
    make(tmp_path / "run", model)
    assert path.read_bytes() == written


def test_an_older_or_reformatted_train_file_is_no_edit(tmp_path: Path, model: str) -> None:
    make(tmp_path, model)
    with suppress(KeyboardInterrupt), review(tmp_path) as session:
        edit(session, 1, question="Where is the edited row?")
        reject(session, 2)
        raise KeyboardInterrupt  # before train.jsonl follows these decisions
    make(tmp_path, model)
    rows = train(tmp_path)
    assert b"Where is the edited row?" in rows
    for content in (rows.rstrip(b"\n"), rows.replace(b"\n", b"\r\n"), b""):
        (tmp_path / "train.jsonl").write_bytes(content)
        make(tmp_path, model)
        assert train(tmp_path) == rows


REPLACED = "config.json.part train.jsonl.part summary.json.part README.md.part train.jsonl summary.json README.md"
GROWING = "log.jsonl vectors.f16 .lock"


@pytest.mark.parametrize("name", (REPLACED + " " + GROWING).split())
def test_links_in_a_run_directory_are_not_followed(tmp_path: Path, model: str, name: str) -> None:
    how = {"count": 50, "strategy": "coverage"}
    with pytest.raises(EngineError):
        make(tmp_path / "run", model, ScriptedClient(answering(), dies_after=6), **how)
    path, victim = tmp_path / "run" / name, tmp_path / "victim"
    victim.write_bytes(path.read_bytes() if path.is_file() else b"{}")
    before = victim.read_bytes()
    replace_by_link(path, victim)
    with pytest.raises(DatacreateError) if name in GROWING.split() else nullcontext() as caught:
        make(tmp_path / "run", model, **how)
    assert caught is None or caught.value.exit_code == (1 if name == "log.jsonl" else 2)
    assert victim.read_bytes() == before
