"""Rows of test sets are found in what was created: copied, changed in a few words, inside longer texts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.benchmarks import find_benchmark, import_reference
from datacreate.errors import BenchmarkError
from datacreate.filters.contamination import Contamination
from datacreate.filters.held_out import held_out_sets
from datacreate.filters.ngrams import NgramIndex, hash_words, ngrams
from datacreate.formats.example import Example
from datacreate.formats.task_format import load_format
from datacreate.formats.text_normalization import normalize_text
from datacreate.formats.validate import Candidate, Reason
from tests.benchmarks.conftest import imported, write_reference

SHARED = Path(__file__).parents[3] / "shared" / "benchmarks"

CLOSED_BOOK, OPEN_BOOK = load_format("yes_no_closed_book"), load_format("yes_no_open_book")

SUBJECTS = "baker sailor nurse farmer painter tailor pilot judge miner poet".split()
THINGS = "kettle ladder compass lantern blanket hammer violin mirror basket anchor".split()
PLACES = "harbour attic meadow station cellar orchard chapel market tunnel island".split()
REASONS = [
    "because the rain had come early that autumn",
    "since nobody else in the village wanted it",
    "although the owner had asked for it twice",
    "so that the children would not trip over it",
    "after the clock in the hall had struck nine",
]


def question(i: int) -> str:
    """One of 1,000 questions of 16 words or so."""
    who, what, where = SUBJECTS[i % 10], THINGS[i // 10 % 10], PLACES[i // 100 % 10]
    return f"Why did the {who} carry a {what} into the {where} {REASONS[i % 5]} in year {i}?"


def asked(text: str, passage: str | None = None) -> Candidate:
    values: dict[str, Any] = {
        "question": text,
        "context": passage,
        "options": ["True", "False"],
        "label": True,
    }
    return Candidate.of(values, OPEN_BOOK if passage else CLOSED_BOOK)


def claim(text: str, passage: str | None = None) -> dict[str, Any]:
    return {"question": text, "context": passage, "options": ["True", "False"], "label": True}


def decontaminate(tmp_path: Path, name: str, test: list[dict[str, Any]], **how: Any) -> Contamination:
    imported(tmp_path / f"files-{name}", name, {"test": test})
    return Contamination(held_out_sets([name]), **how)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))


def test_every_copy_is_found_whatever_its_case_and_punctuation(tmp_path: Path) -> None:
    found = decontaminate(tmp_path, "creak", [claim(question(i)) for i in range(200)])
    for i in range(200):
        copy = question(i).upper().replace("?", " !").replace(" ", "  ")
        match = found.match(asked(copy))
        assert match is not None
        assert match.startswith(f"creak test row {i + 1} (Why did the ")
        assert match.endswith(": n-gram")
    assert found.reason is Reason.CONTAMINATED


def test_a_row_inside_a_longer_text_is_found(tmp_path: Path) -> None:
    found = decontaminate(tmp_path, "creak", [claim(question(7))])
    assert found.match(asked(f"Here is a riddle for you. {question(7)} Think before you answer."))


def test_rows_with_a_few_words_changed_are_found_and_other_rows_are_not(tmp_path: Path) -> None:
    """Recall over questions with two words changed at random; precision over made-up others."""
    rng = random.Random(0)
    found = decontaminate(tmp_path, "creak", [claim(question(i)) for i in range(300)], near=0.6)
    hits = 0
    for i in range(300):
        words = question(i).split()
        for place in rng.sample(range(len(words)), 2):
            words[place] = rng.choice(["grey", "quickly", "seven", "beyond"])
        hits += found.match(asked(" ".join(words))) is not None
    assert hits >= 0.8 * 300
    others = [
        f"Can a {rng.choice(THINGS)} from {1700 + i} be worth a {rng.choice(PLACES)}, as some {who}s say?"
        for i in range(300)
        for who in [rng.choice(SUBJECTS)]
    ]
    assert not any(found.match(asked(other)) for other in others)


def test_a_short_question_counts_as_a_whole(tmp_path: Path) -> None:
    found = decontaminate(tmp_path, "creak", [claim("What is it?"), claim("how do pearls get made")])
    assert found.match(asked("what is it"))
    assert not found.match(asked("A parcel lies on the table, what is it that the postman brought?"))
    assert found.match(asked("Tell me, how do pearls get made, and by whom?"))
    assert not found.match(asked("How do pearls get lost?"))


def test_part_of_a_row_below_the_length_of_the_ngram_is_no_repeat(tmp_path: Path) -> None:
    row = "the quiet lighthouse keeper counted every single ship that passed before dawn"
    found = decontaminate(tmp_path, "creak", [claim(row)])
    assert not found.match(asked("Is it true that the quiet lighthouse keeper counted every single gull?"))
    assert found.match(asked("Is it true that the quiet lighthouse keeper counted every single ship?"))
    longer = Contamination(held_out_sets(["creak"]), ngram=9)
    assert not longer.match(asked("Is it true that the quiet lighthouse keeper counted every single ship?"))


def test_a_passage_counts_by_the_share_that_stands_in_one_row(tmp_path: Path) -> None:
    told = [" ".join(f"word{row}x{i}" for i in range(200)) for row in range(3)]
    formula = "we conducted a randomised double blind placebo controlled trial in two centres"
    rows = [claim(question(i), f"{formula} {text}") for i, text in enumerate(told)]
    found = decontaminate(tmp_path, "boolq_open", rows)
    own = " ".join(f"own{i}" for i in range(100))
    cases = {
        told[1]: True,
        " ".join(told[1].split()[50:110]): True,
        f"{own} {' '.join(told[2].split()[:60])}": True,
        f"{formula} {own}": False,  # a formula of the trade
        f"{own} {' '.join(told[2].split()[:12])}": False,  # a quotation
        # bits of all rows, of none a good part
        " ".join(f"{' '.join(text.split()[:22])} {own}" for text in told): False,
        own: False,
    }
    for passage, repeats in cases.items():
        match = found.match(asked("Is it so that nothing of the kind was ever seen again?", passage))
        assert (match is not None) is repeats, passage[:60]
        if match is not None:
            assert "of the n-grams of the passage" in match
    assert "boolq_open test row 2 " in found.match(asked("Is it?", told[1]))  # type: ignore[union-attr]


def test_scripts_without_spaces_are_compared_by_character(tmp_path: Path) -> None:
    found = decontaminate(tmp_path, "creak", [claim("水在一个大气压下于摄氏一百度沸腾。")])
    assert found.match(asked("请问：水在一个大气压下于摄氏一百度沸腾，对吗？"))
    assert not found.match(asked("水在山顶上的沸点比较低，对吗？"))


@pytest.mark.parametrize(
    "text",
    [
        "😀" * 50,
        "‏هل يعيش الجمل في الصحراء‏",
        "one\u2028two\u2029three",
        "word " * 10_000,
        "x" * 50_000,
        "<b>bold</b> & <script>alert(1)</script>",
        "\x00\x07\x1b[31m",
        "?!",
    ],
)
def test_odd_texts_are_found_when_they_are_rows_and_pass_when_they_are_not(tmp_path: Path, text: str) -> None:
    rows = [claim(question(1))]
    found = decontaminate(tmp_path, "creak", rows, near=0.7)
    assert found.match(asked(text, text)) is None
    imported(tmp_path / "again", "strategyqa", {"test": [claim(f"{question(2)} {text}")]})
    with_it = Contamination(held_out_sets(["strategyqa"]), near=0.7)
    assert with_it.match(asked(f"{question(2)} {text}"))


def test_accepted_examples_are_no_test_rows(tmp_path: Path) -> None:
    found = decontaminate(tmp_path, "creak", [claim(question(1))])
    found.add(asked(question(500)))
    assert found.match(asked(question(500))) is None


def test_dev_and_test_of_all_that_is_imported_are_compared_with(tmp_path: Path) -> None:
    assert held_out_sets("all") == ()
    rows = {split: [claim(f"{question(i)} {split}")] for i, split in enumerate(("train", "dev", "test"))}
    imported(tmp_path / "files", "strategyqa", rows)
    imported(tmp_path / "files", "creak", {"test": rows["test"]})
    found = held_out_sets("all")
    # in the registry's order
    assert [(o.benchmark, o.split) for o in found] == [
        ("strategyqa", "dev"),
        ("strategyqa", "test"),
        ("creak", "test"),
    ]
    assert all(len(o.digest) == 64 for o in found)
    assert held_out_sets(["creak", "creak"]) == found[2:]
    assert Contamination(found).match(asked(question(0))) is None, "train rows are no test rows"
    assert Contamination(found).match(asked(question(1)))


def test_what_is_not_there_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"unknown benchmark 'craek' \(did you mean creak\?\)"):
        held_out_sets(["craek"])
    with pytest.raises(
        BenchmarkError, match=r"creak is not imported: run `datacreate benchmarks import DIR`"
    ):
        held_out_sets(["creak"])
    imported(tmp_path / "files", "creak", {"train": [claim(question(1))]})
    with pytest.raises(BenchmarkError, match=r"creak has no test split here: .*`datacreate benchmarks"):
        held_out_sets(["creak"])


def test_rows_imported_anew_in_the_meantime_are_refused(tmp_path: Path) -> None:
    found = decontaminate(tmp_path, "creak", [claim(question(1))])
    write_reference(tmp_path / "other", "creak", {"test": [claim(question(2))]})
    import_reference(tmp_path / "other", find_benchmark("creak"), any_count=True, replace=True)
    with pytest.raises(BenchmarkError, match="imported again in the meantime"):
        found.match(asked(question(1)))


@given(st.lists(st.text(alphabet="ab cd水", min_size=1, max_size=30), max_size=8), st.integers(1, 5))
def test_ngrams_are_found_in_the_rows_that_have_them(texts: list[str], n: int) -> None:
    pieces = [ngrams(hash_words(text), n) for text in texts]
    rows = [np.full(len(piece), i, dtype=np.int32) for i, piece in enumerate(pieces)]
    index = NgramIndex(pieces, rows)
    for i, piece in enumerate(pieces):
        most = index.most_common(piece)
        if not len(piece):
            assert most is None
            continue
        assert most is not None
        assert most[0] <= i
        assert most[1] == len(piece)
    assert index.most_common(ngrams(hash_words("never seen in any of the texts"), n)) is None


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared benchmarks are not on this machine")
def test_real_test_rows_are_all_found_and_unrelated_train_rows_are_not(tmp_path: Path) -> None:
    _import_shared("csqa")
    found = Contamination(held_out_sets(["csqa"]))
    rows = _shared("mcqa_5/csqa/test.jsonl")
    assert all(found.match(_choice(row)) for row in rows)
    unrelated = _shared("yesno_close/creak/train.jsonl")
    assert not any(found.match(asked(row["question"])) for row in unrelated)
    own = _shared("mcqa_5/csqa/train.jsonl")
    # Questions by the same writers after the same pattern: "Where would you go if you wanted to ..."
    assert sum(found.match(_choice(row)) is not None for row in own) < 0.01 * len(own)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared benchmarks are not on this machine")
def test_the_riddles_that_recur_in_test_are_found(tmp_path: Path) -> None:
    _import_shared("riddle_sense")
    found = Contamination(held_out_sets(["riddle_sense"]))
    train = _shared("mcqa_5/riddle_sense/train.jsonl")
    test = {normalize_text(row["question"]) for row in _shared("mcqa_5/riddle_sense/test.jsonl")}
    recurring = [row for row in train if normalize_text(row["question"]) in test]
    assert len(recurring) == 16
    assert all(found.match(_choice(row)) for row in recurring)


def _import_shared(name: str) -> None:
    import_reference(SHARED, find_benchmark(name), any_count=True)


def _shared(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SHARED / path).read_text("utf-8").split("\n") if line]


def _choice(row: dict[str, Any]) -> Candidate:
    return Candidate(Example(row), row["question"], row["question"])
