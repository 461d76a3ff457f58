"""Which GPUs and cores several engines work on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datacreate.engines.placing import (
    Devices,
    devices_for,
    grouped,
    listed_gpus,
    named_gpus,
    shared_out,
    visible_gpus,
)
from datacreate.errors import UsageError

LISTING = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-01)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-02)
  MIG 3g.40gb     Device  0: (UUID: MIG-cccc-03)
  MIG 3g.40gb     Device  1: (UUID: MIG-dddd-04)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-eeee-05)
"""


def test_gpus_are_named_as_the_scheduler_named_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-aaaa-01,MIG-GPU-bbbb/1/0")
    assert visible_gpus() == ("3", "GPU-aaaa-01", "MIG-GPU-bbbb/1/0")


@pytest.mark.parametrize(
    ("told", "seen"), [("", ()), ("-1", ()), ("NoDevFiles", ()), ("0,-1,1", ("0",)), ("1,1,0", ("1", "0"))]
)
def test_names_after_the_first_that_is_none_do_not_count(told: str, seen: tuple[str, ...]) -> None:
    assert named_gpus(told) == seen


def test_a_gpu_that_is_cut_up_is_used_by_its_parts() -> None:
    assert listed_gpus(LISTING) == ("GPU-aaaa-01", "MIG-cccc-03", "MIG-dddd-04", "GPU-eeee-05")


def test_without_a_scheduler_nvidia_smi_says_which_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n/bin/cat <<'EOF'\n{LISTING}EOF\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert len(visible_gpus()) == 4
    monkeypatch.setenv("PATH", "")
    assert visible_gpus() == ()


@given(st.lists(st.integers(), max_size=40), st.integers(1, 9))
def test_groups_are_whole_and_of_neighbours(things: list[int], size: int) -> None:
    groups = grouped(things, size)
    assert len(groups) == len(things) // size
    assert all(len(group) == size for group in groups)
    assert [thing for group in groups for thing in group] == things[: len(groups) * size]


@given(st.lists(st.integers(), max_size=40), st.integers(1, 9))
def test_shares_hold_all_and_differ_by_one_at_most(things: list[int], parts: int) -> None:
    shares = shared_out(things, parts)
    assert [thing for share in shares for thing in share] == things
    sizes = [len(share) for share in shares]
    assert len(sizes) == parts
    assert max(sizes) - min(sizes) <= 1


def test_auto_is_an_engine_for_each_whole_group_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    assert [devices.gpus for devices in devices_for("auto", "gpu", 2)] == [("0", "1"), ("2", "3")]
    assert [devices.gpus for devices in devices_for(3, "gpu", 1)] == [("0",), ("1",), ("2",)]


@pytest.mark.parametrize("told", ["", "0"])
def test_where_there_is_nothing_to_divide_nothing_is_divided(
    monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    for replicas, device in (("auto", "gpu"), (1, "gpu"), ("auto", "cpu")):
        assert devices_for(replicas, device, 1) == (Devices(),)


def test_engines_of_a_processor_divide_its_cores() -> None:
    cores = os.sched_getaffinity(0)
    groups = devices_for(len(cores), "cpu", 1) if len(cores) > 1 else (Devices(cores=tuple(cores)),)
    assert sorted(core for devices in groups for core in devices.cores) == sorted(cores)
    assert all(len(devices.cores) == 1 for devices in groups)


def test_more_engines_than_there_is_room_for_are_refused_with_what_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    with pytest.raises(UsageError, match=r"--replicas 5: 4 GPUs are seen here; ask for 4 or fewer, or name"):
        devices_for(5, "gpu", 1)
    with pytest.raises(
        UsageError, match=r"--replicas 2: .* each copy takes 4 of them .*; ask for 1, or name"
    ):
        devices_for(2, "gpu", 4)
    cores = len(os.sched_getaffinity(0))
    with pytest.raises(UsageError, match=rf"{cores} processor cores may be used here"):
        devices_for(cores + 1, "cpu", 1)
