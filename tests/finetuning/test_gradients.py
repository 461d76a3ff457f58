"""A step's gradients are the mean over its rows, in however many portions and processes they are seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datacreate.finetuning.together import run_together
from safetensors.torch import load_file

from tests.finetuning.conftest import save_encoder
from tests.finetuning.gradients import ROWS, gradients, name_of
from tests.process import ROOT


@pytest.fixture(scope="module")
def without_dropout(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Encoders that say the same of a row whatever it is seen with."""
    folder = tmp_path_factory.mktemp("encoders")
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    families = {"roberta": off, "modernbert": {}}  # ModernBERT has none
    return {name: save_encoder(folder / name, name, **told) for name, told in families.items()}


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    one, other = (
        torch.cat([told[name].flatten().float() for name in sorted(wanted)]) for told in (found, wanted)
    )
    assert other.norm() > 0
    assert (one - other).norm() < 0.02 * other.norm()  # as exact as bfloat16 is


@pytest.mark.parametrize(
    ("family", "head", "soft"),
    [
        ("roberta", "options", True),
        ("roberta", "labels", False),
        ("modernbert", "options", False),
        ("modernbert", "labels", True),
    ],
)
def test_portions_of_a_batch_give_its_gradients(
    without_dropout: dict[str, Path], tmp_path: Path, head: str, soft: bool, family: str
) -> None:
    at_once, in_portions = (
        gradients(without_dropout[family], tmp_path, head, soft, device_batch_size)
        for device_batch_size in (ROWS, 2)
    )
    assert_same(in_portions, at_once)


@pytest.mark.slow
def test_processes_give_the_gradients_of_one(
    without_dropout: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    told = [without_dropout["roberta"], tmp_path, "options"]
    assert run_together([sys.executable, "-m", "tests.finetuning.gradients", *map(str, told)], 2) == 0
    for soft in (False, True):
        wanted = gradients(without_dropout["roberta"], tmp_path, "options", soft, ROWS)
        for device_batch_size in (4, 2):
            assert_same(load_file(tmp_path / name_of(soft, device_batch_size)), wanted)
