"""`improve`: a second run from the rows that students get wrong."""

from __future__ import annotations

import gc
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from datacreate.commands.improve import (
    ImproveConfig,
    PredictedRow,
    choose_hard_rows,
    make_creation_config,
    prepare_improve,
    read_improve_inputs,
)
from datacreate.creation.loop import create
from datacreate.engines.request import Completion, Request
from datacreate.errors import BenchmarkError, DatacreateError, RunMismatch, TrainingError, UsageError
from datacreate.finetuning.training_rows import make_training_set, read_source
from datacreate.runs.directory import RunDirectory
from tests.finetuning.sets import FOODS, choices, claims, write_rows
from tests.finetuning.training import Recorder, sensible
from tests.support.inprocess import run
from tests.support.making import examples, make
from tests.support.scripted import ScriptedClient
from tests.support.verifying import asked, scored


def tasting(request: Request) -> Completion:
    """A verifier that knows what can be eaten."""
    text, names = asked(request)
    can_be_eaten = not set(FOODS).isdisjoint(text.split())
    wanted = [name for name in names if name in FOODS] or [names[names[0].casefold() not in ("true", "yes")]]
    right = wanted[0] if can_be_eaten or wanted[0] in FOODS else next(n for n in names if n not in wanted)
    return scored(request, [0.9 if name == right else 0.1 for name in names])


def client() -> ScriptedClient:
    return ScriptedClient(sensible, scorer=tasting)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model: str) -> dict[str, Path]:
    """Finished runs with options and with labels; the latter are verified."""
    folder = tmp_path_factory.mktemp("runs")
    make(folder / "options", model, client(), example=choices(1)[0], count=60)
    verified: dict[str, Any] = {"count": 60, "verify": "keep", "shots": 2, "near": 0.9, "temperature": 0.7}
    instruction = " @home: what can be eaten"  # no file
    make(folder / "labels", model, client(), example=claims(1)[0], instruction=instruction, **verified)
    return {name: folder / name for name in ("options", "labels")}


def improving(source: Path | Sequence[Path], out: Path, encoder: str, model: str, **changes: Any) -> ImproveConfig:
    sources = [source] if isinstance(source, Path) else source
    usual: dict[str, Any] = {"count": 20, "epochs": 1, "create": {"model": model}}
    return ImproveConfig.of(runs=tuple(sources), run_dir=out, encoder=encoder, **usual | changes)


def improved(config: ImproveConfig, recorder: Recorder | None = None) -> dict[str, Any]:
    creation = prepare_improve(config, recorder or Recorder())
    return create(creation, client_factory=lambda *_: client())


def parents(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "parents.jsonl").read_text().splitlines()]


def models_in_memory() -> int:
    return sum(issubclass(type(each), PreTrainedModel) for each in gc.get_objects())


@pytest.mark.parametrize("kind", ["labels", "options"])
def test_the_new_run_starts_from_hard_rows_and_repeats_nothing(
    runs: dict[str, Path], tmp_path: Path, encoder: str, model: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = runs[kind], tmp_path / "new"
    gc.collect()  # models of earlier tests
    in_use, kept = models_in_memory(), list[int]()
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: kept.append(models_in_memory()))
    assert improved(improving(old, new, encoder, model))["accepted"] == 20
    assert kept == [in_use]  # a server may need all memory of the GPU next
    chosen, before = parents(new), examples(old)
    assert len(chosen) == 10
    assert all(each["row"] in before for each in chosen)
    for each in chosen:
        predictions = [each["student"], *filter(None, [each["verifier"]])]
        assert len(predictions) == (2 if kind == "labels" else 1)
        for prediction in predictions:
            assert str(each["row"]["label"]) in prediction
            assert sum(prediction.values()) == pytest.approx(1, abs=0.001)
    if kind == "labels":
        assert set(Counter(each["label"] for each in chosen).values()) == {5}

    first, spec = (RunDirectory(path).read_config().spec for path in (old, new))
    assert spec.strategy == "naive"
    assert list(spec.examples) == [each["row"] for each in chosen]
    for name in ("format", "seed", "shots", "instruction", "label_ratio", "num_examples"):
        assert getattr(spec, name) == getattr(first, name), name
    assert spec.filters.near == first.filters.near
    assert spec.sampling["temperature"] == first.sampling["temperature"]
    if spec.verification and first.verification:
        assert (spec.verification.mode, spec.verification.model) == ("keep", first.verification.model)
    assert (spec.verification is None) == (first.verification is None)
    assert [each.name for each in spec.compared_with] == [f"{kind}/"]
    questions = [row["question"] for row in (*before, *examples(new))]
    assert len(set(questions)) == 80

    both = make_training_set([read_source(str(path)) for path in (old, new)])
    assert len(both.examples) == 80
    assert both.condition.name == "improved+tree"
    assert both.condition.example == first.examples_id
    assert {path.name for path in (new / "students").iterdir()} == {"scores.json", "training.json"}


