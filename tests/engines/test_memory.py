"""A model that cannot fit is refused before anything is loaded, with the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datacreate.engines.memory import cache_gib, check_memory, free_gib, weights_gib
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
        EngineError, match=r"giant needs about 4004.5 GiB \(.*2.0 cache.*\), .* GiB are free; take a"
    ):
        check_memory(checkpoint, "cpu", kv_cache_gib=2.0)


def test_a_model_that_fits_is_let_through(tmp_path: Path) -> None:
    check_memory(sparse_checkpoint(tmp_path / "tiny", 0), "cpu", kv_cache_gib=0.1)


SMI = """#!/bin/sh
case "$*" in *"-i 1"*) printf '40000, 40960\\n' ;; *) printf '10240, 40960\\n40000, 40960\\n' ;; esac
"""


def gpus(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cards of 40 GiB, on one of which 30 are taken."""
    (folder / "nvidia-smi").write_text(SMI)
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_the_emptiest_gpus_that_are_seen_count_up_to_their_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(tmp_path, monkeypatch)
    assert free_gib("gpu", share=0.9) == pytest.approx(36.0)
    assert free_gib("gpu", share=0.45) == pytest.approx(18.0)
    assert free_gib("gpu", gpus=2, share=0.9) == pytest.approx(46.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert free_gib("gpu", gpus=2, share=0.9) == pytest.approx(36.0)


def test_a_request_that_does_not_fit_beside_the_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(tmp_path, monkeypatch)
    checkpoint = sparse_checkpoint(tmp_path / "m", 30)
    shape = {
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "hidden_size": 8192,
        "num_hidden_layers": 80,
    }
    (checkpoint / "config.json").write_text(json.dumps(shape))
    assert cache_gib(checkpoint, 8192) == pytest.approx(2.5)
    check_memory(checkpoint, "gpu", 0.0, tokens=8192)
    with pytest.raises(EngineError, match=r"41\.0 GiB \(30\.0 weights, 10\.0 cache.*--tensor-parallel-size"):
        check_memory(checkpoint, "gpu", 0.0, tokens=32768)


def test_free_memory_of_a_gpu_that_cannot_be_asked_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no nvidia-smi to be found

    assert free_gib("gpu") is None
