"""Tiny random encoders of every family, and benchmarks that they can learn."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from datacreate.benchmarks import find_benchmark, import_benchmark
from tests.benchmarks.conftest import write_reference
from tests.finetuning.sets import Row, choices, claims, words

SIZE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 66,  # 64 tokens for those that leave out two positions
}
TOKENS = 64
"""The longest input of the tiny RoBERTa."""

FAMILIES: dict[str, dict[str, Any]] = {
    "roberta": {"type_vocab_size": 1},
    "bert": {},
    "mpnet": {},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "type_vocab_size": 0,
    },
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2},
}

_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]  # ids 0 to 4, as RoBERTa has them


def save_tokenizer(folder: Path, vocabulary: Sequence[str] = (), inputs: Sequence[str] = ()) -> int:
    """A word-level tokenizer with RoBERTa's special tokens; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: number for number, word in enumerate(dict.fromkeys([*_SPECIAL, *(vocabulary or words())]))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>"}
    names |= {"pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=list(inputs) or ["input_ids", "attention_mask"],
        model_max_length=1000,
        **{f"{name}_token": token for name, token in names.items()},
    ).save_pretrained(folder)
    return len(ids)


def save_encoder(folder: Path, family: str = "roberta", **changes: Any) -> Path:
    """An encoder with random weights, without a head, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModel

    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if family == "bert" else [])
    size = save_tokenizer(folder, inputs=inputs)
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    shape = special | SIZE | FAMILIES[family] | changes
    config = AutoConfig.for_model(family, vocab_size=size, **shape)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="package", autouse=True)
def quick() -> Iterator[None]:
    """One thread, and large libraries excluded from garbage collection: both save time on a busy machine."""
    import sklearn.model_selection  # noqa: F401
    import torch
    from transformers import AutoModelForMultipleChoice, RobertaModel, Trainer  # noqa: F401

    gc.collect()
    gc.freeze()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # for processes of their own
        yield
    torch.set_num_threads(before)
    gc.unfreeze()


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny RoBERTa."""
    return str(save_encoder(tmp_path_factory.mktemp("encoders") / "tiny-roberta"))


@pytest.fixture(scope="session")
def encoder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The folder of a tiny encoder of a family."""
    folder = tmp_path_factory.mktemp("families")
    return lambda family: str(save_encoder(folder / family, family))


def import_rows(folder: Path, name: str, **splits: Sequence[Row]) -> None:
    """Import these rows as the benchmark of that name."""
    write_reference(folder, name, splits)
    assert import_benchmark(find_benchmark(name), folder, allow_count_mismatch=True, replace=True)


MADE: Mapping[str, Callable[[int, int], list[Row]]] = {
    "csqa": lambda count, seed: choices(count, 5, seed),
    "riddle_sense": lambda count, seed: choices(count, 5, seed),
    "piqa": lambda count, seed: choices(count, 2, seed),
    "creak": lambda count, seed: claims(count, seed),
    "strategyqa": lambda count, seed: claims(count, seed),
    "pubmedqa": lambda count, seed: claims(count, seed, passage=True),
}


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACREATE_HOME", str(folder / "home"))
        for name, made in MADE.items():
            rows = {"train": made(200, 1), "dev": made(40, 2), "test": made(60, 3)}
            import_rows(folder / "reference", name, **rows)
    return folder / "home"


@pytest.fixture
def home(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with small benchmarks of every kind, that no test changes."""
    monkeypatch.setenv("DATACREATE_HOME", str(shared_home))
    return shared_home


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory."""
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