class Killed(Exception):
    """In place of SIGKILL."""


def test_an_interrupted_round_resumes_and_its_parents_never_change(
    runs: dict[str, Path], tmp_path: Path, encoder: str, model: str
) -> None:
    def kill() -> None:
        raise Killed

    once, twice = tmp_path / "once", tmp_path / "twice"
    improved(improving(runs["labels"], once, encoder, model))
    config = improving(runs["labels"], twice, encoder, model)
    with pytest.raises(Killed):
        improved(config, Recorder(4, kill))  # the second student
    recorder = Recorder()
    improved(config, recorder)
    assert {what for what, *_ in recorder.steps} == {"student 2 of 3", "student 3 of 3"}
    for name in ("parents.jsonl", "train.jsonl"):
        assert (twice / name).read_bytes() == (once / name).read_bytes(), name

    again = Recorder()
    assert improved(improving(runs["labels"], twice, encoder, model, count=55), again)["accepted"] == 55
    assert again.steps == []
    assert len(parents(twice)) == 10
    with pytest.raises(RunMismatch, match=r"epochs=1 there.*epochs=2 requested.*another folder"):
        improved(improving(runs["labels"], twice, encoder, model, count=55, epochs=2))


def test_with_human_rows_those_that_the_student_misses_are_the_parents(
    runs: dict[str, Path], tmp_path: Path, encoder: str, model: str
) -> None:
    rows = [{name: row[name] for name in ("question", "context", "options", "label")} for row in claims(30, 5)]
    names = ("question", "context", "options", "label")
    trained = [{name: row[name] for name in names if name in row} for row in examples(runs["labels"])[:3]]
    dev = write_rows(tmp_path / "dev.jsonl", [*rows, *trained])
    recorder = Recorder()
    config = improving(runs["labels"], tmp_path / "new", encoder, model, dev=dev)
    improved(config, recorder)
    assert {what for what, *_ in recorder.steps} == {"student 1 of 1"}
    assert not any("mislabeled" in note for note in recorder.notes)
    with pytest.raises(UsageError, match="the student is trained on all of these rows"):
        read_improve_inputs(improving(runs["labels"], tmp_path / "other", encoder, model, dev=write_rows(dev, trained)))
    for each in parents(tmp_path / "new"):
        assert each["row"] in rows
        assert max(each["student"], key=each["student"].__getitem__) != each["label"]
    compared = RunDirectory(tmp_path / "new").read_config().spec.compared_with
    assert [each.name for each in compared] == ["dev.jsonl", "labels/"]


