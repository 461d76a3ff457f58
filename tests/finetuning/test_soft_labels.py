"""Soft labels: the verifier's probabilities are the targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from datacreate.errors import RunMismatch, TrainingError
from datacreate.finetuning.encoder import encode, load_tokenizer, load_with_head
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import HeadSpec
from datacreate.finetuning.train import TrainConfig, prepare, train
from datacreate.finetuning.training_rows import (
    ClassificationExample,
    Source,
    make_training_set,
    read_source,
    soft_label,
)
from datacreate.finetuning.trials import make_trainer
from datacreate.formats.roles import Roles
from datacreate.formats.task_format import TaskFormat
from datacreate.runs.directory import RunDirectory
from datacreate.verification import Probabilities
from tests.finetuning.sets import Row, choices, claims, write_rows
from tests.finetuning.training import Recorder, config, inputs_of, sensible
from tests.support.inprocess import typed
from tests.support.making import make

Judge = Callable[[int, Row], Probabilities | None]
SetProbabilities = Callable[[Judge], None]

LABELS = HeadSpec(head="sequence_classification", names=("yes", "no", "maybe"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model: str) -> dict[str, Path]:
    """A finished run for each head, with learnable examples."""
    folder = tmp_path_factory.mktemp("runs")
    for name, example in (("options", choices(1)[0]), ("labels", claims(1)[0])):
        make(folder / name, model, client=sensible, example=example, count=160)
    return {name: folder / name for name in ("options", "labels")}


@pytest.fixture
def set_probabilities(monkeypatch: pytest.MonkeyPatch) -> SetProbabilities:
    def set_(judge: Judge) -> None:
        def verifier_probabilities(run: RunDirectory) -> Iterator[Probabilities | None]:
            yield from (judge(place, row) for place, row in enumerate(run.examples()))

        monkeypatch.setattr(RunDirectory, "verifier_probabilities", verifier_probabilities)

    return set_


def certain(place: int, row: Row) -> Probabilities:
    """Probability 1 for the label."""
    names = row["options"] if isinstance(row["label"], str) else [True, False]
    return tuple(float(name == row["label"]) for name in names)


def unsure(place: int, row: Row) -> Probabilities | None:
    """Never certain, and no probabilities on every third row."""
    sure = certain(place, row)
    return None if place % 3 == 0 else tuple(0.7 * p + 0.3 / len(sure) for p in sure)


def soft(run: Path, out: Path, encoder: str, **changes: Any) -> TrainConfig:
    base: dict[str, Any] = {"soft_labels": True, "epochs": 2, "model_selection": "none"}
    return config(run, out, encoder, **base | changes)


@pytest.mark.parametrize(("head", "family"), [("options", "roberta"), ("labels", "deberta-v2")])
def test_the_loss_is_the_cross_entropy_with_the_probabilities(
    runs: dict[str, Path],
    tmp_path: Path,
    encoder_of: Callable[[str], str],
    set_probabilities: SetProbabilities,
    head: str,
    family: str,
) -> None:
    set_probabilities(unsure)
    rows = make_training_set([read_source(str(runs[head]), with_verifier_probabilities=True)])
    folder = Path(encoder_of(family))
    model = load_with_head(folder, rows.head).eval()
    inputs = inputs_of(folder, rows, Hyperparameters(soft_labels=True))
    trainer = make_trainer(inputs, model, 1, 1e-3, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.inference_mode():
        found = trainer.compute_loss(model, dict(batch))
        wanted = batch.pop("labels")
        logits = model(**batch).logits
    assert wanted.shape == logits.shape
    assert found == pytest.approx(float(-(wanted * logits.log_softmax(-1)).sum(-1).mean()), abs=1e-5)


def test_rows_without_probabilities_are_counted_and_other_probabilities_are_refused(
    runs: dict[str, Path], tmp_path: Path, encoder: str, set_probabilities: SetProbabilities
) -> None:
    set_probabilities(unsure)
    requested, recorder = soft(runs["options"], tmp_path / "out", encoder, epochs=1), Recorder()
    [model] = train(requested, recorder)
    assert "rows that were not verified: 54 of 160; they are trained on their label alone" in recorder.notes
    assert model.training.condition.name == "tree (soft labels)"
    with pytest.raises(RunMismatch, match=r"name=tree \(soft labels\) there, name=tree requested"):
        train(soft(runs["options"], tmp_path / "out", encoder, epochs=1, soft_labels=False))
    set_probabilities(certain)
    with pytest.raises(RunMismatch, match=r"probabilities_digest: "):
        train(requested)


def test_human_rows_beside_a_verified_run_keep_their_labels(
    home: Path, runs: dict[str, Path], set_probabilities: SetProbabilities
) -> None:
    set_probabilities(unsure)
    sources = [read_source(name, with_verifier_probabilities=True) for name in ("csqa", str(runs["options"]))]
    rows = make_training_set(sources)
    assert [one.probabilities is None for one in rows.examples[:202]] == [*[True] * 201, False]
    hard = make_training_set([read_source(source.name) for source in sources])
    assert rows.condition.name == "human+tree (soft labels)"
    assert rows.condition.model_copy(update={"name": "human+tree"}) == hard.condition
    assert make_training_set(sources, condition="mine").condition.name == "mine (soft labels)"


def test_validation_rows_are_judged_by_the_most_probable_answer(
    runs: dict[str, Path], tmp_path: Path, encoder: str, set_probabilities: SetProbabilities
) -> None:
    set_probabilities(lambda place, row: tuple(1 - p for p in certain(place, row)))
    changes: dict[str, Any] = {"model_selection": "held-out"}
    hard = prepare(soft(runs["labels"], tmp_path, encoder, soft_labels=False, **changes))
    found = prepare(soft(runs["labels"], tmp_path, encoder, **changes))
    assert [one.answer_index for one in found.rows] == [one.answer_index for one in hard.rows], "rows keep their label"
    opposite = [int(one.answer_index == 0) for one in hard.validation_rows]
    assert [one.answer_index for one in found.validation_rows] == opposite


def test_a_row_without_a_soft_label_has_its_label_as_one(encoder: str) -> None:
    examples = [
        ClassificationExample("there is a saw", None, (), 0, (0.9, 0.1, 0.0)),
        ClassificationExample("a brush", None, (), 2),
    ]
    tokenizer = load_tokenizer(Path(encoder))
    found = encode(examples, LABELS, tokenizer, 60, soft_labels=True).dataset["label"][:]
    assert found == [[0.9, 0.1, 0.0], [0.0, 0.0, 1.0]]


def test_probabilities_of_labels_are_matched_by_text() -> None:
    schema = {"type": "object", "properties": {"label": {"enum": ["maybe", "yes", "no"]}}}
    source = Source("x", "tree", TaskFormat("stance", schema, Roles(answer=("label",))), [])
    assert soft_label((0.1, 0.7, 0.2), source, LABELS) == pytest.approx((0.7, 0.2, 0.1))
    assert sum(soft_label((0.1, 0.7, 0.201), source, LABELS)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("damaged", [(0.5, 0.5, 0.0), (0.0, 0.0), (float("nan"), 1.0), (float("inf"), 0.0)])
def test_damaged_probabilities_are_named(
    damaged: Probabilities, runs: dict[str, Path], set_probabilities: SetProbabilities
) -> None:
    set_probabilities(lambda *_: damaged)
    source = read_source(str(runs["labels"]), with_verifier_probabilities=True)
    with pytest.raises(TrainingError, match=f"^{source.name}: the verifier's probabilities .* create it again$"):
        make_training_set([source])


def test_sources_without_probabilities_are_refused_in_one_line(
    home: Path, runs: dict[str, Path], tmp_path: Path, encoder: str, set_probabilities: SetProbabilities
) -> None:
    file, run = write_rows(tmp_path / "rows.jsonl", choices(50)), runs["options"]

    def refused(*sources: object) -> str:
        ended = typed(
            "train", *map(str, sources), "--soft-labels", "--encoder", encoder, "--out", str(tmp_path / "out")
        )
        assert ended.code > 0
        return ended.err.splitlines()[-1]

    set_probabilities(lambda *_: None)
    assert f"{file}: no row was verified" in refused(file)
    assert f"csqa, {run}: no row was verified" in refused("csqa", run)
    assert not (tmp_path / "out").exists()
