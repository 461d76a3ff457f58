"""Runs with documents: contexts verbatim, assigned evenly, with their sources, also after interruptions."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from datacreate.engines.request import Completion, Request
from datacreate.errors import EngineError, RunMismatch, StorageError
from datacreate.runs.directory import RunDirectory
from tests.corpus.texts import passage
from tests.support.faults import CHANGES, contents, on_change
from tests.support.inprocess import run
from tests.support.making import COMMONSENSE, STRATEGIES, examples, make
from tests.support.scripted import ScriptedClient, answering

QA: dict[str, Any] = {
    "context": "The clock museum was founded in 1962 by Ernst Kolb.",
    "question": "Who founded the clock museum?",
    "answer": "Ernst Kolb",
}
YES_NO: dict[str, Any] = {"question": "Is it open?", "context": "The museum is open on Sundays.", "label": "yes"}


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three documents with 9, 4 and 1 passages."""
    monkeypatch.chdir(tmp_path)
    for name, numbers in {"a": range(9), "b": range(20, 24), "c": range(30, 31)}.items():
        path = tmp_path / "docs" / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"# Part {n}\n\n{passage(n)}\n\n" for n in numbers))
    return Path("docs")


def shown_passage(request: Request) -> str:
    text = request.messages[-1]["content"]
    found = re.search(r"(?:Text|Text 2):\n(.*)\n\nWrite a JSON array", text, re.DOTALL)
    assert found
    return found[1].rpartition("Text 2:\n")[2]


def questions(request: Request) -> Completion:
    """Questions about the passage of the prompt; every other answer is no part of it."""
    words = shown_passage(request).split()
    rng = random.Random(request.id)
    number = json.loads(request.schema or "")["minItems"]
    rows = []
    for index in range(number):
        word = rng.choice([word for word in words if word.isalpha()])
        rows.append([f"What is {word} {request.id} {index}?", word.upper() if index % 2 else f"no{word}"])
    rows[-1] = [" ".join(words[9:20]), next(word for word in words if word.isalpha())]
    return Completion(request.id, json.dumps(rows), "stop", 50, 50)


def sources(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "sources.jsonl").read_text().splitlines()]


def test_a_context_is_a_passage_verbatim_and_answers_are_spans_of_it(tmp_path: Path, model: str, docs: Path) -> None:
    client = ScriptedClient(questions)
    summary = make(tmp_path / "run", model, client, example=QA, corpus=("docs",), count=40, strategy="tree")
    rows = examples(tmp_path / "run")
    for row, source in zip(rows, sources(tmp_path / "run"), strict=True):
        text = (tmp_path / source["file"]).read_text()
        assert row["context"] == text[source["offset"] : source["offset"] + source["length"]]
        assert hashlib.sha256(row["context"].encode()).hexdigest() == source["sha256"]
        assert row["answer"] in row["context"]  # in the case of the text
        assert list(row) == list(QA)
    assert summary["rejected"]["answer_not_in_context"] > 5
    assert summary["rejected"]["copied_example"] > 5  # a part of the passage is no question
    schema = json.loads(client.history[0].schema or "")
    assert schema["items"]["maxItems"] == 2  # the context is not generated
    assert f"Text 1:\n{QA['context']}\n" in client.history[0].messages[-1]["content"]
    card = (tmp_path / "run" / "README.md").read_text()
    assert "14 of 14 passages, 3 of 3 documents" in card
    assert re.search(r"docs/a.md *\| *\d+ *\| *\d+%", card)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_passages_are_assigned_by_request_number_with_every_strategy(
    tmp_path: Path, model: str, docs: Path, strategy: str
) -> None:
    client = ScriptedClient(answering(), shuffle=random.Random(1))
    summary = make(tmp_path / "run", model, client, example=YES_NO, corpus=("docs",), count=30, strategy=strategy)
    assert summary["accepted"] == 30
    asked = [shown_passage(request) for request in sorted(client.history, key=lambda request: request.id)]
    rounds = [asked[at : at + 14] for at in range(0, len(asked), 14)]
    assert all(len(set(each)) == len(each) for each in rounds)
    by_file = [Counter(source["file"] for source in sources(tmp_path / "run"))]
    assert set(by_file[0]) == {"docs/a.md", "docs/b.md", "docs/c.md"}


