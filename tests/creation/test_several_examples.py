"""Several formatting examples: the parents and prompts of a run, resume, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from datacreate.benchmarks import formatting_examples
from datacreate.engines.request import Completion, Request
from datacreate.errors import PromptTooLong, RunMismatch, UsageError
from datacreate.formats import FormatOptions
from datacreate.formats.example import Example
from datacreate.formats.prompt_encoding import PromptEncoding
from datacreate.prompts.generation import RequestContent, chat_prompt
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from datacreate.runs.formatting_examples import read_examples
from tests.benchmarks.conftest import choices, claims, home, imported, passages
from tests.runs.test_formatting_examples import jsonl, questions
from tests.support.inprocess import run
from tests.support.making import COMMONSENSE, STRATEGIES, commits, examples, make
from tests.support.scripted import ScriptedClient, answering

__all__ = ["home"]  # a fixture

Row = dict[str, Any]


# Parents


def roots_of(run_dir: Path) -> list[str]:
    return [Example(values).id for values in RunDirectory(run_dir).read_config().spec.examples]


def test_naive_takes_turns(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, example=questions(3), strategy="naive", count=60)
    parents = [commit.parent for commit in commits(tmp_path)]
    assert parents == [roots_of(tmp_path)[index % 3] for index in range(len(parents))]


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_the_other_strategies_start_from_all_of_them(tmp_path: Path, model: str, strategy: str) -> None:
    summary = make(tmp_path, model, example=questions(4), strategy=strategy, count=100, num_chains=None)
    parents = [commit.parent for commit in commits(tmp_path)]
    assert set(parents[:4]) == set(roots_of(tmp_path))
    assert parents[0] == roots_of(tmp_path)[0]
    assert summary["depths"]["1"] <= 50
    assert examples(tmp_path)[0] not in questions(4)


def test_roots_together_are_limited_in_a_small_run(tmp_path: Path, model: str) -> None:
    for number, children in ((1, 20), (2, 20), (3, 15), (6, 30)):
        folder = tmp_path / str(number)
        client = ScriptedClient(answering(), slots=64)
        summary = make(folder, model, client, example=questions(number), count=40, concurrency=64)
        assert summary["depths"]["1"] == children  # 6 roots are used once each


def test_a_chain_without_children_returns_to_the_next_root(tmp_path: Path, model: str) -> None:
    def fails_at_first(request: Request) -> Completion:
        return answering()(request) if request.id > 20 else Completion(request.id, "[]", "stop", 5, 5)

    make(tmp_path, model, fails_at_first, example=questions(3), strategy="random", num_chains=1, count=10)
    first, second, third = roots_of(tmp_path)
    assert [commit.parent for commit in commits(tmp_path)[:22]] == [first] * 9 + [second] * 9 + [third] * 4


def test_a_run_too_small_for_its_examples_says_how_many_it_uses(tmp_path: Path, model: str) -> None:
    notes: list[str] = []
    make(tmp_path, model, example=questions(9), count=20, notify=notes.append)
    used = "9 formatting examples, but about 4 requests: some examples may not be used"
    assert f"{used}; a larger --count uses more of them, and --shots 3 shows several in each prompt" in notes


# Prompts


def shown(request: Request) -> list[Any]:
    """The examples of a prompt, the parent last."""
    text = request.messages[-1]["content"]
    found: list[Any] = json.loads(text.partition("\n")[2].partition("\n")[0])
    return found


def test_shots_are_other_roots_with_balanced_labels(tmp_path: Path, model: str) -> None:
    rows = [{"text": f"Text number {index}.", "label": ("spam", "ham", "news")[index % 3]} for index in range(12)]
    client = ScriptedClient(answering())
    make(tmp_path, model, client, example=rows, shots=3, count=90)
    written = [[row["label"], row["text"]] for row in rows]
    for request in client.history:
        assert "Here is a JSON array with 3 examples, written as [label, text]:" in request.messages[-1]["content"]
        *others, parent = shown(request)
        assert {label for label, _ in (*others, parent)} == {"spam", "ham", "news"}
        assert all(other in written for other in others)
    assert len({json.dumps(shown(request)[:2]) for request in client.history}) > 5


def test_texts_like_those_of_the_examples_are_no_placeholders(tmp_path: Path, model: str) -> None:
    def greeting(request: Request) -> Completion:
        items = [[f"Dear Ms {request.id} {index},"] for index in range(5)]
        return Completion(request.id, json.dumps(items), "stop", 5, 5)

    summary = make(tmp_path / "run", model, greeting, example={"greeting": "Dear Mr Miller,"}, count=10)
    assert "placeholder" not in summary["rejected"]


def test_too_few_roots_are_filled_up_with_accepted_examples(tmp_path: Path, model: str) -> None:
    client = ScriptedClient(answering())
    make(tmp_path, model, client, shots=3, count=60, concurrency=1)
    assert [len(shown(request)) for request in client.history[:3]] == [1, 3, 3]
    accepted = [row["question"] for row in examples(tmp_path)]
    for request in client.history[1:]:
        root, other, parent = (question for question, _ in shown(request))
        assert root == COMMONSENSE["question"] or parent == COMMONSENSE["question"]
        assert other in accepted
        assert len({root, other, parent}) == 3


def test_copies_of_any_shown_example_are_rejected(tmp_path: Path, model: str) -> None:
    def copying(request: Request) -> Completion:
        items = [*shown(request), *json.loads(answering()(request).text or "[]")][:5]
        return Completion(request.id, json.dumps(items), "stop", 5, 5)

    summary = make(tmp_path, model, copying, example=questions(3), shots=3, count=20, exact=False)
    assert summary["rejected"]["copied_example"] == 3 * summary["requests"]


@pytest.mark.parametrize(("shots", "fit"), [(1, 5), (6, 3)])
def test_the_context_length_counts_all_shots(tmp_path: Path, model: str, shots: int, fit: int) -> None:
    client = ScriptedClient(answering())
    client.max_context = 500
    make(tmp_path, model, client, example=questions(6), shots=shots, count=10)
    assert RunDirectory(tmp_path).read_config().spec.num_examples == fit
    with pytest.raises(PromptTooLong, match="fewer --shots"):
        make(tmp_path / "many", model, client, example=questions(6), shots=60, count=10)


def test_given_contexts_of_all_shown_examples_stand_before_them() -> None:
    rows = [
        {"context": f"{city} is in Italy.", "question": f"Where is {city}?", "answer": "in Italy"}
        for city in ("Rome", "Milan")
    ]
    roots, inferred = read_examples(rows, FormatOptions())
    encoding = PromptEncoding(replace(inferred.format, context_is_given=True))
    text = chat_prompt(encoding, roots, 5, RequestContent(passage="Paris is in France."))[-1]["content"]
    assert text.startswith(
        "Text 1:\nMilan is in Italy.\n\nText 2:\nRome is in Italy.\n\nThe examples below are about these texts, in "
        "this order. Here is a JSON array with 2 examples, written as [question, answer]:\n"
        '[["Where is Milan?","in Italy"],'
        '["Where is Rome?","in Italy"]]\n\nText 3:\nParis is in France.\n\nWrite a JSON array of 5 more'
    )


def test_max_tokens_are_those_of_the_longest_example(tmp_path: Path, model: str) -> None:
    long = {**COMMONSENSE, "question": "Where " + "very " * 60 + "long?"}
    for name, rows in {"long": [long], "both": [COMMONSENSE, long], "short": [COMMONSENSE]}.items():
        make(tmp_path / name, model, example=rows, count=5)
    tokens = {
        name: RunDirectory(tmp_path / name).read_config().spec.sampling["max_tokens"]
        for name in ("long", "both", "short")
    }
    assert tokens["long"] == tokens["both"] > tokens["short"]  # type: ignore[operator]


# Identity


def test_the_examples_are_part_of_the_identity(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, example=questions(2), count=5)
    same = jsonl(tmp_path.parent / "same.jsonl", questions(2))
    make(tmp_path, model, example=[same], count=10)
    for changes, message in (
        ({"example": questions(3)}, "another example 3; use"),
        ({"example": [questions(2)[0], {**COMMONSENSE, "question": "Why?"}]}, r'example 2\.question: "Where is'),
        ({"example": questions(2)[::-1]}, r"example 1\.question"),
        ({"shots": 2}, "--shots: 1 stored, 2 requested"),
    ):
        with pytest.raises(RunMismatch, match=message):
            make(tmp_path, model, **{"example": questions(2), "count": 10, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "paper", "concurrency": None}, "starts from one example, and there are 2; give one --example"),
        ({"recipe": "paper", "shots": 2, "concurrency": None}, "--shots: --recipe paper has no such step"),
        ({"strategy": "naive", "shots": 3}, "--strategy naive shows only formatting examples, and there are 2;"),
        ({"examples": 2}, "--examples draws from a benchmark"),
        ({"example": None, "benchmark": "csqa", "example_limit": 3}, "--example-limit is for --example"),
        ({"example": (), "benchmark": None}, "give --example FILE or --benchmark NAME"),
        ({"example_limit": 1001}, "--example-limit 1001: give a number less than or equal to 1000"),
    ],
)  # fmt: skip
def test_settings_that_contradict_the_examples(
    tmp_path: Path, model: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make(tmp_path / "run", model, **{"example": questions(2), "count": 10, **changes})
    assert not (tmp_path / "run").exists()


# Command line


def test_files_limits_and_configurations(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jsonl(Path("a.jsonl"), questions(5))
    Path("b.json").write_text(json.dumps(COMMONSENSE))
    Path("run.yaml").write_text(yaml.safe_dump({"example": ["a.jsonl", "b.json"], "example-limit": 2, "shots": 2}))
    common = ("--count", 10, "--model", model)
    planned = run("create", "--config", "run.yaml", *common, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    plan = json.loads(planned.out)
    assert (plan["plan"]["examples"], plan["plan"]["run_dir"]) == (3, "runs/a-best")
    Path("again.json").write_text(planned.out)
    for words in (
        ("--config", "again.json"),
        ("--example", "a.jsonl", "--example", "b.json", "--example-limit", 2, "--shots", 2, *common),
    ):
        ended = run("create", *words, "--run-dir", "run")  # the second resumes the first
        assert ended.code == 0, ended.err
    spec = RunDirectory(Path("run")).read_config().spec
    assert list(spec.examples) == [*questions(2), COMMONSENSE]
    card = Path("run/README.md").read_text()
    assert "from the 3 formatting examples below" in card
    preview = run("preview", "--config", "run.yaml", "--count", 3, "--model", model, "--json")
    assert len(preview.out.splitlines()) == 3
    inferred = run("schema", "infer", "a.jsonl")
    assert json.loads(inferred.out)["title"] == "multiple_choice"


def test_python_takes_a_path_a_mapping_or_several(tmp_path: Path) -> None:
    row, path = questions(1)[0], jsonl(tmp_path / "a.jsonl", questions(2))
    several: list[tuple[Any, tuple[Path | Mapping[str, Any], ...]]] = [
        (path, (path,)),
        (row, (row,)),
        ([path, row], (path, row)),
    ]
    for given, sources in several:
        assert CreateConfig(example=given, count=1, run_dir=tmp_path).sources == sources


# Benchmarks


@pytest.mark.parametrize(
    ("name", "rows", "labels"),
    [("creak", claims(30), [2, 3]), ("boolq_open", passages(30), [2, 3]), ("csqa", choices(30), None)],
)
def test_several_rows_of_a_benchmark(
    tmp_path: Path, model: str, home: Path, name: str, rows: list[Row], labels: list[int] | None
) -> None:
    benchmark = imported(tmp_path / "r", name, {"train": [*rows, *rows]})
    notes: list[str] = []
    drawn: dict[str, Any] = {"example": None, "benchmark": name, "examples": 5}
    make(tmp_path / "run", model, **drawn, count=20, shots=2, notify=notes.append)
    spec = RunDirectory(tmp_path / "run").read_config().spec
    found, note = formatting_examples(benchmark, 42, 5)
    assert list(spec.examples) == found
    assert note in notes
    assert note.startswith("5 formatting examples: rows ")
    assert len({json.dumps(row) for row in found}) == 5
    assert found[:1] == formatting_examples(benchmark, 42)[0]
    assert formatting_examples(benchmark, 7, 5)[0] != found
    if labels:
        assert sorted(Counter(row["label"] for row in found).values()) == labels
    assert not [row for row in examples(tmp_path / "run") if row in found]
