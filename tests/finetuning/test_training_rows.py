"""Sources of training rows: what is read, mixed, sampled, skipped and held out."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.benchmarks import find_benchmark, read_split
from datacreate.errors import DatacreateError, TrainingError, UsageError
from datacreate.finetuning.records import HeadSpec
from datacreate.finetuning.train import make_held_out_splits
from datacreate.finetuning.training_rows import ClassificationExample, TrainingSet, make_training_set, read_source
from datacreate.formats import FormatOptions
from datacreate.runs.directory import RunDirectory
from datacreate.runs.export import export
from tests.finetuning.sets import Row, choices, claims, source_of, write_rows
from tests.support.making import NLI, NLI_LABELS, make

CLAIM: Row = {"question": "Is an apple a tool?", "context": None, "options": ["True", "False"], "label": False}
PASSAGE: Row = CLAIM | {"context": "An apple is a fruit that grows on trees, and people like to eat it."}


def rows_of(*sources: object, **changes: Any) -> TrainingSet:
    return make_training_set([read_source(str(source)) for source in sources], **changes)


def test_the_condition_of_a_run_has_the_settings_that_made_its_rows(home: Path, tmp_path: Path, model: str) -> None:
    make(tmp_path / "plain", model, seed=1)
    make(tmp_path / "near", model, near=0.9, shots=2)
    plain, near = rows_of(tmp_path / "plain").condition, rows_of("csqa", tmp_path / "near").condition
    assert plain.settings is not None
    assert near.settings is not None
    assert set(near.settings) - set(plain.settings) == {"near=0.9", "shots=2"}
    assert not set(plain.settings) - set(near.settings)
    assert rows_of("csqa").condition.settings is None
    older = plain.model_copy(update={"settings": None})
    assert (older.is_same(plain), plain.is_same(near)) == (True, False)


def test_a_benchmark_gives_its_human_train_split(home: Path) -> None:
    found = rows_of("creak")
    assert (found.condition.name, found.condition.benchmark) == ("human", "creak")
    assert (found.condition.count, found.condition.full) == (200, True)
    rows = read_split(find_benchmark("creak"), "train")
    assert [example.text for example in found.examples] == [row["question"] for row in rows]
    names = found.head.names
    assert [names[q.answer_index or 0] == "True" for q in found.examples] == [row["label"] for row in rows]


@pytest.mark.parametrize(
    ("changes", "head"),
    [
        ({}, "questions with 5 options"),
        ({"example": CLAIM}, "the labels True, False"),
        ({"example": PASSAGE}, "the labels True, False"),
        ({"example": NLI, "labels": NLI_LABELS}, "the labels entailment, neutral, contradiction"),
    ],
    ids=["options", "closed book", "open book", "own labels"],
)
def test_a_run_its_file_and_its_export_hold_the_same_questions(
    tmp_path: Path, model: str, changes: dict[str, Any], head: str
) -> None:
    make(tmp_path / "run", model, **changes)
    run, file = rows_of(tmp_path / "run"), rows_of(tmp_path / "run" / "train.jsonl")
    assert run.head.description == head
    assert (run.condition.name, run.condition.count) == ("tree", 25)
    assert run.condition.generator
    assert run.condition.example
    assert [q.text for q in file.examples] == [q.text for q in run.examples]
    named = [[found.head.names[q.answer_index or 0] for q in found.examples] for found in (run, file)]
    assert named[0] == named[1]
    if "labels" not in changes:
        (exported,) = export(RunDirectory(tmp_path / "run"), "jsonl", tmp_path / "exported")
        assert rows_of(exported).head == run.head
        assert rows_of(exported).condition.digest == run.condition.digest


def test_children_of_one_parent_are_one_family(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=43)  # the last request gives more than needed
    found = rows_of(tmp_path / "run")
    families = list(RunDirectory(tmp_path / "run").families())[:43]
    same = [a == b for a in families for b in families]
    assert [a.family == b.family for a in found.examples for b in found.examples] == same
    lines = (tmp_path / "run" / "train.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [q.text for q in found.examples] == [json.loads(line)["question"] for line in lines]


def test_human_and_created_rows_are_mixed(home: Path, tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, strategy="random")
    found = rows_of("csqa", tmp_path / "run")
    assert (found.condition.name, found.condition.benchmark) == ("human+random", "csqa")
    assert found.condition.count == 225
    families = [example.family for example in found.examples]
    assert not set(families[:200]) & set(families[200:])
    assert rows_of(tmp_path / "run", "csqa").condition.name == "human+random"


def test_a_file_with_the_name_of_a_mixture_is_none(tmp_path: Path) -> None:
    assert rows_of(write_rows(tmp_path / "human+tree.jsonl", claims(20, 1))).condition.name.startswith("human-tree (")


def test_a_human_sample_beside_created_rows_is_the_one_without_them(
    home: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "csqa", model, strategy="random")  # a run with the name of a benchmark is not human
    human = read_source("csqa")
    sample, created = human.sample(50, 7), read_source("./csqa")
    assert (human.is_human, created.is_human) == (True, False)
    alone, both = make_training_set([human], count=50, sample_seed=7), make_training_set([sample, created])
    assert make_training_set([sample]).condition == alone.condition
    assert ([e.values for e in both.examples[:50]], both.condition.full) == ([e.values for e in alone.examples], False)
    assert both.condition.name == "human+random"
    with pytest.raises(UsageError, match=r"^--human-count 201: csqa has 200 train rows"):
        human.sample(201, 7)


@given(total=st.integers(2, 40), seed=st.integers(0, 5), data=st.data())
def test_samples_of_one_seed_are_nested(total: int, seed: int, data: st.DataObject) -> None:
    source = source_of(choices(total, 2), "multiple_choice")
    many = data.draw(st.integers(1, total))
    few = data.draw(st.integers(1, many))
    larger = make_training_set([source], count=many, sample_seed=seed)
    smaller = make_training_set([source], count=few, sample_seed=seed)
    assert larger.examples[:few] == smaller.examples
    assert len(set(larger.examples)) == many
    assert (smaller.condition.count, smaller.condition.full) == (few, False)


def test_unusable_rows_are_skipped_and_counted(tmp_path: Path) -> None:
    rows = choices(11, 3)
    rows[0]["options"] = [*rows[0]["options"][:1], rows[0]["label"]]  # the first row is malformed
    rows[2]["label"] = "nothing of it"
    rows[5]["options"] = None
    rows[6]["question"] = "  "
    rows[7]["label"] = f" {rows[7]['label'].upper()} "  # spelling is ignored
    rows[8]["question"] = "8 one\u2028line \u0085 still"
    found = rows_of(write_rows(tmp_path / "rows.jsonl", rows))
    assert len(found.examples) == found.condition.count == 7
    assert sum(found.skipped.values()) == 4
    assert found.skipped["the answer is not among the options"] == 1
    assert found.skipped["2 options, expected 3"] == 1
    assert found.skipped["the inputs are empty"] == 1
    assert rows[8]["question"] in [example.text for example in found.examples]


FLOWS = [("the hills", "the sea"), ("the lake", "the bay"), ("the woods", "the sea")]
NO_LABEL = "no field is recognized as the label of a row, which an encoder learns; name it and its values with --labels"

# The content of a file or its rows, and words of the message.
BAD: dict[str, tuple[str | list[Row], str]] = {
    "empty": ("\n\n", "no rows"),
    "no JSON": ('{"question": "a", "label": true}\n{"a": \n', "line 2: not JSON"),
    "too deep": ("[" * 100_000, "line 1: "),
    "no object": ('{"question": "a", "label": true}\n[1]\n', "line 2: not a JSON object"),
    "no text": ('{"question": "\\ud800", "label": true}\n', "line 1: question: invalid Unicode"),
    "no UTF-8": ('{"question": "\udcff"}\n', "line 1: not UTF-8"),
    "no answers": ([{"text": "one"}, {"text": "two"}], NO_LABEL),
    "one label": (
        [{"text": "one", "label": "x"}] * 9,
        "the field label has 1 different values in 9 rows, and an encoder learns two labels or more",
    ),
    "booleans as texts": (
        [{"text": f"t{i}", "label": label} for i, label in enumerate(["True", False, "False", True, "true"])],
        "3 of 5 rows cannot be used: like line 2: label: false",
    ),
    "answers from the context": (
        [{"context": f"It flows from {a} to {b}.", "question": "Where to?", "answer": b} for a, b in FLOWS],
        NO_LABEL,
    ),
    "few rows": (
        [{"text": f"text {label}", "label": label} for label in "cab"],
        "if these are the labels, add --labels label=a,b,c; else",
    ),
    "all differ": (
        [{"question": f"q {i}", "answer": f"word {i} of many"} for i in range(20)],
        "the field answer has 20 different values in 20 rows",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_an_unusable_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, words = BAD[name]
    path = tmp_path / "rows.jsonl"
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
    else:
        write_rows(path, content)
    with pytest.raises(DatacreateError) as caught:
        rows_of(path)
    for part in (words, str(path)):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_whole_decimals_are_labels(tmp_path: Path) -> None:
    for values, names in (((0.0, 1.0), ("0", "1")), ((1.0, 2.5, 4), ("1", "2.5", "4"))):
        rows = [{"text": f"text {n}", "label": values[n % len(values)]} for n in range(40)]
        found = rows_of(write_rows(tmp_path / "rows.jsonl", rows))
        assert (found.head.names, len(found.examples), found.skipped) == (names, 40, {})


def test_labels_of_a_file_can_be_named(tmp_path: Path) -> None:
    rows = [{"comment": "bad", "mood": "low"}, {"comment": "good", "mood": "high"}, {"comment": "so-so", "mood": "mid"}]
    options = FormatOptions(labels={"mood": "low,mid,high"})
    source = read_source(str(write_rows(tmp_path / "rows.jsonl", rows)), options=options)
    found = make_training_set([source])
    assert found.head.names == ("low", "mid", "high")
    assert [(q.text, q.answer_index) for q in found.examples] == [("bad", 0), ("good", 2), ("so-so", 1)]


def test_sources_of_different_heads_are_not_mixed(home: Path) -> None:
    with pytest.raises(UsageError, match=r"csqa has questions with 5 options, piqa has .* 2 options"):
        rows_of("csqa", "piqa")
    with pytest.raises(UsageError, match="creak has the labels True, False, csqa has questions with 5"):
        rows_of("creak", "csqa")


def test_unfinished_runs_and_missing_sources_are_refused(home: Path, tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=30)
    path = tmp_path / "run" / "config.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(document | {"count": 31}), encoding="utf-8")
    with pytest.raises(TrainingError, match=r"not finished \(30 of 31 examples\)"):
        read_source(str(tmp_path / "run"))
    with pytest.raises(UsageError, match="no run directory, file or benchmark"):
        read_source("csqaa")
    with pytest.raises(DatacreateError, match="not a run directory"):
        read_source(str(tmp_path))


OPTIONS = HeadSpec(head="multiple_choice", names=("0", "1", "2"))
LABELS = HeadSpec(head="sequence_classification", names=("yes", "no", "maybe"))
unhurried = settings(max_examples=40)  # the first example imports sklearn


def examples(answers: Sequence[int], families: Sequence[object]) -> list[ClassificationExample]:
    columns = zip(answers, families, strict=True)
    return [ClassificationExample("q", None, (), answer, family=str(family)) for answer, family in columns]


@unhurried
@given(
    st.sampled_from([OPTIONS, LABELS]),
    st.integers(100, 300),
    st.integers(1, 5),
    st.sampled_from([0, 0.3, 1]),
    st.randoms(use_true_random=False),
)
def test_each_row_is_held_out_once_and_families_stay_on_one_side_unless_they_are_large(
    head: HeadSpec, total: int, size: int, large: float, rng: Random
) -> None:
    families = ["root" if place < large * total else str(place // size) for place in range(total)]
    rng.shuffle(families)
    rows = examples([rng.randrange(3) for _ in range(total)], families)
    splits = make_held_out_splits(rows, head, 10)
    assert splits == make_held_out_splits(rows, head, 10)
    assert sorted(chain.from_iterable(held for _, held in splits)) == list(range(total))
    for kept, held in splits:
        assert sorted(kept + held) == list(range(total))
        assert total / 10 * 0.5 <= len(held) <= total / 10 * 2
        assert {families[i] for i in kept} & {families[i] for i in held} <= {"root"}


@unhurried
@given(st.integers(100, 400), st.floats(0.1, 0.9), st.randoms(use_true_random=False))
def test_labels_keep_their_shares(total: int, share: float, rng: Random) -> None:
    answers = [int(place < share * total) for place in range(total)]
    rng.shuffle(answers)
    for _, held in make_held_out_splits(examples(answers, range(total)), LABELS, 10):
        assert abs(Counter(answers[i] for i in held)[1] / len(held) - sum(answers) / total) <= 1.5 / len(held)


@pytest.mark.parametrize(
    ("head", "size", "digest"),
    [
        (LABELS, 1, "4e2959cb6030fffb"),
        (LABELS, 5, "bf3be9350d4d4262"),
        (OPTIONS, 1, "c7a115222bed9fbb"),
        (OPTIONS, 5, "575ba7e927746d09"),
    ],
)
def test_splits_stay_those_of_the_published_results(head: HeadSpec, size: int, digest: str) -> None:
    """The figures in docs/results.md were measured with these."""
    rows = examples([place * 7 % 13 % 3 for place in range(200)], [place // size for place in range(200)])
    held = [split.held_out for split in make_held_out_splits(rows, head, 10)]
    assert hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16] == digest


def test_a_created_set_and_its_file_are_split_alike_row_by_row(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, count=60)
    file = rows_of(tmp_path / "run" / "train.jsonl")
    alone = [replace(example, family=str(row)) for row, example in enumerate(file.examples)]
    assert make_held_out_splits(file.examples, file.head, 10) == make_held_out_splits(alone, file.head, 10)


def test_rows_of_a_file_with_equal_texts_stay_on_one_side(tmp_path: Path) -> None:
    rows = [{"text": f"Text number {n % 100}{'.' * (n < 100)}", "label": "ab"[n % 2]} for n in range(200)]
    found = rows_of(write_rows(tmp_path / "rows.jsonl", rows))
    for kept, held in make_held_out_splits(found.examples, found.head, 10):
        assert {row % 100 for row in kept} & {row % 100 for row in held} == set()


def test_a_rare_label_leaves_the_others_stratified() -> None:
    answers = [0] * 150 + [1] * 50 + [2]
    for _, held in make_held_out_splits(examples(answers, range(201)), LABELS, 10):
        assert sum(answers[row] == 1 for row in held) == 5
