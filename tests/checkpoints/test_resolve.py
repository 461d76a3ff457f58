"""What a run is given, and every folder it refuses, in one line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datacreate.checkpoints.checkpoint import Checkpoint, read_adapter, resolve, with_adapter
from datacreate.checkpoints.presets import ModelKind
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import checkpoint_files, run_python, safetensors_bytes, write_files


def refused(place: str | Path, kind: ModelKind = "encoder", **how: bool) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(str(place), kind, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_other_kind_of_preset_is_refused(data_folder: Path) -> None:
    name = "all-minilm-l6-v2"
    assert f"{name} is an encoder model; give an instruct model" in refused(name, "instruct")
    assert refused(name) == f"{name} is not downloaded: run `datacreate models pull {name}`"
    write_files(data_folder / "checkpoints" / name, checkpoint_files())
    assert refused("all-mpnet-base-v2").endswith(f" all-mpnet-base-v2`, or choose one that is: {name}")


def test_a_local_folder_has_an_identity_that_follows_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_files(tmp_path / "one", checkpoint_files())
    same = write_files(tmp_path / "same", checkpoint_files())
    other = write_files(tmp_path / "other", checkpoint_files(seed=1))
    large = write_files(tmp_path / "large", checkpoint_files() | {"model.safetensors": LARGE})
    changed = LARGE[:1_000_000] + bytes(100_000) + LARGE[1_100_000:]  # as merging an adapter changes a layer
    large_other = write_files(tmp_path / "large2", checkpoint_files() | {"model.safetensors": changed})
    found = [resolve(str(folder), "encoder").sha256 for folder in (one, same, other, large, large_other)]
    assert found[0] == found[1]
    assert len(set(found)) == 4
    assert "no such folder" in refused(tmp_path / "absent")
    monkeypatch.chdir(tmp_path)
    assert resolve("one", "encoder").sha256 == found[0]  # no preset has that name
    for name in ("one/config.json", "notes.txt"):
        Path(name).write_text("{}")
        assert refused(name).startswith(f"{name}: not a model file; give a .gguf file, ")


LARGE = safetensors_bytes(3, floats=800_000)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config.json": None}, "no config.json"),
        ({"tokenizer.json": None}, "no tokenizer"),
        ({"model.safetensors": None}, "no *.safetensors"),
        ({"model.safetensors": b""}, "model.safetensors: an empty file; copy or download it again"),
        ({"model.safetensors": None, "pytorch_model.bin": b"p"}, "pickled weights can run code"),
        ({"config.json": b"[]"}, "config.json: not a JSON object"),
        (
            {"model.safetensors": None, "model-00002-of-00003.safetensors": safetensors_bytes()},
            "1 of 3 files of weights; copy it again",
        ),
        (
            {"config.json": None, "adapter_config.json": b'{"base_model_name_or_path": "org/base"}'},
            "a LoRA adapter; give its base with --model and this with --adapter",
        ),
    ],
)
def test_a_folder_that_is_incomplete_or_unsafe_is_refused(
    tmp_path: Path, change: dict[str, bytes | None], said: str
) -> None:
    files = {name: content for name, content in (checkpoint_files() | change).items() if content is not None}
    assert said in refused(str(write_files(tmp_path / "local", files)))


def test_a_link_to_weights_that_were_removed_is_a_damaged_model(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "cached", checkpoint_files())
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "blobs" / "removed")
    assert "model.safetensors: an empty file; copy or download it again" in refused(str(folder))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "new", "architectures": ["NewForMaskedLM"]}, "NewForMaskedLM, which cannot follow"),
        (
            {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "T5ForConditionalGeneration, which cannot follow instructions",
        ),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, None),
        ({"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}, None),
        ({"model_type": "new"}, None),
    ],
)
def test_a_folder_that_cannot_write_text_is_no_instruct_model(
    tmp_path: Path, config: dict[str, Any], said: str | None
) -> None:
    files = checkpoint_files() | {"config.json": json.dumps(config).encode()}
    folder = str(write_files(tmp_path / "local", files))
    resolve(folder, "encoder" if said else "instruct")  # what it can do as an encoder is for training to find out
    assert said is None or said in refused(folder, "instruct")


def test_python_code_of_the_publisher_needs_consent(tmp_path: Path) -> None:
    own = {"config.json": b'{"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}', "own.py": b"boom"}
    folder = write_files(tmp_path / "own", checkpoint_files() | own)
    assert "needs Python code of its publisher (auto_map): give --trust-remote-code" in refused(folder)
    assert resolve(str(folder), "encoder", trust_remote_code=True).trust_remote_code
    known = {"config.json": own["config.json"].replace(b'"own"', b'"phi3"')}
    found = resolve(str(write_files(tmp_path / "known", checkpoint_files() | known)), "encoder")
    assert not found.trust_remote_code  # transformers has this architecture, and uses its own


_RESOLVES = """
import sys
from datacreate.checkpoints.checkpoint import resolve
resolve(sys.argv[1], "encoder")
print({"torch", "transformers", "numpy", "gguf", "huggingface_hub"} & {*sys.modules})
"""


def test_resolving_a_folder_imports_nothing_heavy(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "one", checkpoint_files())
    assert run_python(_RESOLVES, folder).stdout == "set()\n"


def adapter(folder: Path, **config: Any) -> Path:
    text = json.dumps({"peft_type": "LORA", "r": 2, **config})
    files = {"adapter_config.json": text.encode(), "adapter_model.safetensors": safetensors_bytes()}
    return write_files(folder, files)


def test_an_adapter_makes_another_model_of_its_base(tmp_path: Path) -> None:
    base = Checkpoint("base", tmp_path, "ab" * 32, None)
    both = with_adapter(base, read_adapter(adapter(tmp_path / "mine")))
    assert (both.name, both.path) == ("base with mine", base.path)
    assert both.adapter
    assert both.adapter.rank == 2
    assert both.sha256 != base.sha256


@pytest.mark.parametrize(
    ("config", "removed", "words"),
    [
        ({"peft_type": "IA3"}, "", "only plain LoRA adapters"),
        ({"use_dora": True}, "", "no DoRA.*merge_and_unload"),
        ({"modules_to_save": ["lm_head"]}, "", "no modules_to_save"),
        ({"r": "many"}, "", "adapter_config.json cannot be read"),
        ({}, "adapter_config.json", r"adapter_config\.json: no such file"),
        ({}, "adapter_model.safetensors", r"adapter_model\.safetensors: no such file"),
    ],
)
def test_an_adapter_that_cannot_be_served_is_refused_in_one_line(
    tmp_path: Path, config: dict[str, Any], removed: str, words: str
) -> None:
    folder = adapter(tmp_path / "mine", **config)
    if removed:
        (folder / removed).unlink()
    with pytest.raises(CheckpointError, match=words) as raised:
        read_adapter(folder)
    assert "\n" not in str(raised.value)
