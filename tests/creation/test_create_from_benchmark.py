"""Creation whose formatting example is a row of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datacreate.benchmarks import formatting_examples, load_registry
from datacreate.errors import BenchmarkError, RunMismatch, UsageError
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from tests.benchmarks.conftest import choices, claims, imported, passages
from tests.support.inprocess import run
from tests.support.making import examples, make

FROM_CSQA: dict[str, Any] = {"example": None, "benchmark": "csqa"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with four small benchmarks, one of each category; two without a train split."""
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    imported(tmp_path / "r", "csqa", {"train": choices(30), "test": choices(5, first=50)})
    imported(tmp_path / "r", "creak", {"train": claims(30)})
    imported(tmp_path / "r", "piqa", {"dev": choices(9, options=2)})
    imported(tmp_path / "r", "boolq_open", {"dev": passages(9)})
    return tmp_path / "home"


@pytest.mark.parametrize("name", ["csqa", "creak", "piqa", "boolq_open"])
def test_the_example_is_a_row_and_is_not_among_those_made(tmp_path: Path, model: str, home: Path, name: str) -> None:
    benchmark = load_registry()[name]
    summary = make(tmp_path / "run", model, example=None, benchmark=name, count=13)
    [root], _ = formatting_examples(benchmark, 42)
    spec = RunDirectory(tmp_path / "run").read_config().spec
    assert (spec.examples, spec.benchmark) == ((root,), name)
    assert spec.format["title"] == benchmark.format_name
    made = examples(tmp_path / "run")
    assert len(made) == summary["accepted"] == 13
    assert root not in made
    assert all(list(row) == ["question", "context", "options", "label"] for row in made)
    assert summary["benchmark"] == name
    assert f"a row of the benchmark `{name}`" in (tmp_path / "run" / "README.md").read_text()


def test_the_example_has_a_seed_of_its_own(tmp_path: Path, model: str, home: Path) -> None:
    for folder, seeds in {"a": (1, 5), "b": (2, 5), "c": (5, None)}.items():
        make(tmp_path / folder, model, **FROM_CSQA, seed=seeds[0], example_seed=seeds[1], strategy="random")
    identities = {folder: RunDirectory(tmp_path / folder).read_config().spec for folder in "abc"}
    assert len({json.dumps(spec.examples) for spec in identities.values()}) == 1
    assert [spec.seed for spec in identities.values()] == [1, 2, 5]
    with pytest.raises(RunMismatch, match="was made with another example"):
        make(tmp_path / "a", model, **FROM_CSQA, seed=1, example_seed=6, strategy="random")


def test_a_run_resumes_with_the_same_benchmark_only(tmp_path: Path, model: str, home: Path) -> None:
    make(tmp_path / "run", model, **FROM_CSQA, count=5)
    make(tmp_path / "run", model, **FROM_CSQA, count=15)
    assert len(examples(tmp_path / "run")) == 15
    [root], _ = formatting_examples(load_registry()["csqa"], 42)
    with pytest.raises(RunMismatch, match='another --benchmark: "csqa" stored, none requested'):
        make(tmp_path / "run", model, example=root)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "neither": ({}, "give --example FILE or --benchmark NAME"),
    "both": ({"example": {"a": "b"}, "benchmark": "csqa"}, "give either --example FILE"),
    "seed without": ({"example": {"a": "b"}, "example_seed": 3}, "--example-seed draws from a benchmark"),
    "no model": ({"example": {"a": "b"}, "model": ()}, "--model: give at least one"),
    "a format": ({"benchmark": "csqa", "format": "multiple_choice"}, "a benchmark has its own format"),
}


@pytest.mark.parametrize("what", WRONG)
def test_settings_that_contradict_each_other(tmp_path: Path, what: str) -> None:
    settings, words = WRONG[what]
    with pytest.raises(UsageError, match=words):
        CreateConfig.of(count=3, run_dir=tmp_path, **settings)


def test_a_benchmark_that_is_not_imported_is_refused(tmp_path: Path, model: str, home: Path) -> None:
    with pytest.raises(BenchmarkError, match="run `datacreate benchmarks import strategyqa"):
        make(tmp_path / "run", model, example=None, benchmark="strategyqa")
    assert not (tmp_path / "run").exists()


def test_count_train_is_the_papers_size(tmp_path: Path, model: str, home: Path) -> None:
    imported(tmp_path / "r", "winogrande", {"train": choices(7, options=2)})
    command = ["create", "--benchmark", "winogrande", "--count", "train", "--run-dir", tmp_path / "run"]
    ended = run(*command, "--model", model, "--json")
    assert ended.code == 0, ended.err
    summary = json.loads(ended.out)
    assert summary["requested"] == summary["accepted"] == 160
    assert "formatting example: row" in ended.err
    assert "winogrande" in run("show", tmp_path / "run").out
    (tmp_path / "example.json").write_text(json.dumps(choices(1)[0]))
    other = ["create", "--example", tmp_path / "example.json", "--run-dir", tmp_path / "other", "--model", model]
    refused = run(*other, "--count", "train")
    assert refused.code == 2
    assert "--count train: that is the size of a benchmark; give --benchmark NAME" in refused.failure
    assert "--count all: give a valid integer" in run(*other, "--count", "all").failure


def test_preview_of_a_benchmark(model: str, home: Path) -> None:
    options = ["--benchmark", "creak", "--example-seed", 3, "--model", model, "--count", 4, "--json"]
    ended = run("preview", *options)
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert len(rows) == 4
    assert all(isinstance(row["label"], bool) for row in rows)
    assert "train split, seed 3" in ended.err
