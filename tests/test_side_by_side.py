"""Runs on several engines side by side: which are made, what they make, and what is told of them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from datacreate import CreateConfig, create
from datacreate.checkpoints import Checkpoint
from datacreate.engines.replicas import Replicas
from datacreate.engines.vllm import VllmEngine
from datacreate.errors import EngineError, UsageError
from datacreate.runs.directory import RunDirectory
from datacreate.serving import Seat, vllm_engine
from tests.engines.piped import PipedEngine
from tests.finetuning.conftest import save_tokenizer
from tests.making import SharedWords, examples, make, settings, train

SMI = """#!/bin/sh
case "$*" in *"-i 2"*) printf '100, 40960\\n' ;; *) printf '40000, 40960\\n' ;; esac
"""


class Heard:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def update(self, tally: object, count: int) -> None: ...


def side_by_side(run_dir: Path, model: str, *engines: PipedEngine, **changes: Any) -> tuple[Any, Heard]:
    """A run on these engines; its summary and what it said."""
    heard = Heard()

    def factory(
        checkpoint: Checkpoint, config: CreateConfig, directory: RunDirectory, seat: Seat
    ) -> Replicas:
        return Replicas(engines, seat.note)

    config = CreateConfig.of(**settings(run_dir, model, **{"strategy": "random"} | changes))
    return create(config, progress=heard, engine_factory=factory, similarity=SharedWords()), heard


def test_engines_that_die_change_nothing_of_what_comes_out(tmp_path: Path, model: str) -> None:
    make(tmp_path / "alone", model, strategy="tree", count=60, window=12)
    dying = PipedEngine(lives=(2, 1), seed=1)
    summary, heard = side_by_side(
        tmp_path / "run", model, dying, PipedEngine(seed=2), strategy="tree", count=60, window=12
    )
    assert summary["accepted"] == 60
    assert train(tmp_path / "run") == train(tmp_path / "alone")
    assert [note.split(":")[0] for note in heard.notes if note.startswith("engine")] == [
        "engine 1 of 2 died",
        "engine 1 of 2 is back",
        "engine 1 of 2 died again",
    ]


def test_when_all_have_died_the_same_command_goes_on(tmp_path: Path, model: str) -> None:
    make(tmp_path / "alone", model, strategy="tree", count=60, window=12)
    how = {"strategy": "tree", "count": 60, "window": 12}
    with pytest.raises(EngineError, match="run again to go on"):
        side_by_side(tmp_path / "run", model, PipedEngine(lives=(3, 2)), PipedEngine(lives=(2, 1)), **how)
    assert 0 < len(examples(tmp_path / "run")) < 60
    side_by_side(tmp_path / "run", model, PipedEngine(), PipedEngine(), PipedEngine(), **how)
    assert train(tmp_path / "run") == train(tmp_path / "alone")


def test_every_engine_must_show_that_it_holds_to_the_grammar(tmp_path: Path, model: str) -> None:
    lax = PipedEngine()
    lax._obeys = False
    with pytest.raises(EngineError, match="grammar"):
        side_by_side(tmp_path / "run", model, PipedEngine(), lax)
    assert not (tmp_path / "run" / "config.json").exists()


def test_how_many_there_were_is_told_and_is_no_part_of_what_the_run_is(tmp_path: Path, model: str) -> None:
    summary, _ = side_by_side(tmp_path / "run", model, PipedEngine(), PipedEngine())
    assert summary["replicas"] == 2
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert config["engines"]["engine"]["replicas"] == 2
    assert "replicas" not in config["identity"]
    again = make(tmp_path / "run", model, strategy="random", count=30, replicas=3)
    assert (again["accepted"], again["replicas"]) == (30, 1)


def test_the_window_is_that_of_their_joint_capacity(tmp_path: Path, model: str) -> None:
    engines = [PipedEngine(capacity=2), PipedEngine(capacity=3)]
    side_by_side(tmp_path / "run", model, *engines, window=None, count=200)
    config = json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))
    assert config["identity"]["window"] == 15


@pytest.mark.parametrize("wrong", [0, -1, "some"])
def test_a_number_that_is_none_is_one_line(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(UsageError, match="replicas"):
        CreateConfig.of(**settings(tmp_path, "m", replicas=wrong))


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    """A checkpoint as far as its configuration and tokenizer go."""
    from transformers import AutoConfig

    size = save_tokenizer(tmp_path / "base", ["is", "there", "bread"])
    shape = AutoConfig.for_model("opt", vocab_size=size, max_position_embeddings=64)
    shape.save_pretrained(tmp_path / "base")
    return Checkpoint("base", tmp_path / "base", "0" * 64, None)


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four GPUs, the third of which somebody has filled."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(SMI)
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setattr("datacreate.engines.loading.device", lambda: "gpu")


def made(base: Checkpoint, run_dir: Path, notes: list[str] | None = None, **changes: Any) -> Any:
    config = CreateConfig.of(**settings(run_dir, str(base.path), **changes))
    seat = Seat(note=(notes if notes is not None else []).append)
    return vllm_engine(base, config, RunDirectory(run_dir), seat)


def test_auto_takes_the_gpus_that_are_free_and_no_more_than_the_count_fills(
    base: Checkpoint, tmp_path: Path, four_gpus: None
) -> None:
    notes: list[str] = []
    engine = made(base, tmp_path / "run", notes, count=5000)
    assert isinstance(engine, Replicas)
    assert engine.capacity == 3 * 256
    assert engine.copies == engine.settings["replicas"] == 3
    [left_out] = notes
    assert left_out.startswith("GPU 2 is left out: base needs about")
    assert made(base, tmp_path / "run", count=500).copies == 2
    assert made(base, tmp_path / "run", count=25).capacity == 256


def test_each_engine_s_process_sees_its_gpus_alone_and_has_a_log_of_its_own(
    base: Checkpoint, tmp_path: Path, four_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (tmp_path / "python").write_text('#!/bin/sh\necho "Error: sees $CUDA_VISIBLE_DEVICES"; exit 1\n')
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,3,4")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    engine = made(base, run_dir, replicas=2, tensor_parallel_size=2)
    with pytest.raises(EngineError, match=r"Error: sees 0,1"):
        engine.start()
    engine.close()
    assert (run_dir / "engine.1.log").read_text() == "Error: sees 0,1\n"
    assert (run_dir / "engine.2.log").read_text() == "Error: sees 3,4\n"


def test_logs_that_a_failed_start_leaves_do_not_lock_out_the_next(tmp_path: Path, model: str) -> None:
    for name in ("engine.1.log", "engine-2.2.log", "verifier.1.log"):
        (tmp_path / name).write_text("half")
    make(tmp_path, model)
    assert len(examples(tmp_path)) == 25


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="each engine wants a core of its own")
def test_on_a_processor_two_engines_must_fit_its_memory_together(base: Checkpoint, tmp_path: Path) -> None:
    engine = made(base, tmp_path / "run", replicas=2, kv_cache_gib=4000)
    with pytest.raises(
        EngineError, match=r"each of 2 copies of base needs about .* ask for fewer --replicas"
    ):
        engine.start()


def test_on_a_processor_one_is_the_usual_number(base: Checkpoint, tmp_path: Path) -> None:
    engine = made(base, tmp_path / "run", count=5000)
    assert isinstance(engine, VllmEngine)
    assert engine.loading.devices.cores == ()
