"""Sources of training rows: what is read, mixed, drawn and left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.benchmarks import read_split
from datacreate.benchmarks.registry import find_benchmark
from datacreate.errors import DatacreateError, TrainingError
from datacreate.finetuning.rows import Source, TrainingSet, read_source, training_set
from datacreate.formats.task_format import load_format
from datacreate.runs.directory import RunDirectory
from datacreate.runs.export import reference
from tests.finetuning.sets import Row, choices, claims, write_rows
from tests.making import NLI, NLI_LABELS, make

CLAIM: Row = {
    "question": "Is an apple a tool?",
    "context": None,
    "options": ["True", "False"],
    "label": False,
}
PASSAGE: Row = CLAIM | {"context": "An apple is a fruit that grows on trees, and people like to eat it."}


def put_together(*sources: object, **wishes: Any) -> TrainingSet:
    return training_set([read_source(str(source)) for source in sources], **wishes)


def test_a_benchmark_gives_its_human_train_split(home: Path) -> None:
    found = put_together("creak")
    assert found.condition.name == "human"
    assert found.condition.benchmark == "creak"
    assert (found.condition.count, found.condition.full) == (200, True)
    rows = read_split(find_benchmark("creak"), "train")
    assert [question.text for question in found.questions] == [row["question"] for row in rows]
    names = found.task.names
    assert [names[q.answer or 0] == "True" for q in found.questions] == [row["label"] for row in rows]


@pytest.mark.parametrize(
    ("example", "changes", "task"),
    [
        ({}, {}, "questions with 5 options"),
        (CLAIM, {}, "the labels True, False"),
        (PASSAGE, {}, "the labels True, False"),
        (NLI, {"labels": NLI_LABELS}, "the labels entailment, neutral, contradiction"),
    ],
    ids=["options", "closed book", "open book", "own labels"],
)
def test_a_run_and_its_file_hold_the_same_questions(
    tmp_path: Path, model: str, example: Row, changes: dict[str, Any], task: str
) -> None:
    told: dict[str, Any] = {"example": example} if example else {}
    make(tmp_path / "run", model, **told, **changes)
    run, file = put_together(tmp_path / "run"), put_together(tmp_path / "run" / "train.jsonl")
    assert run.task.described == task
    assert run.condition.name == "tree"
    assert run.condition.count == 25
    assert run.condition.generator
    assert run.condition.example
    assert set(file.task.names) == set(run.task.names)
    assert [q.text for q in file.questions] == [q.text for q in run.questions]
    named = [[found.task.names[q.answer or 0] for q in found.questions] for found in (run, file)]
    assert named[0] == named[1]


@pytest.mark.parametrize("example", [{}, CLAIM, PASSAGE], ids=["options", "closed book", "open book"])
def test_the_exported_reference_layout_is_the_same_training_set(
    tmp_path: Path, model: str, example: Row
) -> None:
    told: dict[str, Any] = {"example": example} if example else {}
    make(tmp_path / "run", model, **told)
    exported = reference(RunDirectory(tmp_path / "run"), tmp_path / "exported")
    assert put_together(exported).task == put_together(tmp_path / "run").task
    assert put_together(exported).condition.digest == put_together(tmp_path / "run").condition.digest


def test_children_of_one_parent_are_one_family(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=50)
    found = put_together(tmp_path / "run")
    parents = [c.parent for c in RunDirectory(tmp_path / "run").commits() for _ in c.accepted][:50]
    same = [a == b for a in parents for b in parents]
    assert [a == b for a in found.families for b in found.families] == same


def test_a_run_asked_for_more_than_it_has_gives_the_first_that_were_asked_for(
    tmp_path: Path, model: str
) -> None:
    make(tmp_path / "run", model, count=23)  # the last request gives more than is wanted
    found = put_together(tmp_path / "run")
    lines = (tmp_path / "run" / "train.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [q.text for q in found.questions] == [json.loads(line)["question"] for line in lines]


def test_human_and_created_rows_are_mixed(home: Path, tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, strategy="random")
    found = put_together("csqa", tmp_path / "run")
    assert found.condition.name == "human+random"
    assert found.condition.benchmark == "csqa"
    assert found.condition.count == 225
    assert len(set(found.families[:200]) & set(found.families[200:])) == 0
    assert put_together(tmp_path / "run", "csqa").condition.name == "human+random"


def test_what_the_sources_do_not_say_can_be_told(home: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "mine.jsonl", claims(50))
    found = put_together(file, condition="handmade", benchmark="creak")
    assert (found.condition.name, found.condition.benchmark) == ("handmade", "creak")
    assert put_together(file).condition.name == "mine"
    assert put_together(file).condition.benchmark is None
    assert put_together("creak", "strategyqa").condition.benchmark is None


def test_a_question_asked_twice_is_one_family(home: Path) -> None:
    row = claims(1)[0]
    source = read_source("creak")
    assert len(set(source.families)) == 200
    twice = training_set([Source("x", "human", source.format, [row, row], ["a", "a"])])
    assert len(set(twice.families)) == 1


@given(total=st.integers(2, 40), seed=st.integers(0, 5), data=st.data())
def test_draws_of_one_seed_are_nested(total: int, seed: int, data: st.DataObject) -> None:
    rows = choices(total, 2)
    source = Source("x", "tree", load_format("multiple_choice"), rows, [str(i) for i in range(total)])
    many = data.draw(st.integers(1, total))
    few = data.draw(st.integers(1, many))
    larger = training_set([source], count=many, sample_seed=seed)
    smaller = training_set([source], count=few, sample_seed=seed)
    assert larger.questions[:few] == smaller.questions
    assert larger.families[:few] == smaller.families
    assert len(set(larger.questions)) == many
    assert (smaller.condition.count, smaller.condition.full) == (few, False)


def test_draws_of_other_seeds_are_other_rows(home: Path) -> None:
    digests = {put_together("creak", count=50, sample_seed=seed).condition.digest for seed in range(3)}
    assert len(digests) == 3


def test_rows_that_cannot_be_used_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = choices(10, 3)
    rows[2]["label"] = "nothing of it"
    rows[4]["options"] = rows[4]["options"][:2]
    rows[5]["options"] = None
    rows[6]["question"] = "  "
    rows[7]["label"] = f" {rows[7]['label'].upper()} "  # another case is the same answer
    found = put_together(write_rows(tmp_path / "rows.jsonl", rows))
    assert len(found.questions) == 6
    assert found.condition.count == 6
    assert sum(found.left_out.values()) == 4
    assert found.left_out["the answer is not among the options"] == 1
    assert found.left_out["2 options where 3 are needed"] == 1
    assert found.left_out["the question is empty"] == 1


def test_an_odd_row_in_front_says_nothing_about_the_rest(tmp_path: Path) -> None:
    rows = choices(10, 4)
    rows[0]["options"] = [*rows[0]["options"][:2], rows[0]["label"]]
    found = put_together(write_rows(tmp_path / "rows.jsonl", rows))
    assert found.task.classes == 4
    assert sum(found.left_out.values()) == 1


def test_lines_hold_any_unicode(tmp_path: Path) -> None:
    rows = claims(10)
    rows[3]["question"] = "one\u2028line \u0085 \x0b still"
    found = put_together(write_rows(tmp_path / "rows.jsonl", rows))
    assert found.questions[3].text == rows[3]["question"]


BAD: dict[str, tuple[str, str]] = {
    "empty": ("\n\n", "no rows"),
    "no JSON": ('{"a": 1}\n{"a": \n', "line 2 is not JSON"),
    "too deep": ("[" * 100_000, "line 1 is not JSON"),
    "no object": ('{"a": 1}\n[1]\n', "line 2 has no object, where line 1 has a"),
    "wrong columns": ('{"a": 1}\n{"b": 1}\n', "line 2 has columns b, where line 1 has a"),
    "no text": ('{"question": "\\ud800", "label": true}\n', "line 1: question: invalid Unicode"),
    "no answers": ('{"text": "one"}\n{"text": "two"}\n', "an encoder needs options or a fixed set of labels"),
    "one label": ('{"text": "one", "label": "x"}\n' * 9, "1 different answers in 9 rows"),
    "all differ": (
        "".join(f'{{"question": "q {i}", "answer": "word {i} of many"}}\n' for i in range(20)),
        "20 different answers in 20 rows",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    text, words = BAD[name]
    path = tmp_path / "rows.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatacreateError) as caught:
        put_together(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrainingError, match="cannot be read as UTF-8"):
        read_source(str(tmp_path / "rows.jsonl"))


def test_most_labels_outside_the_set_are_an_error_and_few_are_left_out(home: Path, tmp_path: Path) -> None:
    rows: list[Row] = claims(20)
    rows[3]["label"] = "maybe"
    assert put_together(write_rows(tmp_path / "few.jsonl", rows)).left_out == {
        "the answer is not one of the labels": 1
    }
    for row in rows[1:]:
        row["label"] = "maybe"
    with pytest.raises(TrainingError, match="19 of 20 rows cannot be used: the answer is not one of the"):
        put_together(write_rows(tmp_path / "most.jsonl", rows))


def test_sources_of_different_heads_are_not_mixed(home: Path) -> None:
    with pytest.raises(TrainingError, match=r"csqa has questions with 5 options, piqa has .* 2 options"):
        put_together("csqa", "piqa")
    with pytest.raises(TrainingError, match="creak has the labels True, False, csqa has questions with 5"):
        put_together("creak", "csqa")


def test_more_rows_than_there_are_cannot_be_drawn(home: Path) -> None:
    with pytest.raises(TrainingError, match="201 rows were asked for and 200 are there"):
        put_together("creak", count=201)


def test_a_run_that_is_not_finished_is_refused(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=30)
    path = tmp_path / "run" / "config.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"count": 31}), encoding="utf-8")
    with pytest.raises(
        TrainingError, match=r"not finished \(30 of 31 examples\); run its `datacreate create`"
    ):
        read_source(str(tmp_path / "run"))


def test_what_is_nothing_at_all_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no run directory, JSONL file or benchmark"):
        read_source("csqaa")
    with pytest.raises(DatacreateError, match="not a run directory"):
        read_source(str(tmp_path))
