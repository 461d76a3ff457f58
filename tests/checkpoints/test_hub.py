"""The Hub and its cache, against a small server on loopback that answers as the Hub does."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from datacreate.checkpoints.checkpoint import resolve
from datacreate.checkpoints.pull import pull
from datacreate.cli.models import models
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import Index, MakePreset, checkpoint_files, files_in, run_python, safetensors_bytes
from tests.checkpoints.test_mirrors import PULL, whole
from tests.support.hub import COMMIT, Hub
from tests.support.process import ROOT
from tests.support.tiny_model import write_gguf

FILES = checkpoint_files()


def test_any_hub_id_is_pulled_into_the_cache_and_found_there_without_a_network(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files |= {"pytorch_model.bin": b"pickle", "onnx/config.json": b"{}", "own.py": b"code"}
    with pytest.raises(CheckpointError, match="org/tiny is not downloaded: run `datacreate models pull"):
        resolve("org/tiny", "encoder")
    folder = pull("org/tiny")
    assert folder == tmp_path / "hub" / "models--org--tiny" / "snapshots" / COMMIT
    assert files_in(folder) == {*FILES, "own.py"}
    before = len(hub.requests)
    found = resolve("org/tiny", "encoder")
    assert (found.name, found.path, found.preset) == ("org/tiny", folder, None)
    assert resolve(f"org/tiny@{COMMIT}", "encoder").sha256 == found.sha256
    assert resolve(str(folder), "encoder").sha256 == found.sha256
    assert pull("org/tiny") == folder
    assert len(hub.requests) == before
    with pytest.raises(CheckpointError, match="org/tiny@v2 is not downloaded"):
        resolve("org/tiny@v2", "encoder")


def test_a_gguf_file_is_pulled_by_the_pattern_of_a_preset(hub: Hub, tmp_path: Path, make_preset: MakePreset) -> None:
    whole = write_gguf(tmp_path / "m.gguf").read_bytes()
    hub.files = {"m-q4.gguf": whole, "m-q8.gguf": whole, "config.json": b"{}"}
    with pytest.raises(
        CheckpointError, match=r"no file is named \*\.safetensors; for a GGUF, `hf download org/tiny FILE` and --model"
    ):
        pull("org/tiny")
    make_preset({"hub": "org/tiny", "file": "m-q4.gguf"}, kind="instruct")
    path = pull("tiny")
    assert path.name == "m-q4.gguf"
    assert files_in(path.parent) == {"m-q4.gguf"}
    found = resolve("tiny", "instruct")
    assert found.gguf
    assert found.gguf.path == path
    assert resolve(str(path), "instruct").sha256 == found.sha256
    assert resolve("org/tiny", "instruct").gguf == found.gguf  # the only one in the cache


@pytest.mark.parametrize("is_pulled", [False, True])
def test_a_pattern_of_a_preset_that_matches_no_file_is_one_line(
    hub: Hub, make_preset: MakePreset, is_pulled: bool
) -> None:
    if is_pulled:
        pull("org/tiny")
    make_preset({"hub": "org/tiny", "file": "*-q4.gguf"}, kind="instruct")
    with pytest.raises(CheckpointError) as refused:
        pull("tiny")
    says = "Hub org/tiny: no file is named *-q4.gguf; correct `file` in the preset; "
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_link_in_the_cache_that_leaves_it_removes_no_other_file(hub: Hub, tmp_path: Path) -> None:
    folder = pull("org/tiny")
    victim = tmp_path / "victim"
    victim.write_bytes(b"other weights")
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(victim)
    with pytest.raises(CheckpointError, match="has a different hash"):
        pull("org/tiny")
    assert victim.read_bytes() == b"other weights"
    assert pull("org/tiny") == folder


def test_an_interrupted_pull_is_no_model_and_resumes(hub: Hub) -> None:
    hub.files["model.safetensors"] = safetensors_bytes(floats=7_000_000)  # the library writes 10 MB at a time
    hub.broken = {"model.safetensors"}
    with pytest.raises(CheckpointError, match="cannot download org/tiny: Hub org/tiny: not reachable"):
        pull("org/tiny")
    with pytest.raises(CheckpointError, match="not downloaded"):
        resolve("org/tiny", "encoder")
    hub.broken = set()
    pull("org/tiny")
    assert any("model.safetensors bytes=" in each for each in hub.requests)
    assert resolve("org/tiny", "encoder")


def test_a_file_that_differs_from_the_hubs_hash_is_removed(hub: Hub) -> None:
    hub.sent["model.safetensors"] = safetensors_bytes(seed=7)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has a different hash from the file on the Hub"):
        pull("org/tiny")
    with pytest.raises(CheckpointError, match="not downloaded"):
        resolve("org/tiny", "encoder")
    hub.sent.clear()
    assert pull("org/tiny") == resolve("org/tiny", "encoder").path


def test_force_downloads_a_damaged_file_again(hub: Hub) -> None:
    weights = pull("org/tiny") / "model.safetensors"
    weights.resolve().write_bytes(b"cut")
    pull("org/tiny", force=True)
    assert weights.read_bytes() == FILES["model.safetensors"]


def test_a_repository_that_is_not_there_is_one_line(hub: Hub) -> None:
    with pytest.raises(CheckpointError) as raised:
        pull("org/none")
    assert str(raised.value).startswith("cannot download org/none: Hub org/none: no such repository")
    assert "\n" not in str(raised.value)


def test_without_a_network_the_mirror_serves_and_a_line_says_so(
    index: Index, make_preset: MakePreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    make_preset({"hub": "org/none"}, whole(index))
    notes: list[str] = []
    folder = pull("tiny", notes.append)
    assert files_in(folder) == set(FILES)
    assert notes[1].startswith("Hub org/none: not reachable (")
    assert notes[1].endswith("; trying mirror whole 1.0")


def test_a_silent_hub_is_noticed_in_seconds(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:  # accepts, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(CheckpointError, match="not reachable"):
            pull("org/tiny")
    assert time.monotonic() - start < 15  # 5, and importing the library on a busy machine


def test_the_users_own_offline_switch_is_respected(
    hub: Hub, make_preset: MakePreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_preset({"hub": "org/tiny"})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said = run_python(PULL).stdout
    why, remedy = "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set", "remove the cause and run the same command again"
    by_hand = "run `hf download org/tiny --local-dir DIR`, copy DIR here, and give DIR instead of tiny"
    assert said == f"1 cannot download tiny: Hub org/tiny: {why}; {remedy}, or on a machine with a network {by_hand}\n"
    assert hub.requests == []


def test_a_signal_ends_a_pull_at_once_and_the_same_command_resumes(hub: Hub) -> None:
    hub.sending.clear()  # from here on the Hub sends half of a file
    command = [sys.executable, "-m", "datacreate", "models", "pull", "org/tiny"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not any("GET /org/tiny/resolve" in each for each in hub.requests):
            assert process.poll() is None
            time.sleep(0.02)
        process.terminate()
        _, err = process.communicate(timeout=30)
    hub.sending.set()
    assert (process.returncode, err.splitlines()[-1]) == (75, "datacreate: stopped by a signal")
    assert subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout.startswith(b"org/tiny: ")


def test_a_full_disk_is_a_storage_error(hub: Hub, make_preset: MakePreset, tmp_path: Path, mounted: list[str]) -> None:
    hub.files["model.safetensors"] = safetensors_bytes(floats=200_000)
    make_preset({"hub": "org/tiny"})
    (tmp_path / "hub").mkdir()
    mount = f'mount -t tmpfs -o size=300k none {tmp_path / "hub"}; exec "$@"'
    command = [*mounted, mount, "sh", sys.executable, "-c", PULL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("75 cannot write "), done.stderr
    assert "HF_HUB_CACHE" in done.stdout


def test_the_command_prints_the_path_and_checks_all_names_first(hub: Hub, tmp_path: Path) -> None:
    pulled = CliRunner().invoke(models, ["pull", "org/tiny"])
    assert pulled.stdout.startswith(f"org/tiny: {tmp_path / 'hub'}")
    assert "downloading org/tiny from the Hub" in pulled.stderr
    before = len(hub.requests)
    wrong = CliRunner().invoke(models, ["pull", "org/other", "qwen9"])
    assert isinstance(wrong.exception, CheckpointError)
    assert len(hub.requests) == before
