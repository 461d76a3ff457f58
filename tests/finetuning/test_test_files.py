"""Test files: they are read with the inputs and labels that the model has learned."""

from __future__ import annotations

import json
from pathlib import Path

from datacreate.finetuning.evaluate import grade, read_test_file
from datacreate.finetuning.training_rows import make_training_set, read_source
from datacreate.formats import FormatOptions
from datacreate.formats.task_format import read_format
from tests.finetuning.sets import one_hot, write_rows


def test_a_test_file_has_the_inputs_that_the_model_has_learned(tmp_path: Path) -> None:
    def row(number: int, **more: str) -> dict[str, str]:
        words = {"instruction": "Classify.", "premise": f"it is {number}", "hypothesis": f"so {number}"}
        return {**words, "label": ("yes", "no", "maybe")[number % 3], **more}

    learned = make_training_set([read_source(str(write_rows(tmp_path / "train.jsonl", [row(n) for n in range(60)])))])
    known = [read_format(document) for document in learned.formats]
    more = [row(n, genre=f"fiction of {n}", guess=("no", "yes")[n % 2]) for n in range(9)]
    test = write_rows(tmp_path / "test.jsonl", more)
    found = read_test_file(test, learned.head, FormatOptions(), known)
    assert [one.text for one in found.usable] == [one.text for one in learned.examples[:9]]
    other = learned.head.model_copy(update={"names": ("yes", "no", "maybe")})
    schema = tmp_path / "format.json"
    schema.write_text(json.dumps(known[0].document()))
    for changed in (
        {"labels": {"label": "yes,no,maybe"}},
        {"answer": "label"},
        {"inputs": ("instruction", "premise", "hypothesis")},
        {"ignore": ("genre", "guess")},
        {"format": str(schema)},
    ):
        found_alike = read_test_file(test, learned.head, FormatOptions.of(**changed), known)
        assert found_alike.examples == found.examples, changed
    shorter = [{name: text for name, text in row(n).items() if name != "premise"} for n in range(9)]
    sources = [read_source(str(write_rows(tmp_path / "shorter.jsonl", shorter))), read_source(str(test))]
    known_two = [read_format(document) for document in make_training_set(sources).formats]
    [two, *_] = read_test_file(test, learned.head, FormatOptions(), known_two).usable
    assert (two.passage, "guess: " in two.text) == ("it is 0", True), "the format with most of the fields"
    guesses = read_test_file(test, learned.head, FormatOptions(answer="guess"), known)
    assert guesses.labels == [one["guess"] for one in more], "options that contradict the format decide"
    renamed = [{"truth": one.pop("label"), **one} for one in map(row, range(9))]
    of_other_fields = write_rows(tmp_path / "renamed.jsonl", renamed)
    [first, *_] = read_test_file(of_other_fields, learned.head, FormatOptions(answer="truth"), known).usable
    assert (first.text, first.passage) == ("so 0", "it is 0"), "without the instruction, as in a training"
    digests = {read_test_file(test, head, FormatOptions(), known).sha256 for head in (learned.head, other)}
    assert digests == {found.sha256}
    shouted = write_rows(tmp_path / "shouted.jsonl", [one | {"premise": one["premise"].upper()} for one in more])
    assert read_test_file(shouted, other, FormatOptions(), known).sha256 not in digests


def test_null_is_no_answer_and_not_the_label_none(tmp_path: Path) -> None:
    rows = [{"text": f"it is {n}", "label": ("none", "hate", None)[n % 3]} for n in range(60)]
    learned = make_training_set([read_source(str(write_rows(tmp_path / "train.jsonl", rows)))])
    assert (learned.head.names, len(learned.examples), learned.skipped.keys()) == (
        ("hate", "none"), 40, {"the answer is not one of the labels"},
    )  # fmt: skip
    csv = tmp_path / "test.csv"
    csv.write_text("text,label\n" + "".join(f"{row['text']},{row['label'] or ''}\n" for row in rows))
    test = read_test_file(csv, learned.head, FormatOptions(), list(map(read_format, learned.formats)))
    _, found = grade(test, one_hot([example.answer_index or 0 for example in test.usable]))
    assert (found.classes, found.score, found.accuracy, found.unanswered) == (2, 1, 2 / 3, 20)
    asked = [
        {"question": f"which of {n}", "options": ["None", f"a {n}", "b"], "answer": ("b", "None", None)[n % 3]}
        for n in range(60)
    ]
    learned = make_training_set([read_source(str(write_rows(tmp_path / "asked.jsonl", asked)))])
    assert [example.answer_index for example in learned.examples] == [2, 0] * 20
