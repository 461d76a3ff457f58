"""Whatever is wrong with `train` and `evaluate`: one line, the right exit code, nothing lost."""

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
from tests.finetuning.sets import choices, claims, write_rows
from tests.inprocess import run
from tests.making import make


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
    "seeds that are words": (["--seeds", "one"], 2, "write numbers with commas between them"),
    "seeds that are no whole numbers": (["--seeds", "1.5"], 2, "write numbers with commas"),
    "no seeds": (["--seeds", ""], 2, "write numbers with commas"),
    "rates that are words": (["--learning-rates", "fast"], 2, "write numbers with commas"),
    "a rate of nothing": (["--learning-rates", "0"], 2, "--learning-rates 0.0: give a number greater than 0"),
    "a rate without end": (["--learning-rates", "inf"], 2, "--learning-rates inf: give a finite number"),
    "no epochs": (["--epochs", "0"], 2, "--epochs 0: give a number greater than 0"),
    "no batch": (["--batch-size", "0"], 2, "--batch-size 0: give"),
    "no device batch": (["--device-batch-size", "0"], 2, "--device-batch-size"),
    "no processes": (["--nproc", "0"], 2, "--nproc"),
    "no rank": (["--lora", "--lora-rank", "0"], 2, "--lora-rank 0: give"),
    "one token": (["--max-length", "1"], 2, "--max-length 1: give"),
    "no rows": (["--count", "0"], 2, "--count"),
    "too many rows": (["--count", "1000"], 1, "lower --count or make more"),
    "an unknown preset": (["--encoder", "roberta-larg"], 1, "roberta-large"),
    "an encoder that is not here": (
        ["--encoder", "roberta-large"],
        1,
        "not downloaded: run `datacreate models pull roberta-large`",
    ),
    "a generator": (["--encoder", "qwen2.5-coder-0.5b-instruct"], 1, "an encoder model is needed here"),
    "no such folder": (["--encoder", "./nowhere"], 1, "no such folder"),
    "an unknown benchmark": (["--benchmark", "creek"], 1, "did you mean creak"),
    "an unknown source": (["nothing-of-that-name"], 1, "no run directory, JSONL file or benchmark"),
    "another head": (["csqa"], 1, "use what asks for the same head"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_command_is_one_line_and_makes_nothing(
    home: Path, tmp_path: Path, encoder: str, name: str
) -> None:
    more, code, words = BAD[name]
    result = invoke(train, "creak", "--encoder", encoder, "--out", tmp_path / "out", *more)
    refused(result, code, words)
    assert not (tmp_path / "out").exists()


def test_encoders_that_are_damaged_are_one_line(home: Path, tmp_path: Path, encoder: str) -> None:
    def with_damage(name: str, text: str | None) -> Result:
        folder = tmp_path / f"encoder-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(encoder, folder)
        if text is None:
            (folder / name).unlink()
        elif text == "cut":
            (folder / name).write_bytes((folder / name).read_bytes()[:-7])
        else:
            (folder / name).write_text(text)
        told = ["--encoder", folder, "--epochs", 1, "--seeds", 1]
        return invoke(train, "creak", *told, "--out", tmp_path / f"out-{folder.name}")

    refused(with_damage("model.safetensors", "cut"), 1, "is damaged")
    refused(with_damage("model.safetensors", None), 1, "no *.safetensors")
    refused(with_damage("config.json", None), 1, "no config.json")
    refused(with_damage("config.json", "{"), 1, "config.json is not JSON")
    refused(with_damage("config.json", "{}"), 1, "not the configuration of an encoder")
    refused(with_damage("config.json", '{"model_type": "no such"}'), 1, "bring it")
    refused(with_damage("tokenizer.json", None), 1, "no tokenizer")
    refused(with_damage("tokenizer.json", "{}"), 1, "no tokenizer that loads")


def test_an_encoder_of_another_size_than_its_configuration_is_one_line(
    home: Path, tmp_path: Path, encoder: str
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 64}))
    for source in ("creak", "csqa"):
        result = invoke(train, source, "--encoder", folder, "--epochs", 1, "--out", tmp_path / source)
        refused(result, 1, "is of another size than config.json says")


def test_a_run_that_is_not_finished_is_one_line(home: Path, tmp_path: Path, model: str, encoder: str) -> None:
    make(tmp_path / "run", model)
    path = tmp_path / "run" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"count": 1000}))
    result = invoke(train, tmp_path / "run", "--encoder", encoder, "--out", tmp_path / "out")
    refused(result, 1, "not finished (25 of 1000 examples); run its `datacreate create` again first")


def test_files_that_cannot_be_trained_on_are_one_line(home: Path, tmp_path: Path, encoder: str) -> None:
    empty = write_rows(tmp_path / "empty.jsonl", [])
    columns = write_rows(tmp_path / "columns.jsonl", [claims(1)[0], {"question": "why", "label": True}])
    outside = [claims(1)[0], *[row | {"label": "perhaps"} for row in claims(9)]]
    labels = write_rows(tmp_path / "labels.jsonl", outside)
    options = write_rows(tmp_path / "options.jsonl", choices(9, 3))

    def trained(*sources: object) -> Result:
        return invoke(train, *sources, "--encoder", encoder, "--out", tmp_path / "out")

    refused(trained(empty), 1, "no rows")
    refused(trained(columns), 1, "line 2 has columns question, label, where line 1 has")
    refused(trained(labels), 1, "the answer is not one of the labels")
    refused(trained("csqa", options), 1, "has questions with 5 options")
    assert not (tmp_path / "out").exists()


def test_evaluation_of_what_is_no_model_is_one_line(home: Path, tmp_path: Path) -> None:
    refused(invoke(evaluate, tmp_path), 1, "no trained model in it")
    refused(invoke(evaluate, tmp_path / "nowhere"), 1, "no trained model in it")
    refused(invoke(evaluate), 2, "give the models to measure")
    refused(invoke(evaluate, tmp_path, "--split", "train"), 2, "--split")


def test_the_real_command_prints_the_line_and_exits_with_its_code(home: Path, tmp_path: Path) -> None:
    ended = run("train", "creak", "--encoder", "roberta-large", "--out", tmp_path / "out")
    assert ended.code == 1
    assert ended.failure == (
        "datacreate: roberta-large is not downloaded: run `datacreate models pull roberta-large`"
    )
    assert ended.out == ""
