"""Errors of `train` and `evaluate`: one line, the right exit code, nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import Phase, given, settings

from datacreate.cli.evaluate import evaluate
from datacreate.cli.train import train
from datacreate.errors import DatacreateError
from datacreate.finetuning.encoder import load_config, load_tokenizer, load_with_head, max_input_tokens
from datacreate.finetuning.hyperparameters import Hyperparameters
from datacreate.finetuning.records import HeadSpec
from tests.finetuning.sets import choices, claims, write_rows
from tests.inprocess import run
from tests.making import make
from tests.test_readers import contents


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
    "fractional seeds": (["--seeds", "1.5"], 2, "--seeds 1.5: give a valid integer"),
    "rates that are words": (["--learning-rates", "fast"], 2, "--learning-rates fast: give a valid number"),
    "a rate of 0": (["--learning-rates", "1e-5,0"], 2, "--learning-rates 0: give a number greater than 0"),
    "an infinite rate": (["--learning-rates", "inf"], 2, "--learning-rates inf: give a finite number"),
    "no epochs": (["--epochs", "0"], 2, "--epochs 0: give a number greater than 0"),
    "no device batch": (["--device-batch-size", "0"], 2, "--device-batch-size 0: give"),
    "no processes": (["--nproc", "0"], 2, "--nproc 0: give"),
    "a negative warm-up": (["--warmup", "-1"], 2, "--warmup -1: give"),
    "a negative seed": (["--seeds", "1,-1"], 2, "--seeds -1: give a number greater than or equal to 0"),
    "a large seed": (["--seeds", "5000000000"], 2, "give a number less than 4294967296"),
    "one token": (["--max-length", "1"], 2, "--max-length 1: give"),
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


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_encoder_with_any_content_is_read_or_one_line(tmp_path: Path, encoder: str, name: str) -> None:
    folder, tokenizer = shutil.copytree(encoder, tmp_path / "encoder"), load_tokenizer(Path(encoder))
    whole = (folder / name).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little") if name == "model.safetensors" else len(whole)
    valid = whole[8 if header < len(whole) else 0 : header].decode()

    def read(content: bytes) -> None:
        if name == "config.json":
            (folder / name).write_bytes(content)
            max_input_tokens(tokenizer, load_config(folder), Hyperparameters(), True)
        else:
            (folder / name).write_bytes(len(content).to_bytes(8, "little") + content + whole[header:])
            load_with_head(folder, HeadSpec(head="sequence_classification", names=("a", "b")))

    @settings(max_examples=25, phases=[Phase.generate])
    @given(contents(valid))
    def check(content: bytes) -> None:
        try:
            read(content)
        except DatacreateError as error:
            if len(str(error).splitlines()) != 1:
                raise AssertionError(str(error)) from error

    check()


def test_unusable_sources_are_one_line(home: Path, tmp_path: Path, model: str, encoder: str) -> None:
    def trained(*sources: object) -> Result:
        return invoke(train, *sources, "--encoder", encoder, "--out", tmp_path / "out")

    make(tmp_path / "run", model)
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"count": 1000}))
    refused(trained(tmp_path / "run"), 1, "not finished (25 of 1000 examples)")
    refused(trained(write_rows(tmp_path / "empty.jsonl", [])), 2, "no rows")
    labels = [claims(1)[0], *[row | {"label": "perhaps"} for row in claims(9)]]
    refused(trained(write_rows(tmp_path / "labels.jsonl", labels)), 2, "the answer is not one of the labels")
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": row["question"]} for row in claims(9)])
    refused(trained(texts), 2, "no field is recognized as the label")
    rows = write_rows(tmp_path / "few.jsonl", [*claims(6), labels[-1]])
    refused(invoke(train, rows, "--encoder", encoder, "--out", rows), 2, "few.jsonl: cannot be written")
    dry = invoke(train, rows, "--encoder", encoder, "--out", tmp_path / "out", "--dry-run")
    assert "\nskipped rows: 1, " in dry.stdout
    assert "\nwarning: only 6 rows; a model learns little" in dry.stdout
    options = write_rows(tmp_path / "options.jsonl", choices(9, 3))
    refused(trained("csqa", options), 2, "has questions with 5 options")
    assert not (tmp_path / "out").exists()


def test_evaluating_something_else_is_one_line(home: Path, tmp_path: Path) -> None:
    refused(invoke(evaluate, tmp_path), 2, "no trained model here")
    refused(invoke(evaluate), 2, "give either models or --zero-shot")
    refused(invoke(evaluate, tmp_path, "--split", "train"), 2, "--split")
    refused(
        invoke(evaluate, tmp_path, "--split", "dev", "--test", "x"),
        2,
        "--split dev only applies to --benchmark",
    )


def test_the_command_prints_the_line_and_exits_with_its_code(home: Path, tmp_path: Path) -> None:
    ended = run("train", "creak", "--encoder", "roberta-large", "--out", tmp_path / "out")
    assert ended.code == 1
    assert ended.failure.startswith("datacreate: roberta-large is not downloaded: run `datacreate models")
    assert ended.out == ""
