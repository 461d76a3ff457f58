"""A model of the user's own: imported once, it is listed, verified and named like any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from datacreate.checkpoints import find_preset, import_model, load_presets, resolve, state, verify
from datacreate.errors import CheckpointError, StorageError
from tests.checkpoints.conftest import checkpoint_files, write_files


def test_a_folder_becomes_a_preset_and_may_go_away(home: Path, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "My Model", checkpoint_files())
    preset = import_model(folder, license="MIT")
    shutil.rmtree(folder)
    assert preset.name == "my-model"
    assert "my-model" in load_presets()
    assert state(preset) == "present"
    assert verify(find_preset("my-model")).good
    found = resolve("my-model", "instruct")
    assert found.path == home / "checkpoints" / "my-model"
    assert found.preset
    assert found.preset.license == "MIT"


def test_imported_again_it_may_be_another(home: Path, tmp_path: Path) -> None:
    import_model(write_files(tmp_path / "a", checkpoint_files(1)), name="mine")
    before = resolve("mine", "instruct").sha256
    import_model(write_files(tmp_path / "b", checkpoint_files(2)), name="mine")
    assert resolve("mine", "instruct").sha256 != before


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("nowhere", None, "neither a .gguf file nor a folder"),
        ("notes.txt", None, "neither a .gguf file nor a folder"),
        ("empty", None, "holds no checkpoint"),
        ("model", "qwen2.5-coder-0.5b-instruct", "a shipped preset's name; choose another with --name"),
        ("model", "../up", "cannot be a model's name"),
    ],
)
def test_what_cannot_be_imported_is_one_line_and_no_preset(
    home: Path, tmp_path: Path, source: str, name: str | None, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("notes")
    write_files(tmp_path / "model", checkpoint_files())
    with pytest.raises(CheckpointError) as raised:
        import_model(tmp_path / source, name)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (home / "presets").exists()


def test_a_full_disk_is_one_line_and_no_preset(home: Path, tmp_path: Path) -> None:
    folder = write_files(tmp_path / "model", checkpoint_files())
    with pytest.raises(StorageError, match="not enough room"):
        import_model(folder, free_bytes=lambda: 10)
    assert not (home / "presets").exists()
