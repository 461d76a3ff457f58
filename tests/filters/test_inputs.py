"""What `create` and `filter` take for a repeat: equal inputs, not an equal question, subject or instruction."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datacreate.engines.base import Completion, Request
from datacreate.filtering import DatasetFilterSettings, filter_rows
from tests.making import NLI, NLI_LABELS, examples, make
from tests.scripted import Script, written

CASES = Path(__file__).parents[3] / "shared" / "cases"

CONSTANT: dict[str, Any] = {
    "properties": {
        "question": {"const": "Is the review positive?"},
        "context": {"type": "string"},
        "answer": {"enum": ["yes", "no"]},
    },
    "x-datacreate": {"roles": {"question": "question", "context": "context", "answer": "answer"}},
}
REVIEW = {"question": "Is the review positive?", "context": "A fine film.", "answer": "yes"}
SPAN = {"context": "The Elbe flows to the sea.", "question": "Where does it end?", "answer": "the sea"}
MAIL = {"subject": "Hello", "body": "Shall we meet on Friday?", "label": "ham"}
TOPIC = {"instruction": "Give the topic.", "input": "pepper copper lantern", "output": "sea"}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))


def writing(texts: Callable[[int], list[str]], copied: list[str]) -> Script:
    """Writes `texts(i)` into row i. The second request repeats row 0, the third copies the formatting example."""

    def script(request: Request) -> Completion:
        rows = written(request, random.Random(request.id))
        for place, row in enumerate(rows):
            found = iter(texts(5 * request.id + place))
            if place == 0 and request.id in (1, 2):
                found = iter(texts(0) if request.id == 1 else copied)
            row[:] = [next(found) if str(value).startswith("word ") else value for value in row]
        return Completion(request.id, json.dumps(rows), "stop", 50, 50)

    return script


@pytest.mark.parametrize(
    ("example", "how", "texts"),
    [
        (REVIEW, {"format": "constant.json"}, lambda i: [f"Film number {i} was long."]),
        (NLI, {"labels": NLI_LABELS}, lambda i: [f"Man number {i} sleeps.", "Somebody rests."]),
        (SPAN, {}, lambda i: [f"River {i} flows to bay {i}.", "Where does it end?", f"bay {i}"]),
        (MAIL, {"labels": {"label": "ham,spam"}}, lambda i: ["Hello", f"Shall we meet in room {i}?"]),
        (TOPIC, {}, lambda i: ["Give the topic.", f"lantern orchard {i}", "land"]),
    ],
    ids=["constant question", "hypothesis", "span", "subject", "instruction"],
)
def test_create_rejects_equal_inputs_only(
    tmp_path: Path,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
    example: dict[str, Any],
    how: dict[str, Any],
    texts: Callable[[int], list[str]],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("constant.json").write_text(json.dumps(CONSTANT))
    not_written = ("yes", "entailment", "ham", CONSTANT["properties"]["question"]["const"])
    copied = [value for value in example.values() if value not in not_written]
    summary = make(tmp_path / "run", model, writing(texts, copied), example=example, count=25, **how)
    full = {"not_needed", "over_quota"}
    rejected = {reason: n for reason, n in summary["rejected"].items() if reason not in full}
    assert rejected == {"duplicate": 1, "copied_example": 1}
    assert len({json.dumps(row) for row in examples(tmp_path / "run")}) == 25


def rows_of(case: str) -> list[dict[str, Any]]:
    path = CASES / f"{case}.jsonl"
    if path.is_file():
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return {
        "nli_same_hypothesis": [NLI | {"premise": f"Man {i} sleeps.", "label": "neutral"} for i in range(4)],
        "squad_same_question": [SPAN | {"context": f"River {i} flows to the sea."} for i in range(2)],
        "constant_instruction_train": [TOPIC | {"input": f"lantern {i} orchard"} for i in range(24)],
        "alpaca_rows": [
            TOPIC | {"instruction": "Give the plural of the noun.", "input": n} for n in ("ox", "cow")
        ],
        "one passage": [
            SPAN | {"context": "The Elbe flows north. " * 9, "question": f"{q}?", "answer": "Elbe"}
            for q in ("Which river flows north", "What is its name")
        ],
    }[case]


@pytest.mark.parametrize(
    "case",
    [
        "nli_same_hypothesis",
        "squad_same_question",
        "constant_instruction_train",
        "alpaca_rows",
        "one passage",
    ],
)
def test_filter_drops_equal_inputs_only(tmp_path: Path, case: str) -> None:
    rows = rows_of(case)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    report = filter_rows(path, DatasetFilterSettings(near=None))
    assert (report["rows"], report["invalid"], report["kept"]) == (len(rows) + 1, 0, len(rows))
    assert report["filters"][0]["rejected"] == 1
    assert filter_rows(path)["kept"] == len(rows), "near-duplicates compare all inputs, too"


@pytest.mark.parametrize("label", ["cork", True], ids=["options", "yes or no"])
def test_filter_reads_rows_without_an_optional_context(tmp_path: Path, label: Any) -> None:
    options = ["cork", "iron"] if label == "cork" else ["True", "False"]
    rows = [
        {"question": f"Does number {i} float on water?", "options": options, "label": label} for i in (1, 2)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = filter_rows(path, DatasetFilterSettings(near=None))
    assert (report["kept"], report["invalid"]) == (2, 0)
