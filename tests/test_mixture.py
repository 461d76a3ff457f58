"""Several models in one run, which take turns by request."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datacreate.checkpoints import Checkpoint
from datacreate.create import create
from datacreate.errors import EngineError, RunMismatch, UsageError
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from tests.making import SharedWords, train
from tests.making import settings as default_settings
from tests.scripted import ScriptedEngine, answering
from tests.verifying import knowing


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory, model: str) -> str:
    """Another checkpoint than `model`."""
    folder = tmp_path_factory.mktemp("checkpoints") / "another-model"
    shutil.copytree(model, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    return str(folder)


class Fleet:
    """One engine per checkpoint, by its name."""

    def __init__(self, **options: Any) -> None:
        self.engines: dict[str, ScriptedEngine] = {}
        self._options = options

    def __call__(self, checkpoint: Checkpoint, *_: Any) -> ScriptedEngine:
        return self.engines.setdefault(checkpoint.name, ScriptedEngine(answering(), **self._options))


def make_mixed(run_dir: Path, models: tuple[str, ...], fleet: Fleet, **changes: Any) -> dict[str, Any]:
    config = CreateConfig.of(**(default_settings(run_dir, models[0], **changes) | {"model": models}))
    return create(config, engine_factory=fleet, similarity=SharedWords())


def test_models_take_turns_by_request(tmp_path: Path, model: str, other: str) -> None:
    fleet = Fleet()
    summary = make_mixed(tmp_path, (model, other), fleet, count=30)
    first, second = fleet.engines["scripted-model"], fleet.engines["another-model"]
    assert all(request.id % 2 == 0 for request in first.history)
    assert all(request.id % 2 == 1 for request in second.history)
    assert all(engine.started and engine.closed for engine in (first, second))
    assert summary["model"] == "scripted-model + another-model"
    assert sum(summary["generators"].values()) == 30
    assert all(summary["generators"].values())


def test_the_result_does_not_depend_on_arrival_order_or_kills(
    tmp_path_factory: pytest.TempPathFactory, model: str, other: str
) -> None:
    first = tmp_path_factory.mktemp("first")
    make_mixed(first, (model, other), Fleet(), count=40)

    @settings(max_examples=8)
    @given(st.integers(0, 2**32), st.integers(1, 5), st.lists(st.integers(1, 8), max_size=3))
    def check(order: int, capacity: int, deaths: list[int]) -> None:
        run_dir = tmp_path_factory.mktemp("run")
        for dies_after in [*deaths, None]:
            fleet = Fleet(capacity=capacity, shuffle=random.Random(order), dies_after=dies_after)
            try:
                make_mixed(run_dir, (model, other), fleet, count=40)
            except EngineError:
                assert dies_after is not None
        assert train(run_dir) == train(first)

    check()


def test_one_of_the_models_can_verify(tmp_path: Path, model: str, other: str) -> None:
    fleet = Fleet(scorer=knowing)
    make_mixed(tmp_path, (model, other), fleet, count=20, verify="keep", verifier=other)
    assert set(fleet.engines) == {"scripted-model", "another-model"}
    assert fleet.engines["another-model"].verified
    assert not fleet.engines["scripted-model"].verified


def test_the_mixture_identifies_the_run(tmp_path: Path, model: str, other: str) -> None:
    make_mixed(tmp_path, (model, other), Fleet(), count=10)
    for models in ((model,), (other, model)):
        with pytest.raises(RunMismatch, match="another model"):
            make_mixed(tmp_path, models, Fleet(), count=10)
    spec = json.loads((tmp_path / "config.json").read_text())["spec"]
    assert [generator["model"] for generator in spec["mixture"]] == ["scripted-model", "another-model"]
    assert len({generator["sha256"] for generator in spec["mixture"]}) == 2


def test_the_config_records_engine_settings_and_versions(tmp_path: Path, model: str) -> None:
    fleet = Fleet()
    fleet(Checkpoint("scripted-model", Path(model), "", None)).settings = {"dtype": "bfloat16"}
    make_mixed(tmp_path, (model,), fleet, count=5)
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["engines"] == {"engine": {"dtype": "bfloat16"}}
    assert "datacreate" in document["versions"]
    assert RunDirectory(tmp_path).read_config().engines == document["engines"]


def test_models_of_one_name_get_different_names_and_equal_models_are_an_error(
    tmp_path: Path, model: str, other: str
) -> None:
    same_name = tmp_path / "other" / Path(model).name
    shutil.copytree(other, same_name)
    summary = make_mixed(tmp_path / "run", (model, str(same_name)), Fleet(), count=20)
    assert len(summary["generators"]) == 2
    assert sum(summary["generators"].values()) == 20
    shutil.copytree(model, tmp_path / "copy")
    with pytest.raises(UsageError, match="two of these are the same model"):
        make_mixed(tmp_path / "same", (model, str(tmp_path / "copy")), Fleet())
    with pytest.raises(UsageError, match="name each model once"):
        make_mixed(tmp_path / "same", (model, model), Fleet())
