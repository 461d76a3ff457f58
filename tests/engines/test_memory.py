"""A model that cannot fit is refused before anything is loaded, with the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from datacreate.engines.memory import check_memory, free_gib, weights_gib
from datacreate.errors import EngineError


def sparse_checkpoint(folder: Path, gib: int) -> Path:
    """A checkpoint whose weights have a size and no contents."""
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(gib * 1024**3)
    return folder


def test_weights_are_measured_on_disk(tmp_path: Path) -> None:
    assert weights_gib(sparse_checkpoint(tmp_path / "m", 3)) == 3.0


def test_a_model_larger_than_the_memory_is_refused_with_the_numbers(tmp_path: Path) -> None:
    checkpoint = sparse_checkpoint(tmp_path / "giant", 4000)
    with pytest.raises(
        EngineError, match=r"giant needs about 4004.5 GiB .* GiB are free; take a smaller model"
    ):
        check_memory(checkpoint, "cpu", kv_cache_gib=2.0)


def test_a_model_that_fits_is_let_through(tmp_path: Path) -> None:
    check_memory(sparse_checkpoint(tmp_path / "tiny", 0), "cpu", kv_cache_gib=0.1)


def test_free_memory_of_a_gpu_that_cannot_be_asked_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no nvidia-smi to be found

    assert free_gib("gpu") is None