def test_without_a_context_a_passage_is_source_material(tmp_path: Path, model: str, docs: Path) -> None:
    client = ScriptedClient(answering())
    make(tmp_path / "run", model, client, example=COMMONSENSE, corpus=("docs",), count=10)
    assert len({shown_passage(request) for request in client.history}) == len(client.history)
    assert all(row["context"] is None for row in examples(tmp_path / "run"))
    assert len(sources(tmp_path / "run")) == 10
    assert RunDirectory(tmp_path / "run").read_config().spec.num_examples == 1  # 14 passages for 10 examples


def test_a_shared_passage_makes_no_near_duplicates_and_hides_none(tmp_path: Path, model: str) -> None:
    (tmp_path / "one.md").write_text(passage(1))
    words = passage(2).split()

    def script(request: Request) -> Completion:
        rng = random.Random(request.id)
        rows = [[" ".join(rng.sample(words, 8)) + "?", label] for label in ("yes", "no") * 2]
        rows[1][0] = rows[0][0].replace("?", " then?")
        return Completion(request.id, json.dumps([row[::-1] for row in rows]), "stop", 50, 50)

    changes: dict[str, Any] = {"example": YES_NO, "near": 0.8, "num_examples": 4, "strategy": "naive"}
    summary = make(tmp_path / "run", model, script, corpus=(str(tmp_path / "one.md"),), count=120, **changes)
    assert summary["accepted"] == 120
    assert summary["rejected"]["near_duplicate"] >= 30
    asked = {row["question"] for row in examples(tmp_path / "run")}
    assert not any(question.replace("?", " then?") in asked for question in asked)


def test_semantic_duplicates_are_those_about_one_passage(tmp_path: Path, model: str, docs: Path) -> None:
    def script(request: Request) -> Completion:  # the same four questions about every passage
        rows = [["yes" if index % 2 else "no", f"{word} one two three?"] for index, word in enumerate("abcd")]
        return Completion(request.id, json.dumps(rows), "stop", 50, 50)

    changes: dict[str, Any] = {"example": YES_NO, "semantic": 0.7, "num_examples": 4, "strategy": "naive"}
    summary = make(tmp_path / "run", model, script, corpus=("docs",), count=14, **changes)
    assert summary["rejected"]["semantic_duplicate"] > 30
    assert len({row["context"] for row in examples(tmp_path / "run")}) == 14


def test_a_full_disk_leaves_the_sources_beside_the_rows(tmp_path: Path, model: str, docs: Path) -> None:
    changes: dict[str, Any] = {"example": YES_NO, "corpus": ("docs",), "count": 20}
    make(tmp_path / "run", model, **changes)
    before, limits = contents(tmp_path / "run"), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert len(before["train.jsonl"]) > max(len(before[name]) for name in ("config.json", "sources.jsonl"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["train.jsonl"]) - 1, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"train\.jsonl: the disk is full"):
            make(tmp_path / "run", model, **changes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path / "run") == before


