"""Soft labels: a verifier's probabilities are learned, and where it was sure nothing changes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from datacreate.cli.train import train as command
from datacreate.errors import RunMismatch, Stopped, TrainingError
from datacreate.finetuning.encode import collator, encode, load_tokenizer
from datacreate.finetuning.encoder import load_with_head
from datacreate.finetuning.evaluate import evaluate
from datacreate.finetuning.rows import read_source, training_set
from datacreate.finetuning.settings import Lora, Settings
from datacreate.finetuning.soft_labels import Verdict, in_head_order, targets
from datacreate.finetuning.task import Question, Task
from datacreate.finetuning.train import TrainConfig, train
from datacreate.finetuning.trial import Inputs, make_trainer
from datacreate.formats.task_format import Roles, TaskFormat, load_format
from datacreate.runs.directory import RunDirectory
from tests.finetuning.sets import Row, choices, claims, write_rows
from tests.finetuning.test_plain_script import sensible
from tests.finetuning.training import Heard, config, weights
from tests.making import make

Judge = Callable[[int, Row], Verdict | None]
"""What the verifier says of a row, by its place."""

LABELS = Task(head="sequence_classification", names=("yes", "no", "maybe"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model: str) -> dict[str, Path]:
    """A finished run of each head, of what makes sense."""
    folder = tmp_path_factory.mktemp("runs")
    for name, example in (("options", choices(1)[0]), ("labels", claims(1)[0])):
        make(folder / name, model, engine=sensible, example=example, count=160)
    return {name: folder / name for name in ("options", "labels")}


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> Callable[[Judge], None]:
    def set_(judge: Judge) -> None:
        def said(run: RunDirectory) -> Iterator[Verdict | None]:
            yield from (judge(place, row) for place, row in enumerate(run.examples()))

        monkeypatch.setattr(RunDirectory, "verdicts", said, raising=False)

    return set_


def right(row: Row) -> int:
    """The place of a row's answer: among its options, or in the order of the format's labels."""
    labels = row["options"] if isinstance(row["label"], str) else [True, False]
    return int(labels.index(row["label"]))


def certain(place: int, row: Row) -> Verdict:
    """The label itself."""
    number = len(row["options"]) if isinstance(row["label"], str) else 2
    return tuple(float(at == right(row)) for at in range(number))


def torn(place: int, row: Row) -> Verdict | None:
    """Never quite sure, and silent of every third row."""
    sure = certain(place, row)
    return None if place % 3 == 0 else tuple(0.7 * p + 0.3 / len(sure) for p in sure)


def soft(run: Path, out: Path, encoder: str, **changes: Any) -> TrainConfig:
    return config(
        run, out, encoder, **{"soft_labels": True, "epochs": 2, "model_selection": "none"} | changes
    )


@pytest.mark.parametrize(
    ("head", "how"),
    [
        ("options", {"lora": Lora(rank=2)}),
        ("options", {"device_rows": 4}),
        ("labels", {"model_selection": "held-out"}),
    ],
    ids=["lora", "accumulated", "held-out"],
)
def test_where_the_verifier_is_sure_the_model_is_the_one_of_hard_labels(
    runs: dict[str, Path],
    tmp_path: Path,
    encoder: str,
    verdicts: Callable[[Judge], None],
    head: str,
    how: dict[str, Any],
) -> None:
    verdicts(certain)
    [hard] = train(soft(runs[head], tmp_path / "hard", encoder, soft_labels=False, **how))
    [same] = train(soft(runs[head], tmp_path / "soft", encoder, **how))
    assert same.selection_score == hard.selection_score
    one, other = (load_file(tmp_path / name / "seed-1" / "model.safetensors") for name in ("hard", "soft"))
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], atol=1e-4), name


def test_what_the_verifier_says_is_learned_and_not_the_label(
    home: Path, runs: dict[str, Path], tmp_path: Path, encoder: str, verdicts: Callable[[Judge], None]
) -> None:
    verdicts(lambda place, row: tuple((1 - p) / 4 for p in certain(place, row)))
    train(soft(runs["options"], tmp_path / "out", encoder, epochs=12))
    [found] = evaluate(tmp_path / "out" / "seed-1", ["csqa"])
    assert found.scores.accuracy < 0.1


@pytest.mark.parametrize(("head", "family"), [("options", "roberta"), ("labels", "deberta-v2")])
def test_the_loss_is_the_cross_entropy_against_the_verdicts(
    runs: dict[str, Path],
    tmp_path: Path,
    encoder_of: Callable[[str], str],
    verdicts: Callable[[Judge], None],
    head: str,
    family: str,
) -> None:
    verdicts(torn)
    rows = training_set([read_source(str(runs[head]), verdicts=True)])
    folder, settings = Path(encoder_of(family)), Settings(soft_labels=True)
    tokenizer, model = load_tokenizer(folder), load_with_head(folder, rows.task).eval()
    encoded = encode(rows.questions, rows.task, tokenizer, 60, soft_labels=True)
    collate = collator(rows.task, tokenizer, None)
    materials = Inputs(folder, rows.task, tokenizer, collate, encoded, None, settings, 60)
    trainer = make_trainer(materials, model, 1, 1e-3, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    with torch.inference_mode():
        found = trainer.compute_loss(model, dict(batch))
        wanted = batch.pop("labels")
        logits = model(**batch).logits
    assert wanted.shape == logits.shape
    assert found == pytest.approx(float(-(wanted * logits.log_softmax(-1)).sum(-1).mean()), abs=1e-5)


def test_a_stopped_training_goes_on_and_others_are_refused(
    runs: dict[str, Path], tmp_path: Path, encoder: str, verdicts: Callable[[Judge], None]
) -> None:
    verdicts(torn)
    heard = Heard()
    [whole] = train(soft(runs["options"], tmp_path / "whole", encoder), heard)
    assert "54 of 160 rows have no verdict and keep their label" in heard.notes
    assert whole.training.condition.name == "tree (soft labels)"
    assert whole.training.settings.described == "datacreate, lr 0.003, epochs=2"  # that of hard labels
    asked = soft(runs["options"], tmp_path / "out", encoder)
    with pytest.raises(Stopped):
        train(asked, Heard(stop_at=3, at_step=lambda: os.kill(os.getpid(), signal.SIGTERM)))
    train(asked)
    assert weights(tmp_path / "out" / "seed-1") == weights(tmp_path / "whole" / "seed-1")
    with pytest.raises(RunMismatch, match=r"name=tree \(soft labels\) there, name=tree asked"):
        train(soft(runs["options"], tmp_path / "out", encoder, soft_labels=False))
    verdicts(certain)
    with pytest.raises(RunMismatch, match=r"verdicts_digest: "):
        train(asked)


def test_human_rows_beside_a_verified_run_keep_their_labels(
    home: Path, runs: dict[str, Path], tmp_path: Path, verdicts: Callable[[Judge], None]
) -> None:
    verdicts(torn)
    sources = [read_source(name, verdicts=True) for name in ("csqa", str(runs["options"]))]
    rows = training_set(sources)
    assert [one.verdict is None for one in rows.questions[:202]] == [*[True] * 201, False]
    hard = training_set([read_source(source.where) for source in sources])
    assert rows.condition.name == "human+tree (soft labels)"
    # The created set is the same, whoever judged it.
    assert rows.condition.model_copy(update={"name": "human+tree"}) == hard.condition
    assert training_set(sources, condition="mine").condition.name == "mine (soft labels)"


def test_choosing_rows_keep_their_label(encoder: str) -> None:
    asked = [Question("there is a saw", None, (), 1, (0.9, 0.1, 0.0)), Question("a brush", None, (), 2)]
    assert targets(asked, LABELS) == [[0.9, 0.1, 0.0], [0.0, 0.0, 1.0]]
    tokenizer = load_tokenizer(Path(encoder))
    assert encode(asked, LABELS, tokenizer, 60).dataset["label"][:] == [1, 2]
    found = encode(asked, LABELS, tokenizer, 60, soft_labels=True).dataset["label"][:]
    assert found == targets(asked, LABELS)


def test_probabilities_of_labels_are_found_by_their_text() -> None:
    schema = {"type": "object", "properties": {"label": {"enum": ["maybe", "yes", "no"]}}}
    format = TaskFormat("stance", schema, Roles(answer=("label",)))
    assert in_head_order((0.1, 0.7, 0.2), format, LABELS) == pytest.approx((0.7, 0.2, 0.1))
    rounded = in_head_order((0.1, 0.7, 0.201), format, LABELS)
    assert rounded is not None
    assert sum(rounded) == pytest.approx(1, abs=1e-12)
    options = Task(head="multiple_choice", names=("0", "1"))
    assert in_head_order((0.25, 0.75), load_format("multiple_choice"), options) == (0.25, 0.75)


@pytest.mark.parametrize(
    "wrong", [(0.5, 0.5), (0.5, 0.6, 0.5), (1.5, -0.5, 0.0), (float("nan"), 0.5, 0.5), ()]
)
def test_what_is_no_verdict_on_a_row_is_none(wrong: Verdict) -> None:
    options = Task(head="multiple_choice", names=("0", "1", "2"))
    assert in_head_order(wrong, load_format("multiple_choice"), options) is None


def test_sources_without_verdicts_are_refused_in_one_line(
    home: Path, runs: dict[str, Path], tmp_path: Path, encoder: str, verdicts: Callable[[Judge], None]
) -> None:
    file, run = write_rows(tmp_path / "rows.jsonl", choices(50)), runs["options"]

    def refused(source: object) -> str:
        asked = ["--soft-labels", "--encoder", encoder, "--out", str(tmp_path / "out"), "--nproc", "1"]
        names = [str(one) for one in (source if isinstance(source, list) else [source])]
        result = CliRunner().invoke(command, [*names, *asked])
        assert isinstance(result.exception, TrainingError)
        assert "\n" not in str(result.exception)
        return str(result.exception)

    verdicts(lambda *_: None)
    none = "its rows have labels and no verdicts; --soft-labels needs a run whose rows were verified"
    assert f"{file}: {none}" in refused(file)
    assert f"csqa: {none}" in refused("csqa")
    assert f"{run}: none of its rows was verified" in refused(run)
    assert f"{run}: none of its rows was verified" in refused(["csqa", run])
    verdicts(lambda *_: (0.5, 0.5))
    assert f"{run}: the verdict 0.5 0.5 is no probability for each output" in refused(run)
    assert not (tmp_path / "out").exists()
