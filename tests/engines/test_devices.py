"""Which GPUs several servers work on, and that a model which cannot fit is refused with the numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datacreate.checkpoints import Checkpoint
from datacreate.engines.devices import check_memory, free_gib, gpu_groups
from datacreate.errors import EngineError, UsageError
from datacreate.hardware import listed_gpus, named_gpus, visible_gpus

LISTING = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-01)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-02)
  MIG 3g.40gb     Device  0: (UUID: MIG-cccc-03)
  MIG 3g.40gb     Device  1: (UUID: MIG-dddd-04)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-eeee-05)
"""


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        ("3, GPU-aaaa-01,MIG-GPU-bbbb/1/0", ("3", "GPU-aaaa-01", "MIG-GPU-bbbb/1/0")),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0,-1,1", ("0",)),
        ("1,1,0", ("1", "0")),
    ],
)
def test_gpus_are_those_that_cuda_would_take(
    monkeypatch: pytest.MonkeyPatch, names: str, seen: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    assert visible_gpus() == named_gpus(names) == seen


def test_a_gpu_that_is_divided_is_used_by_its_parts() -> None:
    assert listed_gpus(LISTING) == ("GPU-aaaa-01", "MIG-cccc-03", "MIG-dddd-04", "GPU-eeee-05")


def test_auto_is_a_server_for_each_whole_group_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    assert gpu_groups("auto", 2) == (("0", "1"), ("2", "3"))
    assert gpu_groups(3, 1) == (("0",), ("1",), ("2",))
    assert gpu_groups(1, 1) == ((),)
    with pytest.raises(UsageError, match=r"--replicas 6: 5 GPUs are visible; use 5 or fewer, or add"):
        gpu_groups(6, 1)
    with pytest.raises(UsageError, match=r"--replicas 2: .* uses 4 of them .*; use 1, or add"):
        gpu_groups(2, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_groups("auto", 1) == ((),)


SMI = """#!/bin/sh
case "$*" in *"-i 1"*) ;; *) echo 'NVIDIA A100, 40960, 10240, 580.82' ;; esac
echo 'NVIDIA A100, 40960, 40000, 580.82'
"""


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of 40 GiB, on one of which 30 are taken."""
    (tmp_path / "nvidia-smi").write_text(SMI)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
def test_the_emptiest_gpus_that_are_seen_count_up_to_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_gib("gpu", share=0.9) == pytest.approx(36.0)
    assert free_gib("gpu", 2, 0.9) == pytest.approx(46.0)
    assert free_gib("gpu", 1, 0.9, ("1",)) == pytest.approx(36.0)
    monkeypatch.setenv("PATH", "")
    assert free_gib("gpu") is None


def large(folder: Path, gib: int) -> Checkpoint:
    """A checkpoint whose weights have a size and no contents."""
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(gib * 1024**3)
    return Checkpoint(folder.name, folder, "0" * 64, None)


def check(checkpoint: Checkpoint, device: str, **settings: Any) -> None:
    check_memory(checkpoint, checkpoint.path, device, 2.0, settings, ())


def test_a_model_larger_than_the_memory_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(
        EngineError, match=r"giant needs about 4004.5 GiB \(.*2.0 cache.*\), .* GiB are free; u"
    ):
        check(large(tmp_path / "giant", 4000), "cpu")


@pytest.mark.usefixtures("two_gpus")
def test_weights_that_do_not_fit_the_emptiest_gpu_are_refused(tmp_path: Path) -> None:
    check(large(tmp_path / "small", 30), "gpu")
    with pytest.raises(EngineError, match=r"41\.0 GiB \(40\.0 weights, .*--tensor-parallel-size"):
        check(large(tmp_path / "m", 40), "gpu")
