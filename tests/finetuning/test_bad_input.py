"""Errors of `train` and `evaluate`: one line, the right exit code, nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from datacreate.cli.evaluate import evaluate
from datacreate.cli.train import train
from datacreate.errors import DatacreateError
from tests.finetuning.sets import claims, write_rows


def refused(result: Result, code: int, words: str) -> None:
    """The command failed with that code, in one line that has these words."""
    error = result.exception
    if isinstance(error, DatacreateError):
        assert error.exit_code == code
        assert "\n" not in str(error)
        assert words in str(error)
        return
    assert result.exit_code == code, result.exception
    assert words in result.stderr


def invoke(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, list(map(str, arguments)))


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
    result = invoke(train, "creak", *own, "--out", tmp_path / "out", *more)
    refused(result, code, words)
    assert not (tmp_path / "out").exists()


# A file of the encoder, its new content (None: removed), words of the line.
DAMAGE: list[tuple[str, str | None, str]] = [
    ("model.safetensors", "cut", "cannot be loaded with a sequence_classification head"),
    ("model.safetensors", None, "no *.safetensors"),
    ("config.json", None, "no config.json"),
    ("config.json", "{", "config.json: not a JSON object"),
    ("config.json", "{}", "not the configuration of an encoder"),
    ("config.json", "hidden_size", "differs from config.json"),
    ("tokenizer.json", None, "no tokenizer"),
    ("tokenizer.json", "{}", "the tokenizer does not load"),
]


def test_damaged_encoders_are_one_line(home: Path, tmp_path: Path, encoder: str) -> None:
    for number, (name, content, words) in enumerate(DAMAGE):
        folder = tmp_path / f"encoder-{number}"
        shutil.copytree(encoder, folder)
        file = folder / name
        if content is None:
            file.unlink()
        elif content == "cut":
            file.write_bytes(file.read_bytes()[:-7])
        elif content == "hidden_size":
            file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_size": 64}))
        else:
            file.write_text(content)
        options = ["--encoder", folder, "--epochs", 1, "--seeds", 1, "--out", tmp_path / f"out-{number}"]
        refused(invoke(train, "creak", *options), 1, words)


def test_skipped_and_few_rows_are_said(home: Path, tmp_path: Path, encoder: str) -> None:
    rows = write_rows(tmp_path / "few.jsonl", [*claims(6), claims(7)[-1] | {"label": "perhaps"}])
    refused(invoke(train, rows, "--encoder", encoder, "--out", rows), 2, "few.jsonl: cannot be written")
    dry = invoke(train, rows, "--encoder", encoder, "--out", tmp_path / "out", "--dry-run")
    assert "\nskipped rows: 1, " in dry.stdout
    assert "\nwarning: only 6 rows; a model learns little" in dry.stdout
    assert not (tmp_path / "out").exists()


def test_evaluating_something_else_is_one_line(home: Path, tmp_path: Path) -> None:
    refused(invoke(evaluate, tmp_path), 2, "no trained model here")
    refused(invoke(evaluate), 2, "give either models or --zero-shot")
    refused(invoke(evaluate, tmp_path, "--split", "train"), 2, "--split")
    refused(invoke(evaluate, tmp_path, "--split", "dev", "--test", "x"), 2, "--split dev only applies to --benchmark")
