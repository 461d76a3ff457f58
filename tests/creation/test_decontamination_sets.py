"""`create` and `filter` reject examples that repeat rows of benchmarks and of the user's own files."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from datacreate.commands.filter_rows import FilterConfig
from datacreate.creation.decontamination_sets import find_decontamination_sets
from datacreate.engines.request import Completion, Request
from datacreate.errors import BenchmarkError, RunMismatch, UsageError
from datacreate.formats.example import Example
from datacreate.formats.task_format import load_format, specialize
from datacreate.runs.directory import RunDirectory
from datacreate.runs.stats import summary_fields
from tests.benchmarks.conftest import choices, claims, imported
from tests.support.making import commits, examples, make
from tests.support.scripted import Script, ScriptedClient, answering, written

TEST_ROW: dict[str, Any] = {
    "question": "What would the keeper of a lighthouse polish before the evening fog comes in?",
    "context": None,
    "options": ["the lens", "a spoon", "his boots", "the moon", "a saddle"],
    "label": "the lens",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def writing(question: str) -> Script:
    """A writer that writes this question in its third request, and otherwise random ones."""

    def script(request: Request) -> Completion:
        rows = written(request, random.Random(f"{request.id}:{request.messages}"))
        if request.id == 2:
            rows[1] = [question, TEST_ROW["options"]]
        return Completion(request.id, json.dumps(rows), "stop", 50, 50)

    return script


def details(run_dir: Path) -> list[str]:
    """The details of the rejects with the reason `contaminated`."""
    rejects = [reject for commit in commits(run_dir) for reject in commit.rejects]
    return [reject.detail for reject in rejects if reject.reason == "contaminated"]


def report(summary: dict[str, Any]) -> dict[str, Any]:
    [found] = [each for each in summary["filters"] if each["name"] == "contamination"]
    return dict(found)


def test_a_generated_test_row_is_rejected_and_counted(tmp_path: Path, model: str) -> None:
    imported(tmp_path / "files", "csqa", {"test": [*choices(3), TEST_ROW], "dev": choices(2, first=9)})
    run_dir = tmp_path / "run"
    summary = make(run_dir, model, writing(TEST_ROW["question"]))
    [detail] = details(run_dir)
    assert detail.startswith("csqa test row 4 (What would the keeper of a lighthouse polish")
    assert summary["rejected"]["contaminated"] == 1
    assert TEST_ROW["question"] not in {row["question"] for row in examples(run_dir)}
    assert len(examples(run_dir)) == 25
    assert report(summary) == {
        "name": "contamination",
        "reason": "contaminated",
        "on": True,
        "settings": {"decontaminate": ["csqa"], "ngram": 8, "decontaminate_near": 0.7},
        "rejected": 1,
    }
    compared = [(each["name"], each["split"]) for each in summary["compared_with"]]
    assert compared == [("csqa", "dev"), ("csqa", "test")]


def test_a_damaged_test_set_is_refused_before_the_model_loads(tmp_path: Path, model: str, home: Path) -> None:
    imported(tmp_path / "files", "csqa", {"test": [TEST_ROW]})
    [split] = home.rglob("test.jsonl")
    split.write_bytes(split.read_bytes()[:-20])
    client = ScriptedClient(answering())
    with pytest.raises(BenchmarkError, match="was changed after the import"):
        make(tmp_path / "damaged", model, client)
    assert not client.started
    assert not RunDirectory(tmp_path / "damaged").exists


def test_a_set_without_its_test_split_is_said(tmp_path: Path, model: str) -> None:
    imported(tmp_path / "files", "csqa", {"test": [TEST_ROW], "dev": choices(2)})
    imported(tmp_path / "files", "riddle_sense", {"dev": choices(2)})
    summary = make(tmp_path / "run", model, decontaminate=("csqa", "riddle_sense"))
    assert summary_fields(summary)["decontaminated"] == "against csqa, riddle_sense (dev only)"


def test_a_finished_run_does_not_read_benchmarks(tmp_path: Path, model: str, home: Path) -> None:
    imported(tmp_path / "files", "csqa", {"test": [TEST_ROW]})
    made = make(tmp_path / "run", model)
    for split in home.rglob("test.jsonl"):
        split.unlink()
    assert make(tmp_path / "run", model)["accepted"] == made["accepted"]


OPEN_BOOK, CHOICES = load_format("yes_no_open_book"), load_format("multiple_choice")


def write(path: Path, *rows: Any) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_names_are_benchmarks_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_decontamination_sets(["all"], OPEN_BOOK) == ()
    imported(tmp_path / "files", "strategyqa", {s: claims(9, first=9) for s in ("train", "dev", "test")})
    imported(tmp_path / "files", "creak", {"test": claims(3)})
    write(tmp_path / "mine.jsonl", {"text": "a"})
    write(tmp_path / "creak", {"text": "b"})

    def titles(*names: str) -> list[str]:
        return [each.spec.title for each in find_decontamination_sets(names, OPEN_BOOK)]

    everything = ["strategyqa dev", "strategyqa test", "creak test"]  # in the registry's order
    assert titles("all") == everything
    assert titles("mine.jsonl", "all", "./mine.jsonl") == [*everything, "mine.jsonl"]
    assert titles("creak", "creak") == ["creak test"], "a registered name is not a file"
    assert titles("./creak") == ["creak"]
    assert FilterConfig.of(decontaminate="all, mine.jsonl").decontaminate == ("all", "mine.jsonl")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("craek", UsageError, r"craek: no such file, and no benchmark of that name \(did you mean creak\?\)"),
        ("here/mine.jsonl", UsageError, r"here/mine.jsonl: no such file"),
        ("home", UsageError, "a folder without a data set"),
        ("csqa", BenchmarkError, "csqa is not imported: run `datacreate benchmarks import"),
        ("creak", BenchmarkError, "creak has no test split: run `datacreate benchmarks"),
    ],
)
def test_a_missing_test_set_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: type[Exception], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    imported(tmp_path / "files", "creak", {"train": claims(3)})
    with pytest.raises(error, match=message) as raised:
        find_decontamination_sets([name], OPEN_BOOK)
    assert "\n" not in str(raised.value)


def test_rows_of_a_file_are_compared_by_the_inputs_of_the_format_or_by_all_their_values(tmp_path: Path) -> None:
    rows = [
        {"id": 7, "question": "Is it tall?", "context": "A tower.", "label": 0},
        {"question": "Is it new?", "context": None},
        {"question": ["Is it old?"], "context": "A barn."},
        {"sentence": "It is wide.", "scores": [0.5, "high"]},
    ]
    mine = write(tmp_path / "mine.jsonl", *rows)
    [open_book] = find_decontamination_sets([mine], OPEN_BOOK)
    assert list(map(tuple, open_book.read())) == [
        (("Is it tall?", "A tower."), "A tower."),
        (("Is it new?",), ""),
        (("Is it old?", "A barn."), "A barn."),
        (("It is wide.\n0.5\nhigh",), ""),
    ]
    empty = write(tmp_path / "empty.jsonl", {"messages": []}, {"messages": ""})
    [chats] = find_decontamination_sets([empty], load_format("chat"))
    assert not any(row.passage for row in chats.read())
    without_context = specialize(CHOICES, Example(TEST_ROW))
    [closed_book] = find_decontamination_sets([mine], without_context)
    assert [row.text_without_passage for row in closed_book.read()][:2] == ["Is it tall?", "Is it new?"]
    assert not any(row.passage for row in closed_book.read())


def test_rows_of_the_users_own_file_are_rejected(tmp_path: Path, model: str) -> None:
    imported(tmp_path / "files", "csqa", {"test": choices(3)})
    other = {"text": f"Riddle: {TEST_ROW['question']} Say why.", "gold": 3}
    for name, row in (("mine.jsonl", {**TEST_ROW, "id": 4}), ("other.jsonl", other)):
        test_set = write(tmp_path / name, {"question": "Who?"}, row)
        run_dir = tmp_path / f"run-{name}"
        summary = make(run_dir, model, writing(TEST_ROW["question"]), decontaminate=f"all,{test_set}")
        [detail] = details(run_dir)
        assert detail.startswith(f"{name} row 2 (")
        assert report(summary)["settings"]["decontaminate"] == ["csqa", name]
        [csqa, mine] = summary["compared_with"]
        assert (csqa["split"], mine["name"], mine["split"], len(mine["digest"])) == ("test", name, None, 64)
        card = (run_dir / "README.md").read_text("utf-8")
        assert f"| {mine['digest'][:16]}… |" in card
        for file in run_dir.iterdir():
            assert str(tmp_path).encode() not in file.read_bytes(), file


def test_a_file_is_known_by_its_content(tmp_path: Path, model: str) -> None:
    mine, run_dir = write(tmp_path / "mine.jsonl", TEST_ROW), tmp_path / "run"
    made = make(run_dir, model, decontaminate=mine)
    moved = write(tmp_path / "elsewhere" / "mine.jsonl", TEST_ROW)
    assert make(run_dir, model, decontaminate=moved)["accepted"] == made["accepted"]
    write(tmp_path / "mine.jsonl", TEST_ROW, TEST_ROW)
    with pytest.raises(RunMismatch, match=r"made with another version of mine.jsonl: .\w+. stored"):
        make(run_dir, model, decontaminate=mine)
    with pytest.raises(RunMismatch, match=r"--decontaminate: \['mine.jsonl'\] stored, \[\] requested"):
        make(run_dir, model, decontaminate="none")
    both = f"{mine},{moved}"  # of equal name
    make(tmp_path / "both", model, decontaminate=both)
    write(tmp_path / "mine.jsonl", TEST_ROW, TEST_ROW, TEST_ROW)
    with pytest.raises(RunMismatch, match=r"made with another version of mine.jsonl: .\w+. stored"):
        make(tmp_path / "both", model, decontaminate=both)
    (tmp_path / "mine.jsonl").unlink()
    with pytest.raises(UsageError, match=r"mine.jsonl: no such file"):
        make(run_dir, model, decontaminate=mine)


def test_rows_of_a_run_may_share_phrases_but_not_be_repeated(tmp_path: Path, model: str) -> None:
    other = {**TEST_ROW, "question": "Who sleeps?"}  # the writer's words follow from the prompt
    make(tmp_path / "csqa", model, writing(TEST_ROW["question"]), example=other, decontaminate="none")
    found: dict[str, list[str]] = {}
    for name, question in {
        "phrase": "What would the keeper of a lighthouse polish if all boats had already left?",
        "near": TEST_ROW["question"].replace("evening", "thick"),
    }.items():
        make(tmp_path / name, model, writing(question), decontaminate=str(tmp_path / "csqa"))
        found[name] = details(tmp_path / name)
        [run] = RunDirectory(tmp_path / name).read_config().spec.compared_with
        assert (run.name, run.split) == ("csqa/", None)
    assert found["phrase"] == []
    [detail] = found["near"]
    assert detail.startswith("csqa/ row ")
    assert ": Jaccard 0." in detail


def test_rows_of_a_run_are_those_of_its_log(tmp_path: Path, model: str) -> None:
    make(tmp_path / "csqa", model, decontaminate="none")
    path = tmp_path / "csqa" / "train.jsonl"
    [finished] = find_decontamination_sets([str(tmp_path / "csqa")], CHOICES)
    assert finished.spec.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    for damage in (lambda: os.truncate(path, 0), path.unlink):  # as `kill -9` leaves it
        damage()
        [killed] = find_decontamination_sets([str(tmp_path / "csqa")], CHOICES)
        assert killed.spec == finished.spec
        assert len([*killed.read()]) == 25
    make(tmp_path / "other", model, decontaminate=str(tmp_path / "csqa"))
    (tmp_path / "csqa" / "summary.json").unlink()
    (tmp_path / "csqa" / "log.jsonl").unlink()
    with pytest.raises(UsageError, match="csqa: the run has no examples yet"):
        find_decontamination_sets([str(tmp_path / "csqa")], CHOICES)