def test_a_second_round_judges_the_rows_of_both_runs(
    runs: dict[str, Path], tmp_path: Path, encoder: str, model: str
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    improved(improving(runs["options"], first, encoder, model))
    config = improving([runs["options"], first], second, encoder, model)
    assert len(read_improve_inputs(config).prepared.rows) == 80
    improved(config)
    with pytest.raises(UsageError, match="options: given twice; give it once"):
        read_improve_inputs(
            improving([runs["options"], runs["labels"] / ".." / "options"], tmp_path / "x", encoder, model)
        )
    with pytest.raises(RunMismatch, match="was made by `improve`; resume it with `datacreate improve RUN"):
        make(first, model, client(), example=choices(1)[0], count=20)
    spec = RunDirectory(second).read_config().spec
    assert [each.name for each in spec.compared_with] == ["options/", "first/"]
    assert spec.improves == RunDirectory(runs["options"]).read_config().spec.examples_id


def test_paths_are_no_names_of_benchmarks_and_texts_keep_their_line_separators(
    runs: dict[str, Path], tmp_path: Path, encoder: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [Path("creak"), Path("a, b")]
    for path in paths:
        shutil.copytree(runs["options"], path)
    config = improving(paths, tmp_path / "new", encoder, model)
    creation = make_creation_config(config, examples(paths[0])[:2])
    assert creation.decontaminate == tuple(str(tmp_path / path) for path in paths)

    parents_path = config.directory.parents_path
    parents_path.parent.mkdir()
    text = "one\u2028two\u2029three\x85four"
    parents_path.write_text(predicted(0, (0.1, 0.9), None, text).line, encoding="utf-8")
    config = improving(runs["options"], tmp_path / "new", encoder, model)
    assert read_improve_inputs(config).read_parents() == [{"id": text}]
    for damaged in ("{}\n", "[]\n", '{"row"'):
        parents_path.write_text(damaged)
        with pytest.raises(TrainingError, match=r"parents\.jsonl is damaged; restore it from a copy"):
            read_improve_inputs(config).read_parents()


def predicted(answer: int, student: Sequence[float], verifier: tuple[float, ...] | None, name: str) -> PredictedRow:
    return PredictedRow({"id": name}, ("no", "yes"), answer, student, verifier)


def test_hard_rows_are_those_that_the_verifier_confirms_and_then_the_uncertain_ones() -> None:
    rows = [
        predicted(1, (0.1, 0.9), (0.2, 0.8), "sure"),
        predicted(1, (0.4, 0.6), (0.2, 0.8), "uncertain"),
        predicted(1, (0.7, 0.3), (0.2, 0.8), "missed"),  # and confirmed
        predicted(1, (0.9, 0.1), (0.2, 0.8), "clearly missed"),
        predicted(1, (0.9, 0.1), (0.8, 0.2), "mislabeled"),
        predicted(0, (0.45, 0.55), None, "not verified"),
        predicted(0, (0.9, 0.1), (0.8, 0.2), "sure no"),
    ]

    def names(count: int, *, balanced: bool) -> list[Any]:
        return [row.values["id"] for row in choose_hard_rows(rows, count, balanced=balanced)]

    assert names(4, balanced=False) == ["clearly missed", "missed", "not verified", "uncertain"]
    assert names(4, balanced=True) == ["not verified", "clearly missed", "sure no", "missed"]
    assert len(names(99, balanced=True)) == 6


def test_what_cannot_improve_is_one_line(runs: dict[str, Path], tmp_path: Path, encoder: str, model: str) -> None:
    make(tmp_path / "few", model, client(), example=choices(1)[0], count=10)
    texts = {"question": "Who sleeps?", "answer": "All the cats of the town do."}
    make(tmp_path / "texts", model, example=texts, count=45)
    mine = write_rows(tmp_path / "mine.jsonl", claims(1))
    make(tmp_path / "compared", model, client(), example=choices(1)[0], count=40, decontaminate=str(mine))
    new = tmp_path / "new"
    wrong: list[tuple[Path, Path, dict[str, Any], type[DatacreateError], str]] = [
        (tmp_path / "none", new, {}, UsageError, "none: not a run directory"),
        (tmp_path / "few", new, {}, TrainingError, "10 rows are too few; create at least 40"),
        (tmp_path / "texts", new, {}, UsageError, "different values in 45 rows, and an encoder"),
        (tmp_path / "compared", new, {}, UsageError, "mine.jsonl; give that file again"),
        (runs["options"], tmp_path / "few", {}, UsageError, "holds a run that `improve` did not make"),
        (runs["options"], new, {"encoder": "no-such"}, DatacreateError, "no-such"),
        (runs["options"], new, {"create": {}}, DatacreateError, "scripted-model"),
    ]
    for source, out, changes, error, message in wrong:
        with pytest.raises(error, match=message) as raised:
            prepare_improve(improving(source, out, **{"encoder": encoder, "model": model} | changes), Recorder())
        assert "\n" not in str(raised.value)
    assert not new.exists()
    create_again = {"create": {"model": model, "decontaminate": (str(mine),)}}
    prepare_improve(improving(tmp_path / "compared", new, encoder, model, **create_again), Recorder())


def test_the_test_sets_of_the_run_are_looked_for_before_students_are_trained(
    home: Path, tmp_path: Path, encoder: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "run", model, client(), example=choices(1)[0], count=40, decontaminate="creak")
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "another"))
    recorder, new = Recorder(), tmp_path / "new"
    with pytest.raises(BenchmarkError, match="creak is not imported"):
        prepare_improve(improving(tmp_path / "run", new, encoder, model), recorder)
    assert not recorder.steps
    without = {"model": model, "decontaminate": ("none",)}
    config = improving(tmp_path / "run", new, encoder, model, create=without)
    assert make_creation_config(config, choices(2)).decontaminate == (str(tmp_path / "run"),)


def test_the_command_shows_what_it_would_do_and_does_it(
    runs: dict[str, Path], tmp_path: Path, encoder: str, model: str
) -> None:
    new = tmp_path / "new"
    words = ["improve", runs["options"], "--count", 10, "--encoder", encoder, "--epochs", 1, "--model", model]
    words += ["--run-dir", new, "--json"]
    plan = json.loads(run(*words, "--dry-run", "--url", "http://127.0.0.1:1").out)
    assert (plan["count"], plan["examples"], plan["student_steps"]) == (10, 10, [3, 3, 3])
    assert plan["notes"][0] == "strategy naive, as always for improve; answers are not verified"
    assert not new.exists()
    done = run(*words)
    assert json.loads(done.out)["accepted"] == 10
    assert "10 hard rows are the formatting examples, taken in turns" in done.err
    assert "may not be used" not in done.err
