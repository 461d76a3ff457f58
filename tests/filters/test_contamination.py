"""Held-out rows are found in examples: copied, changed in a few words, inside longer texts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.benchmarks import find_benchmark, import_benchmark
from datacreate.errors import BenchmarkError
from datacreate.filters.contamination import Contamination
from datacreate.filters.held_out import NgramIndex, hash_words, held_out_sets, ngrams
from datacreate.formats.example import Example
from datacreate.formats.task_format import load_format
from datacreate.formats.text_normalization import normalize_text
from datacreate.formats.validate import Candidate
from tests.benchmarks.conftest import imported, write_reference
from tests.filters.texts import ODD

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
    """One of 1,000 questions of about 16 words."""
    who, what, where = SUBJECTS[i % 10], THINGS[i // 10 % 10], PLACES[i // 100 % 10]
    return f"Why did the {who} carry a {what} into the {where} {REASONS[i % 5]} in year {i}?"


def claim(text: str, passage: str | None = None) -> dict[str, Any]:
    return {"question": text, "context": passage, "options": ["True", "False"], "label": True}


def asked(text: str, passage: str | None = None) -> Candidate:
    return Candidate.of(claim(text, passage), OPEN_BOOK if passage else CLOSED_BOOK)


def against(tmp_path: Path, name: str, test: list[dict[str, Any]], **how: Any) -> Contamination:
    """The filter against these rows, imported as the test split of a benchmark."""
    imported(tmp_path / f"files-{name}", name, {"test": test})
    return Contamination(held_out_sets([name]), **how)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))


def test_copies_are_found_whatever_their_case_punctuation_and_surroundings(tmp_path: Path) -> None:
    filter = against(tmp_path, "creak", [claim(question(i)) for i in range(200)])
    for i in range(200):
        copy = question(i).upper().replace("?", " !").replace(" ", "  ")
        match = str(filter.match(asked(copy)))
        assert match.startswith(f"creak test row {i + 1} (Why did the ")
        assert match.endswith(": n-gram")
    assert filter.match(asked(f"Here is a riddle for you. {question(7)} Think before you answer."))
    other = asked("Can a comet be seen by day, if it is bright?")
    filter.add(other)
    assert filter.match(other) is None, "accepted examples are not held-out rows"


def test_rows_with_two_words_changed_are_found_and_unrelated_ones_are_not(tmp_path: Path) -> None:
    rng = random.Random(0)
    filter = against(tmp_path, "creak", [claim(question(i)) for i in range(300)], near=0.6)
    found = 0
    for i in range(300):
        words = question(i).split()
        for place in rng.sample(range(len(words)), 2):
            words[place] = rng.choice(["grey", "quickly", "seven", "beyond"])
        found += filter.match(asked(" ".join(words))) is not None
    assert found >= 0.8 * 300
    for i in range(300):
        thing, place, who = rng.choice(THINGS), rng.choice(PLACES), rng.choice(SUBJECTS)
        unrelated = f"Can a {thing} from {1700 + i} be worth a {place}, as some {who}s say?"
        assert filter.match(asked(unrelated)) is None


def test_a_question_shorter_than_an_ngram_must_be_repeated_whole(tmp_path: Path) -> None:
    filter = against(tmp_path, "creak", [claim("What is it?"), claim("how do pearls get made")])
    assert filter.match(asked("what is it"))
    assert not filter.match(asked("A parcel lies on the table, what is it that the postman brought?"))
    assert filter.match(asked("Tell me, how do pearls get made, and by whom?"))
    assert not filter.match(asked("How do pearls get lost?"))


def test_ngram_is_the_number_of_consecutive_words(tmp_path: Path) -> None:
    row = "the quiet lighthouse keeper counted every single ship that passed before dawn"
    filter = against(tmp_path, "creak", [claim(row)])
    eight = asked("Is it true that the quiet lighthouse keeper counted every single ship?")
    assert not filter.match(asked("Is it true that the quiet lighthouse keeper counted every single gull?"))
    assert filter.match(eight)
    assert not Contamination(held_out_sets(["creak"]), ngram=9).match(eight)


def test_a_passage_must_share_a_large_part_with_one_row(tmp_path: Path) -> None:
    texts = [" ".join(f"word{row}x{i}" for i in range(200)) for row in range(3)]
    formula = "we conducted a randomised double blind placebo controlled trial in two centres"
    rows = [claim(question(i), f"{formula} {text}") for i, text in enumerate(texts)]
    filter = against(tmp_path, "boolq_open", rows)
    own = " ".join(f"own{i}" for i in range(100))
    cases = {
        texts[1]: True,
        " ".join(texts[1].split()[50:110]): True,
        f"{own} {' '.join(texts[2].split()[:60])}": True,
        f"{formula} {own}": False,  # a common phrase
        f"{own} {' '.join(texts[2].split()[:12])}": False,  # a short quotation
        " ".join(f"{' '.join(text.split()[:22])} {own}" for text in texts): False,  # parts of several rows
        own: False,
    }
    for passage, repeats in cases.items():
        match = filter.match(asked("Is it so that nothing of the kind was ever seen again?", passage))
        assert (match is not None) is repeats, passage[:60]
        assert match is None or "of the n-grams of the passage" in match
    assert "boolq_open test row 2 " in str(filter.match(asked("Is it?", texts[1])))


def test_scripts_without_spaces_are_compared_by_character(tmp_path: Path) -> None:
    filter = against(tmp_path, "creak", [claim("水在一个大气压下于摄氏一百度沸腾。")])
    assert filter.match(asked("请问：水在一个大气压下于摄氏一百度沸腾，对吗？"))
    assert not filter.match(asked("水在山顶上的沸点比较低，对吗？"))


def test_any_text_is_found_if_it_is_a_row_and_passes_if_it_is_not(tmp_path: Path) -> None:
    texts = [text for text in ODD if text and "\ud800" not in text]
    other = against(tmp_path, "creak", [claim(question(1))], near=0.7)
    rows = [claim(f"{question(i)} {text}") for i, text in enumerate(texts)]
    same = against(tmp_path, "strategyqa", rows, near=0.7)
    for row, text in zip(rows, texts, strict=True):
        assert other.match(asked(text, text)) is None
        assert same.match(asked(row["question"]))


def test_the_dev_and_test_splits_of_imported_benchmarks_are_held_out(tmp_path: Path) -> None:
    assert held_out_sets("all") == ()
    rows = {split: [claim(f"{question(i)} {split}")] for i, split in enumerate(("train", "dev", "test"))}
    imported(tmp_path / "files", "strategyqa", rows)
    imported(tmp_path / "files", "creak", {"test": rows["test"]})
    sets = held_out_sets("all")
    splits = [("strategyqa", "dev"), ("strategyqa", "test"), ("creak", "test")]  # in the registry's order
    assert [(each.benchmark, each.split) for each in sets] == splits
    assert held_out_sets(["creak", "creak"]) == sets[2:]
    assert Contamination(sets).match(asked(question(0))) is None, "train rows are not held out"
    assert Contamination(sets).match(asked(question(1)))


def test_missing_and_changed_benchmarks_are_one_line_errors(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"unknown benchmark 'craek' \(did you mean creak\?\)"):
        held_out_sets(["craek"])
    with pytest.raises(BenchmarkError, match=r"creak is not imported: run `datacreate benchmarks import"):
        held_out_sets(["creak"])
    imported(tmp_path / "files", "creak", {"train": [claim(question(1))]})
    with pytest.raises(BenchmarkError, match=r"creak has no test split: `datacreate benchmarks"):
        held_out_sets(["creak"])
    filter = against(tmp_path, "strategyqa", [claim(question(1))])
    write_reference(tmp_path / "other", "strategyqa", {"test": [claim(question(2))]})
    import_benchmark(
        find_benchmark("strategyqa"), tmp_path / "other", allow_count_mismatch=True, replace=True
    )
    with pytest.raises(BenchmarkError, match="imported again in the meantime"):
        filter.match(asked(question(1)))


@given(st.lists(st.text(alphabet="ab cd水", min_size=1, max_size=30), max_size=8), st.integers(1, 5))
def test_ngrams_are_found_in_the_rows_that_have_them(texts: list[str], n: int) -> None:
    pieces = [ngrams(hash_words(text), n) for text in texts]
    index = NgramIndex(pieces)
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
def test_real_test_rows_are_found_and_unrelated_train_rows_are_not(tmp_path: Path) -> None:
    for name in ("csqa", "riddle_sense"):
        import_benchmark(find_benchmark(name), SHARED, allow_count_mismatch=True)
    filter = Contamination(held_out_sets(["csqa"]))
    assert all(filter.match(row) for row in _shared("mcqa_5/csqa/test"))
    assert not any(filter.match(row) for row in _shared("yesno_close/creak/train"))
    # By the same writers after the same pattern: "Where would you go if you wanted to ..."
    own = _shared("mcqa_5/csqa/train")
    assert sum(filter.match(row) is not None for row in own) < 0.01 * len(own)

    riddles = Contamination(held_out_sets(["riddle_sense"]))
    test = {row.key for row in _shared("mcqa_5/riddle_sense/test")}
    recurring = [row for row in _shared("mcqa_5/riddle_sense/train") if row.key in test]
    assert len(recurring) == 16
    assert all(riddles.match(row) for row in recurring)


def _shared(path: str) -> list[Candidate]:
    lines = (SHARED / f"{path}.jsonl").read_text("utf-8").split("\n")
    questions = [json.loads(line)["question"] for line in lines if line]
    return [Candidate(Example({"question": text}), (text,), normalize_text(text)) for text in questions]
