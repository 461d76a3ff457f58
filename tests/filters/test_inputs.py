"""What `create` and `filter` take for a repeat: equal inputs, not an equal question, subject or instruction."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datacreate.commands.filter_rows import FilterConfig, filter_rows
from datacreate.engines.request import Completion, Request
from tests.support.making import NLI, NLI_LABELS, examples, make
from tests.support.scripted import Script, written

CONSTANT: dict[str, Any] = {
    "properties": {
        "question": {"const": "Is the review positive?"},
        "context": {"type": "string"},
        "answer": {"enum": ["yes", "no"]},
    },
    "x-datacreate": {"roles": {"context": "context", "answer": "answer"}},
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


ROWS = {
    "same hypothesis": [NLI | {"premise": f"Man {i} sleeps.", "label": "neutral"} for i in range(4)],
    "same question": [SPAN | {"context": f"River {i} flows to the sea."} for i in range(2)],
    "same instruction": [TOPIC | {"input": f"lantern {i} orchard"} for i in range(24)],
    "short inputs": [TOPIC | {"instruction": "Give the plural of the noun.", "input": n} for n in ("ox", "cow")],
    "same passage": [
        SPAN | {"context": "The Elbe flows north. " * 9, "question": f"{q}?", "answer": "Elbe"}
        for q in ("Which river flows north", "What is its name")
    ],
    "no context": [
        {"question": f"Does number {i} float?", "options": ["cork", "iron"], "label": "cork"} for i in (1, 2)
    ],
    "no context, yes or no": [
        {"question": f"Does number {i} float?", "options": ["True", "False"], "label": True} for i in (1, 2)
    ],
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_filter_drops_equal_inputs_only(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    report = filter_rows(path, FilterConfig(near=None))
    assert (report["rows"], report["invalid"], report["kept"]) == (len(rows) + 1, 0, len(rows))
    assert report["filters"][0]["rejected"] == 1
    assert filter_rows(path)["kept"] == len(rows), "near-duplicates also compare all inputs"
