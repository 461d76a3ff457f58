"""A full disk and a home that is read-only, as file systems that are mounted for the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from datacreate.checkpoints import pull
from tests.checkpoints.conftest import (
    Index,
    checkpoint_files,
    make_preset,
    pieces_source,
    safetensors_bytes,
    write_files,
)

_ROOT = Path(__file__).parents[2]

_PULL = """
import json, sys
from tests.checkpoints.conftest import make_preset
from datacreate.checkpoints import pull, resolve, state
from datacreate.errors import DatacreateError
preset = make_preset(json.loads(sys.argv[1]))
print(state(preset))
try:
    pull(preset, force=True)
except DatacreateError as error:
    print(error.exit_code, error)
print(state(preset))
"""
_LARGE = checkpoint_files() | {"model.safetensors": safetensors_bytes(floats=200_000)}  # 0.8 MB


@pytest.fixture
def mounted() -> list[str]:
    """What runs `sh -c` where it may mount; skips where the kernel forbids it."""
    command = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m", "sh", "-ec"]
    try:
        tried = subprocess.run([*command, "mount -t tmpfs none /mnt"], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no command `unshare` here (util-linux)")
    if tried.returncode != 0:
        pytest.skip(f"the kernel forbids a mount: {tried.stderr.strip()}")
    return command


def pulled(mounted: list[str], mount: str, source: dict[str, Any]) -> list[str]:
    """What a forced pull says where `mount` has been done: the state, the error, the state after it."""
    run = [*mounted, f'{mount}; exec "$@"', "sh", sys.executable, "-c", _PULL, json.dumps(source)]
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    done = subprocess.run(run, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_disk_that_fills_up_while_it_copies_is_one_line(
    home: Path, tmp_path: Path, mounted: list[str]
) -> None:
    source = {"path": str(write_files(tmp_path / "src", _LARGE))}
    before, said, after = pulled(mounted, f"mount -t tmpfs -o size=200k none {home}", source)
    assert (before, after) == ("absent", "absent")
    assert said.startswith("75 ")
    assert "No space left on device; make room there, or set DATACREATE_HOME" in said


def test_a_disk_that_fills_up_under_pip_keeps_what_came(home: Path, index: Index, mounted: list[str]) -> None:
    source = pieces_source(index, _LARGE)
    small = f"mkdir -p {home}/downloads && mount -t tmpfs -o size=700k none {home}/downloads"
    before, said, after = pulled(mounted, small, source)
    assert (before, after) == ("absent", "absent")
    assert said.startswith("75 cannot write")
    assert "make room there, or set DATACREATE_HOME" in said


def test_a_home_that_is_read_only_still_serves_and_refuses_a_pull_in_one_line(
    home: Path, tmp_path: Path, mounted: list[str]
) -> None:
    source = {"path": str(write_files(tmp_path / "src", checkpoint_files()))}
    pull(make_preset(source))
    read_only = f"mount --bind {home} {home} && mount -o remount,bind,ro {home}"
    before, said, after = pulled(mounted, read_only, source)
    assert (before, after) == ("present", "present")
    assert said.startswith("75 cannot write")
    assert "Read-only file system; make room there, or set DATACREATE_HOME to another folder" in said
