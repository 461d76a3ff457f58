"""Questions as token ids, and the encoders that read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from datacreate.errors import TrainingError
from datacreate.finetuning.encoder import (
    Encoded,
    collator,
    encode,
    load_config,
    load_tokenizer,
    load_with_head,
    max_input_tokens,
)
from datacreate.finetuning.evaluate import evaluate
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import HeadSpec
from datacreate.finetuning.training_rows import ClassificationExample
from tests.finetuning.conftest import FAMILIES, TOKENS, save_encoder
from tests.finetuning.sets import ASKED, FOODS, TOOLS
from tests.finetuning.training import trained

OPTIONS = HeadSpec(head="multiple_choice", names=("0", "1"))
LABELS = HeadSpec(head="sequence_classification", names=("True", "False"))


@pytest.fixture(scope="module")
def tokenizer(encoder: str) -> Any:
    return load_tokenizer(Path(encoder))


def texts(tokenizer: Any, encoded: Encoded, row: int = 0) -> list[str]:
    """The inputs of a row, decoded, with special tokens."""
    ids = encoded.dataset[row]["input_ids"]
    return [tokenizer.decode(one) for one in (ids if isinstance(ids[0], list) else [ids])]


def test_multiple_choice_pairs_the_question_with_each_option(tokenizer: Any) -> None:
    examples = [
        ClassificationExample("which would you eat", "on the table", ("hammer", "apple"), 1),
        ClassificationExample("which one", None, ("bread", "saw there is"), 0),
    ]
    encoded = encode(examples, OPTIONS, tokenizer, TOKENS)
    assert texts(tokenizer, encoded) == [
        "<s> which would you eat on the table </s> </s> hammer </s>",
        "<s> which would you eat on the table </s> </s> apple </s>",
    ]
    assert texts(tokenizer, encoded, 1)[1] == "<s> which one </s> </s> saw there is </s>"
    assert (encoded.dataset["label"][:], encoded.dataset["length"][:]) == ([1, 0], [12, 9])
    assert encoded.truncated == 0


def test_a_passage_is_the_second_text_and_a_claim_stands_alone(tokenizer: Any) -> None:
    claim = ClassificationExample("there is a saw", None, (), 1)
    open_book = ClassificationExample("is there a saw", "on the table", (), 0)
    assert texts(tokenizer, encode([claim], LABELS, tokenizer, TOKENS)) == ["<s> there is a saw </s>"]
    both = encode([open_book, claim], LABELS, tokenizer, TOKENS)
    assert texts(tokenizer, both) == ["<s> is there a saw </s> </s> on the table </s>"]
    assert texts(tokenizer, both, 1) == ["<s> there is a saw </s> </s> </s>"]


def test_the_longer_part_is_truncated_and_rows_are_counted_once(tokenizer: Any) -> None:
    long = " ".join(FOODS * 10)
    examples = [
        ClassificationExample("which one", long, (), 0),
        ClassificationExample("which one", "on the table", (), 0),
        ClassificationExample(long, " ".join(TOOLS * 10), (), 0),
    ]
    encoded = encode(examples, LABELS, tokenizer, 20)
    assert encoded.truncated == 2
    assert encoded.dataset["length"][:] == [20, 9, 20]
    assert texts(tokenizer, encoded)[0].startswith("<s> which one </s> </s> apple bread")
    halves = texts(tokenizer, encoded, 2)[0].removesuffix(" </s>").split("</s> </s>")
    assert [len(half.split()) for half in halves] == [9, 8]
    options = [
        ClassificationExample(long, None, ("saw", "apple"), 0),
        ClassificationExample("one", None, ("a", "b"), 0),
    ]
    assert encode(options, OPTIONS, tokenizer, 20).truncated == 1
    of_passage = [ClassificationExample("which one", long, ("saw", "apple"), 0)]
    assert texts(tokenizer, encode(of_passage, OPTIONS, tokenizer, 20))[0].startswith("<s> which one apple bread")


def test_only_batches_are_padded_to_their_longest_input(tokenizer: Any) -> None:
    examples = [ClassificationExample(" ".join(ASKED[:n]), None, (), n % 2) for n in (2, 7, 4)]
    encoded = encode(examples, LABELS, tokenizer, TOKENS)
    assert [len(row["input_ids"]) for row in encoded.dataset] == encoded.dataset["length"][:] == [4, 9, 6]
    batch = collator(LABELS, tokenizer)([dict(row) for row in encoded.dataset.remove_columns("length")])
    assert batch["input_ids"].shape == (3, 9)
    assert batch["labels"].tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("family", "tokens"), [("roberta", TOKENS), ("mpnet", TOKENS), ("bert", TOKENS + 2), ("modernbert", TOKENS + 2)]
)
def test_the_longest_input_fits_the_positions_of_the_encoder(
    encoder_of: Callable[[str], str], family: str, tokens: int
) -> None:
    folder = Path(encoder_of(family))
    tokenizer = load_tokenizer(folder)
    length = max_input_tokens(tokenizer, load_config(folder), Hyperparameters(), with_passage=True)
    assert length == tokens
    encoded = encode([ClassificationExample(" ".join(FOODS * 20), None, (), 0)], LABELS, tokenizer, length)
    model = load_with_head(folder, LABELS).eval()
    batch = {name: torch.tensor([encoded.dataset[0][name]]) for name in tokenizer.model_input_names}
    assert model(**batch).logits.shape == (1, 2)


def test_positions_start_after_the_padding_id(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "odd", pad_token_id=4)
    length = max_input_tokens(load_tokenizer(folder), load_config(folder), Hyperparameters(), with_passage=False)
    assert length == 61
    model = load_with_head(folder, LABELS).eval()
    assert model(torch.full((1, length), 7)).logits.shape == (1, 2)
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, length + 1), 7))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize(
    ("family", "benchmark", "lora"),
    [
        ("bert", "csqa", True),
        ("mpnet", "pubmedqa", True),
        ("deberta-v2", "csqa", True),
        ("modernbert", "pubmedqa", False),
        ("modernbert", "csqa", True),
    ],
)
def test_every_family_trains_and_predicts(
    home: Path, tmp_path: Path, encoder_of: Callable[[str], str], family: str, benchmark: str, lora: bool
) -> None:
    assert family in FAMILIES
    trained(benchmark, tmp_path / "out", encoder_of(family), epochs=1, count=60, lora=lora)
    [found] = evaluate(tmp_path / "out" / "seed-1", [benchmark])
    assert (found.scores.rows, found.scores.unanswered) == (60, 0)


def test_a_decoder_is_refused_in_one_line(home: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = save_encoder(tmp_path / "gpt")
    GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=1, n_head=1, vocab_size=50)).save_pretrained(folder)
    with pytest.raises(TrainingError, match="cannot be loaded with a multiple_choice head") as caught:
        trained("csqa", tmp_path / "out", str(folder), epochs=1)
    assert "\n" not in str(caught.value)


def test_a_fine_tuned_encoder_gets_a_new_head(home: Path, tmp_path: Path, encoder: str) -> None:
    trained("creak", tmp_path / "first", encoder, epochs=1)
    model = trained("csqa", tmp_path / "second", str(tmp_path / "first" / "seed-1"), epochs=1)
    assert model.training.head.classes == 5
    again = trained("creak", tmp_path / "third", str(tmp_path / "second" / "seed-1"), epochs=1)
    assert again.training.head.names == ("True", "False")
