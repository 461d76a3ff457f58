"""What `--recipe` decides, and that the first line says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import UsageError
from datacreate.prompts.label_scoring import MAX_LETTERS
from datacreate.runs.directory import RunDirectory
from tests.finetuning.conftest import save_encoder
from tests.support.inprocess import run
from tests.support.making import NLI, NLI_LABELS, make


def first_line(run_dir: Path, model: str, **changes: Any) -> str:
    lines: list[str] = []
    make(run_dir, model, notify=lines.append, **{"count": 9, "verify": None, "num_chains": None} | changes)
    return lines[0]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_encoder(tmp_path_factory.mktemp("encoders") / "tiny"))


VERIFIED, UNVERIFIED = "answers verified by scripted-model (drop)", "answers are not verified"
PULL = "; for the strategy coverage: `datacreate models pull all-mpnet-base-v2`"


@pytest.mark.parametrize(
    ("has_encoder", "changes", "line"),
    [
        (True, {}, f"recipe best: strategy coverage, {VERIFIED}"),
        (True, {"recipe": "fast"}, f"recipe fast: strategy tree, {UNVERIFIED}"),
        (True, {"strategy": "naive"}, f"recipe best: strategy naive, {VERIFIED}"),
        (True, {"verify": "off"}, f"recipe best: strategy coverage, {UNVERIFIED}"),
        (False, {}, f"recipe best: strategy tree, {VERIFIED}{PULL}"),
    ],
)
@pytest.mark.parametrize("format_settings", [{}, {"example": NLI, "labels": NLI_LABELS}], ids=["options", "labels"])
def test_the_first_line_says_what_the_recipe_decided(
    tmp_path: Path,
    model: str,
    encoder: str,
    has_encoder: bool,
    changes: dict[str, Any],
    line: str,
    format_settings: dict[str, Any],
) -> None:
    embeds = {"embedding_model": encoder} if has_encoder else {}
    assert first_line(tmp_path / "run", model, **format_settings, **embeds, **changes) == line
    spec = RunDirectory(tmp_path / "run").read_config().spec
    assert f"strategy {spec.strategy}," in line
    assert (spec.verification is not None) == (VERIFIED in line)


def test_a_preview_loads_no_embedding_model(tmp_path: Path, model: str, encoder: str) -> None:
    (tmp_path / "nli.json").write_text(json.dumps(NLI))
    ended = run("preview", "--example", tmp_path / "nli.json", "--model", model, "--embedding-model", encoder)
    assert (ended.code, ended.err.splitlines()[0]) == (0, f"recipe best: strategy tree, {UNVERIFIED}")


FREE_TEXT = {"question": "Where does the Elbe rise?", "label": "In the Giant Mountains."}


@pytest.mark.parametrize(
    ("example", "says"),
    [
        ({"text": "An apple is blue."}, "no answer field found, so nothing is verified or balanced"),
        (FREE_TEXT, "answers cannot be verified (free text)"),
    ],
)
def test_what_cannot_be_verified_is_said(tmp_path: Path, model: str, example: dict[str, Any], says: str) -> None:
    assert says in first_line(tmp_path, model, example=example)


def test_a_verifier_is_used_with_any_recipe_but_not_for_free_text(tmp_path: Path, model: str) -> None:
    assert VERIFIED in first_line(tmp_path / "run", model, recipe="fast", verifier=model)
    with pytest.raises(UsageError, match=r"free text.*--verifier"):
        first_line(tmp_path / "refused", model, example=FREE_TEXT, verifier=model)


def test_many_labels_are_verified_only_if_asked_for(tmp_path: Path, model: str) -> None:
    labels = {"label": ",".join(["entailment", *(f"label {i}" for i in range(MAX_LETTERS))])}
    line = first_line(tmp_path / "run", model, example=NLI, labels=labels)
    assert line.startswith(f"recipe best: strategy tree, {UNVERIFIED}; --verify drop tries it with more than 26 labels")


def test_paper_is_tree_and_not_verified(tmp_path: Path, model: str) -> None:
    paper: dict[str, Any] = {"recipe": "paper", "concurrency": None, "example": NLI, "labels": NLI_LABELS}
    assert first_line(tmp_path / "run", model, **paper) == f"recipe paper: strategy tree, {UNVERIFIED}"


def test_an_existing_run_keeps_its_strategy(tmp_path: Path, model: str, encoder: str) -> None:
    assert "strategy tree" in first_line(tmp_path / "run", model)
    longer = first_line(tmp_path / "run", model, count=12, embedding_model=encoder)
    assert longer == f"recipe best: strategy tree, {VERIFIED}"