def test_the_results_replace_others_when_they_and_the_log_are_on_the_disk(
    tmp_path: Path, model: str, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the session that wrote the last lines of the log was killed before it synced them."""
    changes: dict[str, Any] = {"example": YES_NO, "corpus": ("docs",), "count": 20}
    make(tmp_path / "run", model, **changes)
    names = ("train.jsonl", "sources.jsonl", "log.jsonl")
    sizes = [(tmp_path / "run" / name).stat().st_size for name in names]
    synced: list[int] = []
    before_change: list[list[int]] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.fstat(file).st_size))

    def note(event: str, path: str) -> None:
        if Path(path).name in names and event in CHANGES:
            before_change.append(synced[:])

    with on_change(note):
        make(tmp_path / "run", model, **changes)
    assert set(sizes) <= set(before_change[0])


def test_another_corpus_is_another_run(tmp_path: Path, model: str, docs: Path) -> None:
    changes: dict[str, Any] = {"example": YES_NO, "corpus": ("docs",), "count": 10}
    with pytest.raises(EngineError):
        make(tmp_path / "run", model, ScriptedClient(answering(), dies_after=3), **changes)
    with pytest.raises(RunMismatch, match=r"--passage-tokens: 160 stored, 80 requested"):
        make(tmp_path / "run", model, passage_tokens=80, **changes)
    with pytest.raises(RunMismatch, match="another --corpus"):
        make(tmp_path / "run", model, **{**changes, "corpus": ()})
    before = (docs / "b.md").read_text()
    (docs / "b.md").write_text(f"{before}More.\n")
    with pytest.raises(RunMismatch, match=r"another content of docs/b\.md"):
        make(tmp_path / "run", model, **changes)
    (docs / "b.md").write_text(before)
    assert make(tmp_path / "run", model, **changes)["accepted"] == 10


def test_a_run_in_the_folder_of_its_documents_is_resumed_and_is_no_document(model: str, docs: Path) -> None:
    first: dict[str, Any] = {"example": YES_NO, "corpus": ("docs",), "run_dir": docs / "runs" / "first"}
    with pytest.raises(EngineError):
        make(model=model, client=ScriptedClient(answering(), dies_after=3), count=10, **first)
    assert make(model=model, count=20, **first)["accepted"] == 20
    make(model=model, count=10, **{**first, "run_dir": docs / "runs" / "second"})
    passages = [(docs / "runs" / name / "passages.jsonl").read_bytes() for name in ("first", "second")]
    assert passages[0] == passages[1]


def test_rows_about_one_passage_stay_together_in_splits(tmp_path: Path, model: str, docs: Path) -> None:
    make(tmp_path / "run", model, example=YES_NO, corpus=("docs",), count=40)
    families = list(RunDirectory(tmp_path / "run").families())
    contexts = [row["context"] for row in examples(tmp_path / "run")]
    assert len({*zip(families, contexts, strict=True)}) == len(set(families)) == len(set(contexts))


def test_dry_run_preview_and_config_know_the_corpus(tmp_path: Path, model: str, docs: Path) -> None:
    example = tmp_path / "qa.json"
    example.write_text(json.dumps(YES_NO))
    (docs / "empty.md").write_text("")
    words = ["--example", example, "--model", model, "--corpus", "docs"]
    planned = run("create", *words, "--count", 5, "--run-dir", "out", "--dry-run", "--json")
    plan, config = json.loads(planned.out).values()
    assert plan["corpus"] == {"passages": 14, "documents": 3}
    assert any(note.startswith("docs/empty.md: left out: no text") for note in plan["notes"])
    assert config["corpus"] == ["docs"]
    assert not Path("out").exists()
    shown = run("preview", *words, "--count", 2, "--json")
    assert [json.loads(line)["label"] for line in shown.out.splitlines()] == ["yes", "no"]
    Path("c.yaml").write_text(f"example: {example}\nmodel: {model}\ncorpus: [docs/a.md, docs/b.md]\ncount: 4\n")
    assert run("create", "--config", "c.yaml", "--run-dir", "out").code == 0
    assert {source["file"] for source in sources(Path("out"))} == {"docs/a.md", "docs/b.md"}
    refused = run("create", "--config", "c.yaml", "--run-dir", "other", "--recipe", "paper")
    assert (refused.code, Path("other").exists()) == (2, False)
    assert "--corpus: --recipe paper has no such step" in refused.failure


def test_examples_about_a_passage_of_a_test_set_are_rejected(tmp_path: Path, model: str, docs: Path) -> None:
    row = YES_NO | {"question": "Is this about something else?", "context": passage(3)}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    changes: dict[str, Any] = {"example": YES_NO, "decontaminate": ("test.jsonl",), "num_examples": 2}
    summary = make(tmp_path / "run", model, corpus=("docs",), count=40, **changes)
    assert summary["rejected"]["contaminated"] > 0
    assert not any(passage(3) in row["context"] for row in examples(tmp_path / "run"))
