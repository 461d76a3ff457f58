"""Every family of encoders under both heads: trained, saved, loaded, evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from datacreate.errors import TrainingError
from datacreate.finetuning.evaluate import evaluate
from datacreate.finetuning.recipe import Lora
from tests.finetuning.conftest import FAMILIES, save_encoder
from tests.finetuning.training import trained


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize(
    ("benchmark", "lora"), [("csqa", None), ("pubmedqa", Lora(rank=2))], ids=["full", "lora"]
)
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "roberta"])
def test_a_family_trains_and_answers(
    home: Path,
    tmp_path: Path,
    encoder_of: Callable[[str], str],
    family: str,
    benchmark: str,
    lora: Lora | None,
) -> None:
    encoder = encoder_of(family)
    model = trained(benchmark, tmp_path / "out", encoder, epochs=1, count=60, lora=lora)
    assert model.trained_rows + model.selection_rows == 60
    [found] = evaluate(tmp_path / "out" / "seed-1", [benchmark])
    assert found.scores.rows == 60
    assert found.scores.unanswered == 0


def test_a_decoder_is_refused_in_one_line(home: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = save_encoder(tmp_path / "gpt")
    GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=1, vocab_size=50)).save_pretrained(folder)
    with pytest.raises(TrainingError, match="cannot be loaded with a multiple_choice head") as caught:
        trained("csqa", tmp_path / "out", str(folder), epochs=1)
    assert "\n" not in str(caught.value)


def test_an_encoder_that_was_fine_tuned_before_gets_a_new_head(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    trained("creak", tmp_path / "first", encoder, epochs=1)
    before = str(tmp_path / "first" / "seed-1")
    model = trained("csqa", tmp_path / "second", before, epochs=1)
    assert model.training.task.classes == 5
    again = trained("creak", tmp_path / "third", str(tmp_path / "second" / "seed-1"), epochs=1)
    assert again.training.task.names == ("True", "False")
