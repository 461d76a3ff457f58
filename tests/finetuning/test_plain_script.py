"""A created file trains in a script that knows nothing of datacreate."""

from __future__ import annotations

import json
import random
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from datacreate.engines.base import Completion, Request
from datacreate.runs.directory import RunDirectory
from datacreate.runs.export import reference
from tests.finetuning.sets import ASKED, FOODS, TOOLS, Row, choices, claims
from tests.making import make
from tests.scripted import written

SCRIPT = Path(__file__).with_name("plain_script.py")


def sensible(request: Request) -> Completion:
    """What a model that knows what can be eaten might write."""
    rng = random.Random(f"{request.id}:{request.messages}")
    items = written(request, rng)
    for place, item in enumerate(items):
        _make_sense(item, rng, f"{request.id} {place}")
    text = json.dumps(items)
    return Completion(request.id, text, "stop", 50, len(text) // 4)


def _make_sense(item: Any, rng: random.Random, number: str) -> None:
    """Write into the places that the grammar leaves open: a claim, or a question and its options."""
    asked = " ".join(rng.sample(ASKED, 4))
    strings = [at for at, value in enumerate(item) if isinstance(value, str)]
    lists = [at for at, value in enumerate(item) if isinstance(value, list)]
    if lists:  # the right option is written first, and shuffled by datacreate
        [options], [question] = lists, strings
        item[options] = [rng.choice(FOODS), *rng.sample(TOOLS, 4)]
        item[question] = f"{number} {asked}"
        return
    [label] = [at for at, value in enumerate(item) if isinstance(value, bool)]
    [question] = strings
    item[question] = f"{number} {asked} {rng.choice(FOODS if item[label] else TOOLS)}"


@pytest.mark.parametrize("example", [choices(1)[0], claims(1)[0]], ids=["options", "claims"])
def test_a_created_file_trains_in_a_plain_script(
    tmp_path: Path,
    model: str,
    encoder: str,
    example: Row,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import datasets

    make(tmp_path / "run", model, engine=sensible, example=example, count=160)
    exported = reference(RunDirectory(tmp_path / "run"), tmp_path)
    train = tmp_path / "run" / "train.jsonl"
    assert [json.loads(a) for a in _lines(exported)] == [json.loads(b) for b in _lines(train)]
    assert "import datacreate" not in SCRIPT.read_text()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(exported), encoder, str(tmp_path / "out")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    found = re.search(r"accuracy (\S+)", capsys.readouterr().out)
    assert found
    assert float(found[1]) > 0.95


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]
