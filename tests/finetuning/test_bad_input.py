"""Errors of `train` and `evaluate`: one line, the right exit code, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.finetuning.sets import claims, write_rows
from tests.support.inprocess import typed


def refused(code: int, words: str, *arguments: object) -> None:
    """The command fails with that code, and the line of its error has these words."""
    ended = typed(*map(str, arguments))
    assert ended.code == code, ended.err
    assert words in ended.err.splitlines()[-1]


# More arguments of `train creak`, the exit code, words of the line.
BAD: dict[str, tuple[list[str], int, str]] = {
    "seeds that are words": (["--seeds", "one"], 2, "--seeds one: give a valid integer"),
    "rates that are words": (["--learning-rates", "fast"], 2, "--learning-rates fast: give a valid number"),
    "a rate of 0": (["--learning-rates", "1e-5,0"], 2, "--learning-rates 0: give a number greater than 0"),
    "no epochs": (["--epochs", "0"], 2, "--epochs 0: give a number greater than 0"),
    "a negative warm-up": (["--warmup", "-1"], 2, "--warmup -1: give"),
    "a negative seed": (["--seeds", "1,-1"], 2, "--seeds -1: give a number greater than or equal to 0"),
    "another recipe": (["--recipe", "mine"], 2, "'mine' is not one of 'datacreate', 'paper'"),
    "too many rows": (["--count", "1000"], 2, "lower --count or add sources"),
    "an unknown preset": (["--encoder", "roberta-larg"], 2, "roberta-large"),
    "an encoder that is not downloaded": (
        ["--encoder", "roberta-large"],
        1,
        "not downloaded: run `datacreate models pull roberta-large`",
    ),
    "a generator": (["--encoder", "qwen2.5-coder-0.5b-instruct"], 2, "give an encoder model"),
    "no such folder": (["--encoder", "./nowhere"], 2, "no such folder"),
    "an unknown benchmark": (["--benchmark", "creek"], 2, "did you mean creak"),
    "an unknown source": (["nothing-of-that-name"], 2, "no run directory, file or benchmark"),
    "a source twice": (["creak"], 2, "creak: given twice; give it once"),
    "another head": (["csqa"], 2, "give rows with the same labels or number of options"),
    "labels of a benchmark": (["--labels", "label=a,b"], 2, "--labels only applies to files"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_command_is_one_line(home: Path, tmp_path: Path, encoder: str, name: str) -> None:
    more, code, words = BAD[name]
    own = [] if "--encoder" in more else ["--encoder", encoder]
    refused(code, words, "train", "creak", *own, "--out", tmp_path / "out", *more)
    assert not (tmp_path / "out").exists()


# A file of the encoder, its new content made of the old one (None: removed), words of the line.
DAMAGE: list[tuple[str, Callable[[bytes], bytes | None], str]] = [
    ("model.safetensors", lambda old: old[:-7], "cannot be loaded with a sequence_classification head"),
    ("model.safetensors", lambda _: None, "no *.safetensors"),
    ("config.json", lambda _: None, "no config.json"),
    ("config.json", lambda _: b"{", "config.json: not a JSON object"),
    ("config.json", lambda _: b"{}", "not the configuration of an encoder"),
    ("config.json", lambda old: old.replace(b'"hidden_size": 32', b'"hidden_size": 64'), "differs from config.json"),
    ("tokenizer.json", lambda _: None, "no tokenizer"),
    ("tokenizer.json", lambda _: b"{}", "the tokenizer does not load"),
]


def test_damaged_encoders_are_one_line(home: Path, tmp_path: Path, encoder: str) -> None:
    for number, (name, damage, words) in enumerate(DAMAGE):
        file = Path(shutil.copytree(encoder, tmp_path / f"encoder-{number}")) / name
        if (damaged := damage(file.read_bytes())) is None:
            file.unlink()
        else:
            file.write_bytes(damaged)
        options = ["--encoder", file.parent, "--epochs", 1, "--seeds", 1, "--out", tmp_path / f"out-{number}"]
        refused(1, words, "train", "creak", *options)


def test_skipped_and_few_rows_are_said(home: Path, tmp_path: Path, encoder: str) -> None:
    rows = write_rows(tmp_path / "few.jsonl", [*claims(6), claims(7)[-1] | {"label": "perhaps"}])
    command = ("train", str(rows), "--encoder", encoder, "--out")
    refused(2, "few.jsonl: cannot be written", *command, rows)
    dry = typed(*command, str(tmp_path / "out"), "--dry-run")
    assert "\nskipped rows: 1, " in dry.out
    assert "\nwarning: only 6 rows; a model learns little" in dry.out
    assert not (tmp_path / "out").exists()


def test_evaluating_something_else_is_one_line(home: Path, tmp_path: Path) -> None:
    refused(2, "no trained model here", "evaluate", tmp_path)
    refused(2, "give either models or --zero-shot", "evaluate")
    refused(2, "--split", "evaluate", tmp_path, "--split", "train")
    refused(2, "--split dev only applies to --benchmark", "evaluate", tmp_path, "--split", "dev", "--test", "x")
