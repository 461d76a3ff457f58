"""Verifying and installing: from the bundle alone, with the code that it carries."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from datacreate.benchmarks import find_benchmark, read_split
from datacreate.bundle import install, verify
from datacreate.bundle import read as read_bundle
from datacreate.bundle.contents import Contents, read
from datacreate.checkpoints import find_preset, import_model, resolve
from datacreate.checkpoints import verify as verify_checkpoint
from datacreate.cli.bundle import bundle
from datacreate.errors import BundleError, StorageError
from tests.bundle.conftest import Make, said
from tests.checkpoints.conftest import checkpoint_files, hashes, make_preset

PRESET = make_preset({"path": "/anywhere", "sha256": hashes(checkpoint_files())})


@pytest.fixture
def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The far side's home."""
    place = tmp_path / "far home"
    monkeypatch.setenv("DATACREATE_HOME", str(place))
    return place


def flip(path: Path, at: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def rewritten(folder: Path, **changed: object) -> None:
    """A manifest as another make would have written it."""
    contents = read(folder)
    document = Contents(**{**contents.__dict__, **changed}).document()  # type: ignore[arg-type]
    (folder / "manifest.json").write_text(json.dumps(document))


def test_missing_altered_cut_and_extra_files_are_named_a_line_each(plain: Path) -> None:
    (plain / "checkpoints/tiny/model.safetensors.002").unlink()
    flip(plain / "checkpoints/tiny/model.safetensors.001", at=17)
    (plain / "benchmarks/creak/test.jsonl.001").write_bytes(b"short")
    (plain / "wheels").mkdir()
    (plain / "wheels" / "stray.whl").write_bytes(b"")
    lines = {line.split(": ")[0]: line for line in verify(plain, said)}
    assert lines.keys() == {
        "checkpoints/tiny/model.safetensors.002",
        "checkpoints/tiny/model.safetensors.001",
        "benchmarks/creak/test.jsonl.001",
        "wheels/stray.whl",
    }
    assert "missing" in lines["checkpoints/tiny/model.safetensors.002"]
    assert "altered" in lines["checkpoints/tiny/model.safetensors.001"]
    assert "5 bytes instead of 500" in lines["benchmarks/creak/test.jsonl.001"]
    assert "not part of the bundle" in lines["wheels/stray.whl"]


def test_any_byte_of_the_manifest_counts(plain: Path) -> None:
    path = plain / "manifest.json"
    whole = path.read_bytes()
    for at in range(0, len(whole), 211):
        flip(path, at)
        if json.loads(whole) != _json(path):
            with pytest.raises(BundleError, match=r"not what was written there|written in format"):
                read_bundle(plain)
        path.write_bytes(whole)


def _json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def test_a_folder_that_is_no_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no manifest\.json in it, so no bundle"):
        install(tmp_path, tmp_path / "to", None, None, said)


def test_a_path_that_leads_out_of_the_bundle_is_not_followed(plain: Path) -> None:
    contents = read(plain)
    entry = contents.entries[0]
    rewritten(plain, entries=(type(entry)("../../out", 1, "0" * 64, "checkpoint"),))
    with pytest.raises(BundleError, match="not what was written there"):
        read_bundle(plain)


def test_pieces_are_joined_into_a_home_that_verify_is_content_with(
    plain: Path, far: Path, tmp_path: Path
) -> None:
    lines = install(plain, tmp_path / "project", None, None, said)
    assert verify_checkpoint(PRESET).good
    assert len(read_split(find_benchmark("creak"), "test")) == 6
    assert (far / "checkpoints/tiny/model.safetensors").read_bytes() == checkpoint_files()[
        "model.safetensors"
    ]
    assert os.access(tmp_path / "project" / "scripts" / "setup", os.X_OK)
    assert lines[0] == f"cd {tmp_path / 'project'}"
    # Again: nothing is written.
    weights = far / "checkpoints/tiny/model.safetensors"
    before = weights.stat()
    install(plain, tmp_path / "project", None, None, said)
    assert weights.stat() == before


def test_what_to_type_next_is_told_to_machines_too(plain: Path, far: Path, tmp_path: Path) -> None:
    arguments = ["install", str(plain), "--to", str(tmp_path / "project"), "--json"]
    told = json.loads(CliRunner().invoke(bundle, arguments).stdout)
    assert told["path"] == str(tmp_path / "project")
    assert told["next"][0] == f"cd {tmp_path / 'project'}"


def test_an_imported_model_keeps_its_name(
    bundled: Make, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_model(tmp_path / "source", name="mine", kind="encoder")
    monkeypatch.setattr("datacreate.bundle.gather.find_preset", find_preset)
    bundled(encoders=("mine",), wheels=False)
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "far home"))
    install(out, tmp_path / "project", None, None, said)
    assert verify_checkpoint(find_preset("mine")).good
    assert resolve("mine", "encoder").path == tmp_path / "far home" / "checkpoints" / "mine"


def test_a_damaged_checkpoint_in_the_home_is_replaced_and_another_import_kept(
    plain: Path, far: Path, tmp_path: Path
) -> None:
    install(plain, tmp_path / "project", None, None, said)
    flip(far / "checkpoints/tiny/model.safetensors")
    flip(far / "benchmarks/creak/test.jsonl")
    lines: list[str] = []
    install(plain, tmp_path / "project", None, None, lines.append)
    assert verify_checkpoint(PRESET).good
    assert any("creak" in line and "kept; remove it to take the bundle's" in line for line in lines)


