"""Questions as token ids: the right pairs, nothing padded, what is cut is counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
from datacreate.finetuning.recipe import PAPER, Recipe
from datacreate.finetuning.rows import Question, Task
from tests.finetuning.conftest import TOKENS, save_encoder
from tests.finetuning.sets import ASKED, FOODS, TOOLS

OPTIONS = Task(head="multiple_choice", names=("0", "1"))
LABELS = Task(head="sequence_classification", names=("True", "False"))


@pytest.fixture(scope="module")
def tokenizer(encoder: str) -> Any:
    return load_tokenizer(Path(encoder))


def texts(tokenizer: Any, encoded: Encoded, row: int) -> list[str]:
    """The inputs of a row, decoded, special tokens and all."""
    ids = encoded.dataset[row]["input_ids"]
    return [tokenizer.decode(one) for one in (ids if isinstance(ids[0], list) else [ids])]


def test_multiple_choice_asks_each_option_with_the_question(tokenizer: Any) -> None:
    questions = [
        Question("which would you eat", None, ("hammer", "apple"), 1),
        Question("which one", None, ("bread", "saw there is"), 0),
    ]
    encoded = encode(questions, OPTIONS, tokenizer, TOKENS)
    assert texts(tokenizer, encoded, 0) == [
        "<s> which would you eat </s> </s> hammer </s>",
        "<s> which would you eat </s> </s> apple </s>",
    ]
    assert texts(tokenizer, encoded, 1)[1] == "<s> which one </s> </s> saw there is </s>"
    assert encoded.dataset["label"][:] == [1, 0]
    assert encoded.dataset["length"][:] == [9, 9]
    assert encoded.truncated == 0


def test_a_passage_of_multiple_choice_comes_before_the_question_unless_it_is_not_shown(
    tokenizer: Any,
) -> None:
    questions = [Question("which one", "on the table", ("saw", "apple"), 1)]
    shown = encode(questions, OPTIONS, tokenizer, TOKENS)
    assert texts(tokenizer, shown, 0)[0] == "<s> on the table which one </s> </s> saw </s>"
    hidden = encode(questions, OPTIONS, tokenizer, TOKENS, show_context=False)
    assert texts(tokenizer, hidden, 0)[0] == "<s> which one </s> </s> saw </s>"


def test_a_passage_is_the_second_of_a_pair_and_a_claim_stands_alone(tokenizer: Any) -> None:
    claim = Question("there is a saw", None, (), 1)
    open_book = Question("is there a saw", "on the table", (), 0)
    alone = encode([claim], LABELS, tokenizer, TOKENS)
    assert texts(tokenizer, alone, 0) == ["<s> there is a saw </s>"]
    both = encode([open_book, claim], LABELS, tokenizer, TOKENS)
    assert texts(tokenizer, both, 0) == ["<s> is there a saw </s> </s> on the table </s>"]
    assert texts(tokenizer, both, 1) == ["<s> there is a saw </s> </s> </s>"]


def test_nothing_is_padded_and_lengths_are_those_of_the_longest_input(tokenizer: Any) -> None:
    questions = [Question(" ".join(ASKED[:n]), None, ("saw", " ".join(FOODS[:n])), 0) for n in (1, 5, 3)]
    encoded = encode(questions, OPTIONS, tokenizer, TOKENS)
    for row in encoded.dataset:
        assert all(tokenizer.pad_token_id not in ids for ids in row["input_ids"])
        assert row["length"] == max(len(ids) for ids in row["input_ids"])
        assert [len(mask) for mask in row["attention_mask"]] == [len(ids) for ids in row["input_ids"]]


def test_the_longer_part_is_cut_first_and_cut_rows_are_counted(tokenizer: Any) -> None:
    long = " ".join(FOODS * 10)
    questions = [
        Question("which one", long, (), 0),
        Question("which one", "on the table", (), 0),
        Question(long, " ".join(TOOLS * 10), (), 0),
    ]
    encoded = encode(questions, LABELS, tokenizer, 20)
    assert encoded.truncated == 2
    assert encoded.dataset["length"][:] == [20, 9, 20]
    kept = texts(tokenizer, encoded, 0)[0]
    assert kept.startswith("<s> which one </s> </s> apple bread")
    assert kept.endswith("</s>")
    halves = texts(tokenizer, encoded, 2)[0].removesuffix(" </s>").split("</s> </s>")
    assert [len(half.split()) for half in halves] == [9, 8]


def test_a_row_is_cut_once_however_many_of_its_options_are(tokenizer: Any) -> None:
    questions = [
        Question(" ".join(ASKED * 9), None, ("saw", "apple"), 0),
        Question("one", None, ("a", "b"), 0),
    ]
    assert encode(questions, OPTIONS, tokenizer, 20).truncated == 1


def test_a_batch_is_padded_to_its_longest_only(tokenizer: Any) -> None:
    questions = [Question(" ".join(ASKED[:n]), None, (), n % 2) for n in (2, 7, 4)]
    encoded = encode(questions, LABELS, tokenizer, TOKENS)
    batch = collator(LABELS, tokenizer, None)([dict(row) for row in encoded.dataset.remove_columns("length")])
    assert batch["input_ids"].shape == (3, 9)
    assert batch["labels"].tolist() == [0, 1, 0]
    eights = collator(LABELS, tokenizer, 8)([dict(row) for row in encoded.dataset.remove_columns("length")])
    assert eights["input_ids"].shape == (3, 16)


@pytest.mark.parametrize(
    ("family", "tokens"),
    [("roberta", TOKENS), ("mpnet", TOKENS), ("bert", TOKENS + 2), ("modernbert", TOKENS + 2)],
)
def test_the_longest_input_is_one_that_the_encoder_has_positions_for(
    encoder_of: Callable[[str], str], family: str, tokens: int
) -> None:
    import torch

    folder = Path(encoder_of(family))
    tokenizer = load_tokenizer(folder)
    longest = max_input_tokens(tokenizer, load_config(folder), Recipe(), with_passage=True)
    assert longest == tokens
    encoded = encode([Question(" ".join(FOODS * 20), None, (), 0)], LABELS, tokenizer, longest)
    model = load_with_head(folder, LABELS).eval()
    batch = {name: torch.tensor([encoded.dataset[0][name]]) for name in tokenizer.model_input_names}
    assert model(**batch).logits.shape == (1, 2)


def test_positions_begin_after_the_padding_id_wherever_that_is(tmp_path: Path) -> None:
    import torch

    folder = save_encoder(tmp_path / "odd", pad_token_id=4)
    longest = max_input_tokens(load_tokenizer(folder), load_config(folder), Recipe(), with_passage=False)
    assert longest == 61
    model = load_with_head(folder, LABELS).eval()
    assert model(torch.full((1, longest), 7)).logits.shape == (1, 2)
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, longest + 1), 7))


def test_settings_and_tokenizer_limit_the_input_too(encoder: str, tokenizer: Any) -> None:
    shape = load_config(Path(encoder))
    assert max_input_tokens(tokenizer, shape, Recipe(max_length=30), with_passage=True) == 30
    shape.max_position_embeddings = 2000
    assert max_input_tokens(tokenizer, shape, Recipe(), with_passage=True) == 512
    assert max_input_tokens(tokenizer, shape, PAPER, with_passage=True) == 256
    assert max_input_tokens(tokenizer, shape, Recipe(max_length=1500), with_passage=True) == 1000


def test_a_damaged_tokenizer_is_one_line(tmp_path: Path, encoder: str) -> None:
    for text in ("{}", "{"):
        folder = save_encoder(tmp_path / f"damaged{len(text)}")
        (folder / "tokenizer.json").write_text(text)
        with pytest.raises(TrainingError, match="no tokenizer that loads") as caught:
            load_tokenizer(folder)
        assert "\n" not in str(caught.value)
