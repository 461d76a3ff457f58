"""Answers: one for every row, in the order of the rows, whatever the lengths and batches."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datacreate.errors import TrainingError
from datacreate.finetuning.encoder import Encoded, collator, encode, load_tokenizer, load_with_head
from datacreate.finetuning.evaluate import probabilities
from datacreate.finetuning.rows import Question, Task
from tests.finetuning.conftest import TOKENS, save_encoder
from tests.finetuning.sets import ASKED, FOODS, TOOLS

TASKS = {
    "multiple choice": Task(head="multiple_choice", names=("0", "1", "2")),
    "labels": Task(head="sequence_classification", names=("a", "b", "c")),
}


def questions(task: Task, number: int = 40) -> list[Question]:
    """Questions of very different lengths, in no order."""
    rng = random.Random(1)

    def text(longest: int) -> str:
        return " ".join(rng.choices(ASKED + FOODS + TOOLS, k=rng.randint(1, longest)))

    several = task.head == "multiple_choice"
    return [
        Question(text(30), None, tuple(text(8) for _ in range(3)) if several else (), 0)
        for _ in range(number)
    ]


@pytest.fixture(params=TASKS.values(), ids=TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    found: Task = request.param
    return found


@pytest.fixture(scope="module")
def opinionated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with large weights: it says something else to every row."""
    return save_encoder(tmp_path_factory.mktemp("opinionated") / "encoder", initializer_range=0.5)


@pytest.fixture
def parts(task: Task, opinionated: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Encoded, Any]:
    import torch

    monkeypatch.setattr("datacreate.finetuning.evaluate.has_bf16", lambda: False)  # to compare closely
    torch.manual_seed(7)
    tokenizer = load_tokenizer(opinionated)
    model = load_with_head(opinionated, task)
    return model, encode(questions(task), task, tokenizer, TOKENS), collator(task, tokenizer, None)


def test_answers_are_in_the_order_of_the_rows(task: Task, parts: tuple[Any, Encoded, Any]) -> None:
    model, encoded, collate = parts
    together = probabilities(model, encoded.dataset, collate)
    assert together.shape == (40, 3)
    assert np.allclose(together.sum(axis=1), 1, atol=1e-5)
    alone = [probabilities(model, encoded.dataset.select([row]), collate)[0] for row in range(0, 40, 4)]
    assert np.allclose(together[::4], alone, atol=1e-4)
    assert len({tuple(label_ratio) for label_ratio in together.round(3)}) > 20


@pytest.mark.parametrize("tokens", [1, 100, 1_000_000])
def test_the_size_of_a_batch_decides_nothing(parts: tuple[Any, Encoded, Any], tokens: int) -> None:
    model, encoded, collate = parts
    usual = probabilities(model, encoded.dataset, collate)
    assert np.allclose(probabilities(model, encoded.dataset, collate, tokens), usual, atol=1e-4)


def test_the_longest_rows_come_first_and_no_batch_exceeds_its_tokens(
    parts: tuple[Any, Encoded, Any],
) -> None:
    model, encoded, collate = parts
    shapes: list[tuple[int, ...]] = []

    def remember(rows: list[dict[str, Any]]) -> Any:
        batch = collate(rows)
        shapes.append(tuple(batch["input_ids"].shape))
        return batch

    probabilities(model, encoded.dataset, remember, 200)
    assert all(np.prod(shape) <= 200 for shape in shapes)
    widths = [shape[-1] for shape in shapes]
    assert widths == sorted(widths, reverse=True)
    assert sum(shape[0] for shape in shapes) == 40
    assert len(shapes) > 3


def test_running_out_of_memory_is_one_line_that_says_what_to_lower(
    parts: tuple[Any, Encoded, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    model, encoded, collate = parts

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore words.")

    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(TrainingError, match=r"Tried to allocate 2\.00 GiB.*lower the --max-length") as caught:
        probabilities(model, encoded.dataset, collate)
    assert "\n" not in str(caught.value)


def test_the_cpus_own_words_for_too_little_memory_are_known(
    parts: tuple[Any, Encoded, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    model, encoded, collate = parts
    monkeypatch.setattr(model, "forward", lambda **_: torch.empty(2**60, dtype=torch.int8))
    with pytest.raises(TrainingError, match="out of memory"):
        probabilities(model, encoded.dataset, collate)
