"""Making a bundle: what is in it, going on after a stop, a disk that refuses."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from datacreate.bundle import Target, make, verify
from datacreate.bundle.contents import read
from datacreate.bundle.filling import sole
from datacreate.errors import BenchmarkError, BundleError, CheckpointError, StorageError
from tests.bundle.conftest import PYTHON, ROOT, WISHES, Make, said
from tests.checkpoints.conftest import Index


def files_of(folder: Path) -> dict[str, float]:
    """Every file, with when it was written."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_bundle_holds_wheels_checkpoints_benchmarks_and_the_project(bundled: Make, out: Path) -> None:
    made = bundled()
    kinds = {entry.path: entry.kind for entry in made.entries}
    assert {path for path, kind in kinds.items() if kind == "wheel"} == {
        *(f"wheels/{name}-1.0-py3-none-any.whl" for name in ("torch", "alpha", "beta")),
        "wheels/datacreate-7.1-py3-none-any.whl",
    }
    assert kinds["checkpoints/tiny/1_Pooling/config.json"] == "checkpoint"
    assert kinds["checkpoints/tiny/datacreate.json"] == "checkpoint"
    assert kinds["benchmarks/creak/test.jsonl"] == "benchmark"
    assert kinds["project/datacreate-7.1.tar.gz"] == "project"
    assert kinds["install.sh"] == kinds["install.py"] == "installer"
    assert (made.platform, made.python, made.glibc) == ("cpu", PYTHON, "")
    assert made.environment_bytes > 1000
    assert read(out) == made
    assert list(verify(out, said)) == []
    assert set(files_of(out)) == {*kinds, "manifest.json"}


def test_a_second_make_writes_only_the_manifest(bundled: Make, index: Index, out: Path) -> None:
    bundled()
    before = files_of(out)
    for wheel in index.folder.iterdir():
        wheel.unlink()  # nothing can be fetched now
    bundled()
    after = files_of(out)
    assert {name for name in before if before[name] != after[name]} == {"manifest.json"}


def test_what_was_altered_is_brought_anew(bundled: Make, out: Path) -> None:
    bundled()
    for name in ("wheels/alpha-1.0-py3-none-any.whl", "checkpoints/tiny/model.safetensors"):
        content = bytearray((out / name).read_bytes())
        content[40] ^= 1
        (out / name).write_bytes(content)
    (out / "wheels/beta-1.0-py3-none-any.whl").unlink()
    assert len(list(verify(out, said))) == 3
    bundled()
    assert list(verify(out, said)) == []


_KILLED_AT = """
import os, signal, sys
import datacreate.bundle.filling as filling
from pathlib import Path
from datacreate.bundle import Target, RequestedSettings, make, project
from datacreate.bundle import gather
from tests.checkpoints.conftest import make_preset
from tests.bundle.conftest import WISHES
from dataclasses import replace
project.shipped = lambda: Path(sys.argv[2])
gather.find_preset = lambda name: make_preset({"path": "/nowhere"})
count = 0
real = Path.replace
def replaced(self, target):
    global count
    count += 1
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
Path.replace = replaced
make(Path(sys.argv[1]), replace(WISHES, piece_bytes=500))
"""


@pytest.mark.parametrize("instant", [9, 31])
def test_a_make_killed_at_any_instant_goes_on(
    bundled: Make, checkout: Path, out: Path, tmp_path: Path, instant: int
) -> None:
    command = [sys.executable, "-c", _KILLED_AT, out, checkout, str(instant)]
    killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    with pytest.raises(BundleError, match="has not ended"):
        list(verify(out, said))
    journal = json.loads((out / ".making.json").read_text())
    arrived = [part["path"] for entry in journal["entries"] for part in entry["pieces"] or [entry]]
    before = {name: time for name, time in files_of(out).items() if name in arrived}
    bundled(piece_bytes=500)
    assert list(verify(out, said)) == []
    assert before == {name: time for name, time in files_of(out).items() if name in arrived}