def test_an_altered_piece_is_refused_and_what_was_done_is_kept(
    plain: Path, far: Path, tmp_path: Path
) -> None:
    flip(plain / "checkpoints/tiny/model.safetensors.002")
    with pytest.raises(
        BundleError, match=r"model\.safetensors\.002: altered .*copy it from the source again"
    ):
        install(plain, tmp_path / "project", None, None, said)
    assert len(read_split(find_benchmark("creak"), "test")) == 6
    assert verify_checkpoint(PRESET).state == "absent"
    assert list((far / "checkpoints").iterdir()) == []
    flip(plain / "checkpoints/tiny/model.safetensors.002")
    install(plain, tmp_path / "project", None, None, said)
    assert verify_checkpoint(PRESET).good


def test_a_missing_piece_is_refused_before_anything_is_written(
    plain: Path, far: Path, tmp_path: Path
) -> None:
    (plain / "checkpoints/tiny/model.safetensors.003").unlink()
    with pytest.raises(BundleError, match=r"model\.safetensors\.003: missing"):
        install(plain, tmp_path / "project", None, None, said)
    assert not far.exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"python": "3.99"}, r"is for Python 3\.99, and this is .*make the bundle with --python"),
        ({"glibc": "2.999"}, r"needs glibc 2\.999, and here is glibc"),
    ],
)
def test_a_bundle_for_another_machine_is_refused(
    plain: Path, far: Path, tmp_path: Path, changed: dict[str, str], words: str
) -> None:
    rewritten(plain, **changed)
    with pytest.raises(BundleError, match=words):
        install(plain, tmp_path / "project", None, None, said)
    assert not far.exists()


def test_another_architecture_is_refused(
    plain: Path, far: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(BundleError, match="for Linux on x86_64, not for Linux on aarch64"):
        install(plain, tmp_path / "project", None, None, said)


def test_a_home_that_cannot_be_written_is_one_line(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write .*choose other folders \(--to, --venv, --home\)"):
        install(plain, tmp_path / "project", None, tmp_path / "file" / "home", said)


def test_the_bundle_itself_is_no_place_for_the_project(plain: Path, far: Path) -> None:
    with pytest.raises(BundleError, match=r"is inside the bundle: choose a folder elsewhere .*with --to"):
        install(plain, plain / "datacreate", None, None, said)
    assert not (plain / "datacreate").exists()


def test_a_full_folder_is_not_unpacked_into(plain: Path, far: Path, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "thesis.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"is not empty: choose another folder .* with --to"):
        install(plain, tmp_path / "project", None, None, said)


def alone(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As on a machine that has Python and nothing of ours, no index and no home."""
    python = Path(sys.base_prefix) / "bin"
    environment = {"PATH": f"{python}:/usr/bin:/bin", "HOME": str(cwd), "PIP_INDEX_URL": "file:///nowhere"}
    return subprocess.run(list(map(str, arguments)), cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_bundle_installs_itself_and_the_demo_finds_the_environment(
    bundled: Make, home: Path, out: Path, tmp_path: Path
) -> None:
    bundled(piece_bytes=600)  # some wheels whole, some in pieces
    stick = tmp_path / "a stick"
    shutil.move(out, stick)
    shutil.rmtree(home)
    shutil.rmtree(tmp_path / "checkout")
    shutil.rmtree(tmp_path / "index")
    there = tmp_path / "there"
    there.mkdir()
    verified = alone("sh", stick / "install.sh", "--verify", cwd=there)
    assert (verified.returncode, verified.stdout[:4]) == (0, "good"), verified.stderr
    ended = alone("sh", stick / "install.sh", "--home", there / "home", cwd=there)
    assert ended.returncode == 0, ended.stderr
    assert f"export DATACREATE_HOME={there}/home\n  .venv/bin/datacreate doctor" in ended.stdout
    project = there / "datacreate"
    said_version = alone(project / ".venv/bin/datacreate", "--version", cwd=there)
    assert said_version.stdout == "datacreate 7.1\n"
    found = "import alpha, beta, torch"
    assert alone(project / ".venv/bin/python", "-c", found, cwd=there).returncode == 0
    # What scripts/setup stamped is good for the scripts there: they make nothing anew.
    setup = alone(project / "scripts/setup", "--cpu", cwd=there)
    assert (setup.returncode, setup.stderr) == (0, "")
    demo = alone(project / "scripts/demo", "--cpu", "--offline", cwd=there)
    assert demo.returncode == 0, demo.stderr
    assert "datacreate environment for" not in demo.stderr
    # Nothing in the bundle has changed by it, and a second install does nothing anew.
    assert alone("sh", stick / "install.sh", "--verify", cwd=there).returncode == 0
    again = alone("sh", stick / "install.sh", "--home", there / "home", cwd=there)
    assert again.returncode == 0
    assert "already in" in again.stderr
    assert "datacreate environment for" not in again.stderr


def test_the_installer_refuses_in_one_line(plain: Path, tmp_path: Path) -> None:
    flip(plain / "project" / next((plain / "project").iterdir()).name)
    ended = alone(sys.executable, plain / "install.py", "--home", tmp_path / "h", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("install: ")
    assert "altered" in ended.stderr
    assert "Traceback" not in ended.stderr
