"""Several models in one run, which share its requests."""

from __future__ import annotations

import json
import random
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from datacreate.checkpoints.checkpoint import Checkpoint
from datacreate.creation.loop import create
from datacreate.engines.request import Completion
from datacreate.errors import EngineError, RunMismatch, UsageError
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from tests.filters.texts import HashedWords
from tests.support.making import commits, train
from tests.support.making import settings as default_settings
from tests.support.scripted import ScriptedClient, answering
from tests.support.verifying import knowing


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory, model: str) -> str:
    """Another checkpoint than `model`."""
    folder = tmp_path_factory.mktemp("checkpoints") / "another-model"
    shutil.copytree(model, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    return str(folder)


class Fleet:
    """One client per checkpoint, by its name."""

    def __init__(self, **options: Any) -> None:
        self.engines: dict[str, ScriptedClient] = {}
        self._options = options

    def __call__(self, checkpoint: Checkpoint, *_: Any) -> ScriptedClient:
        return self.engines.setdefault(checkpoint.name, ScriptedClient(answering(), **self._options))


def make_mixed(run_dir: Path, models: tuple[str, ...], fleet: Fleet, **changes: Any) -> dict[str, Any]:
    config = CreateConfig.of(**(default_settings(run_dir, models[0], **changes) | {"model": models}))
    return create(config, client_factory=fleet, embedder=HashedWords())


def test_models_share_the_requests_and_the_log_names_the_model_of_each(tmp_path: Path, model: str, other: str) -> None:
    fleet = Fleet()
    summary = make_mixed(tmp_path, (model, other), fleet, count=30)
    first, second = fleet.engines["scripted-model"], fleet.engines["another-model"]
    written = [{request.id for request in client.history} for client in (first, second)]
    for commit in commits(tmp_path):
        assert commit.request_number in written[commit.generator]
    assert all(client.started and client.closed for client in (first, second))
    assert summary["model"] == "scripted-model + another-model"
    assert sum(summary["generators"].values()) == 30
    assert all(summary["generators"].values())
    assert RunDirectory(tmp_path).summary()["generators"] == summary["generators"]


def test_models_take_turns_if_there_is_one_request_at_a_time(tmp_path: Path, model: str, other: str) -> None:
    make_mixed(tmp_path, (model, other), Fleet(), count=40, strategy="random", num_chains=1)
    assert [commit.generator for commit in commits(tmp_path)] == [0, 1] * 4


def test_the_slowest_model_does_not_delay_the_fastest(tmp_path: Path, model: str, other: str) -> None:
    class Slow(ScriptedClient):
        """Answers at every tenth poll."""

        polls = 0

        def poll(self, timeout_seconds: float) -> list[Completion]:
            self.polls += 1
            return super().poll(timeout_seconds) if self.polls % 10 == 0 else []

    fleet = Fleet(slots=8)
    fleet.engines["another-model"] = Slow(answering(), slots=8)
    make_mixed(tmp_path, (model, other), fleet, strategy="naive", count=2000, concurrency=None)
    fast, slow = (len(fleet.engines[name].history) for name in ("scripted-model", "another-model"))
    assert fast > 7 * slow


def test_a_killed_run_keeps_what_it_has_and_the_models_that_wrote_it(tmp_path: Path, model: str, other: str) -> None:
    kept = b""
    for dies_after in (3, 1, 6, None):
        fleet = Fleet(slots=3, shuffle=random.Random(1), dies_after=dies_after)
        with suppress(EngineError):
            make_mixed(tmp_path, (model, other), fleet, count=60)
        assert train(tmp_path).startswith(kept)
        kept = train(tmp_path)
    assert kept.count(b"\n") == 60
    assert {commit.generator for commit in commits(tmp_path)} == {0, 1}


def test_one_of_the_models_can_verify(tmp_path: Path, model: str, other: str) -> None:
    fleet = Fleet(scorer=knowing)
    make_mixed(tmp_path, (model, other), fleet, count=20, verify="keep", verifier=other)
    assert set(fleet.engines) == {"scripted-model", "another-model"}
    assert fleet.engines["another-model"].verified
    assert not fleet.engines["scripted-model"].verified


def test_the_generators_identify_the_run(tmp_path: Path, model: str, other: str) -> None:
    make_mixed(tmp_path, (model, other), Fleet(), count=10)
    for models in ((model,), (other, model)):
        with pytest.raises(RunMismatch, match="another --model: "):
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


def test_models_that_are_not_different_are_an_error(tmp_path: Path, model: str, other: str) -> None:
    same_name = shutil.copytree(other, tmp_path / "other" / Path(model).name)
    same_weights = shutil.copytree(model, tmp_path / "copy")
    for second, what in ((str(same_name), "name"), (str(same_weights), "weights"), (model, "weights")):
        says = f"^--model: {re.escape(f'{model} and {second}')} have the same {what}; give different models$"
        with pytest.raises(UsageError, match=says):
            make_mixed(tmp_path / "run", (model, second), Fleet())