def test_other_wishes_change_what_is_there(bundled: Make, out: Path) -> None:
    bundled(wheels=False)
    whole = files_of(out)
    made = bundled(wheels=False, benchmarks=(), piece_bytes=700)
    assert list(verify(out, said)) == []
    assert not any(entry.kind == "benchmark" for entry in made.entries)
    assert not (out / "benchmarks" / "creak" / "test.jsonl").exists()
    assert (out / "checkpoints/tiny/model.safetensors.002").is_file()
    assert not (out / "checkpoints/tiny/model.safetensors").exists()
    bundled(wheels=False)
    assert files_of(out).keys() == whole.keys()


def test_a_full_disk_is_one_line_and_what_arrived_is_kept(
    bundled: Make, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = 0

    def fsync(file: int) -> None:
        nonlocal synced
        synced += 1
        if synced > 12:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        with pytest.raises(StorageError, match="the disk is full; make room there") as failure:
            bundled(wheels=False)
    assert failure.value.exit_code == 75
    assert "\n" not in str(failure.value)
    kept = files_of(out)
    assert "installer/datacreate/bundle/contents.py" in kept
    assert not [name for name in kept if name.endswith(".part")]
    bundled(wheels=False)
    after = files_of(out)
    name = "installer/datacreate/bundle/contents.py"
    assert after[name] == kept[name]


def test_a_file_too_large_for_the_medium_is_told_with_the_option_that_splits_it(
    bundled: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(file: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="--piece-size 4GB"):
        bundled(wheels=False)


def test_too_little_room_is_refused_with_numbers_before_anything_is_copied(
    home: Path, checkout: Path, out: Path
) -> None:
    with pytest.raises(StorageError, match=r"about 1\.15 GB are needed and 1\.00 GB are free"):
        make(out, WISHES, free_bytes=lambda place: 10**9)
    assert not (out / "checkpoints").exists()


def test_a_pin_without_a_wheel_is_named(bundled: Make, index: Index) -> None:
    (index.folder / "beta-1.0-py3-none-any.whl").unlink()
    with pytest.raises(BundleError, match=rf"no wheel of beta 1\.0 for cpu, Python {PYTHON}.*--python"):
        bundled()


def test_a_wheel_that_requires_what_is_not_carried_is_refused(bundled: Make, index: Index) -> None:
    wheel = index.add("torch", {"torch.py": b""})
    rewrite(wheel, "Name: torch\nVersion: 1.0\nRequires-Dist: nvidia-cublas; sys_platform == 'linux'\n")
    with pytest.raises(BundleError, match="torch wants nvidia-cublas, which is not carried; a CPU bundle"):
        bundled()


def rewrite(wheel: Path, metadata: str) -> None:
    """The same wheel with other metadata."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["torch-1.0.dist-info/METADATA"] = f"Metadata-Version: 2.1\n{metadata}".encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_a_folder_of_something_else_or_for_another_machine_is_left_alone(bundled: Make, out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(BundleError, match="not empty and no bundle"):
        bundled(wheels=False)
    assert files_of(out).keys() == {"thesis.txt"}
    (out / "thesis.txt").unlink()
    bundled(wheels=False)
    with pytest.raises(BundleError, match=rf"a bundle for cpu, Python {PYTHON}, and this one is for gpu"):
        bundled(wheels=False, target=Target("gpu", PYTHON))


def test_a_damaged_checkpoint_is_not_carried(bundled: Make, home: Path, out: Path) -> None:
    weights = home / "checkpoints" / "tiny" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.safetensors: not what its manifest says"):
        bundled(wheels=False)
    assert not (out / "checkpoints/tiny/model.safetensors").exists()


def test_wishes_that_cannot_be_met_are_told_before_anything_is_written(bundled: Make, out: Path) -> None:
    with pytest.raises(CheckpointError, match="tiny is not for --model: give it with --encoder"):
        bundled(models=("tiny",))
    with pytest.raises(BenchmarkError, match="csqa is not imported"):
        bundled(benchmarks=("creak", "csqa"))
    assert not out.exists()


def test_two_makes_of_one_folder_do_not_meet(bundled: Make, out: Path) -> None:
    with sole(out), pytest.raises(BundleError, match="another process is filling it"):
        bundled()
