"""What a run is given, and every folder it refuses, in one line each."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from datacreate.checkpoints import find_preset, pull, resolve, verify
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import checkpoint_files, safetensors_bytes, write_files

_YAML = (
    "kind: encoder\ndescription: d\nparameters: 1M\nlicense: MIT\nsize_bytes: 9\nsources: [{{path: {src}}}]\n"
)


@pytest.fixture
def presets(tmp_path: Path, home: Path) -> Path:
    """A folder with one preset, `tiny`, whose source is complete."""
    folder = tmp_path / "presets"
    folder.mkdir()
    source = write_files(tmp_path / "src", checkpoint_files())
    (folder / "tiny.yaml").write_text(_YAML.format(src=source))
    return folder


def refused(name: str, presets: Path | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(name, "encoder", presets)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_preset_that_is_not_here_says_what_to_type(presets: Path) -> None:
    assert refused("tiny", presets) == "tiny is not here yet: run `datacreate models pull tiny`"


def test_a_pulled_preset_is_itself_by_name_and_by_folder(presets: Path) -> None:
    folder = pull(find_preset("tiny", presets))
    by_name = resolve("TINY", "encoder", presets)
    assert (by_name.name, by_name.path) == ("tiny", folder)
    assert len(by_name.sha256) == 64
    by_folder = resolve(str(folder), "encoder", presets)
    assert by_folder.sha256 == by_name.sha256
    assert by_folder.preset is None


def test_the_other_kind_is_refused(presets: Path) -> None:
    pull(find_preset("tiny", presets))
    with pytest.raises(CheckpointError, match="tiny is an encoder, and an instruct model is needed here"):
        resolve("tiny", "instruct", presets)


def test_damage_that_a_glance_shows(presets: Path) -> None:
    preset = find_preset("tiny", presets)
    weights = pull(preset) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert refused("tiny", presets).endswith("run `datacreate models pull tiny --force`")
    weights.write_bytes(b"\xff" * len(whole))  # the size is right, the header is not
    assert "tiny is damaged (model.safetensors is cut off" in refused("tiny", presets)
    weights.unlink()
    assert "model.safetensors is missing" in refused("tiny", presets)
    pull(preset)  # a pull fixes what is visibly damaged, without --force
    assert verify(preset).good
    (weights.parent / "datacreate.json").write_text("{")
    assert "datacreate.json is not readable" in refused("tiny", presets)


def test_damage_that_only_a_full_verification_sees(presets: Path) -> None:
    preset = find_preset("tiny", presets)
    folder = pull(preset)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(seed=9))
    (folder / "more.safetensors").write_bytes(safetensors_bytes())
    resolve("tiny", "encoder", presets)
    report = verify(preset)
    assert report.state == "damaged"
    assert report.problems == (
        "model.safetensors is not what was pulled (its sha256 differs)",
        "more.safetensors was not part of it",
    )
    pull(preset, force=True)
    assert verify(preset).good


def test_a_local_folder_has_an_identity_that_follows_its_content(tmp_path: Path) -> None:
    one = write_files(tmp_path / "one", checkpoint_files())
    same = write_files(tmp_path / "same", checkpoint_files())
    other = write_files(tmp_path / "other", checkpoint_files(seed=1))
    large = write_files(tmp_path / "large", checkpoint_files() | {"model.safetensors": _large(0)})
    large_other = write_files(tmp_path / "large2", checkpoint_files() | {"model.safetensors": _large(5)})
    found = [resolve(str(folder), "encoder").sha256 for folder in (one, same, other, large, large_other)]
    assert found[0] == found[1]
    assert len(set(found)) == 4


def _large(seed: int) -> bytes:
    return safetensors_bytes(seed, floats=800_000)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"config.json": None}, "no config.json"),
        ({"tokenizer.json": None}, "no tokenizer"),
        ({"model.safetensors": None}, "no *.safetensors"),
        ({"model.safetensors": None, "pytorch_model.bin": b"p"}, "only pickled weights"),
        ({"config.json": b'{"auto_map": {"AutoModel": "m.M"}}'}, "never run here"),
        ({"config.json": b"{"}, "config.json is not JSON"),
        ({"config.json": b"[]"}, "config.json is not a JSON object"),
        ({"model.safetensors": b"\x01\x02"}, "cut off or not a safetensors file"),
        ({"model.safetensors": b"\x02" + b"\0" * 7 + b"[]"}, "no readable safetensors header"),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors"}}'},
            "model-1.safetensors is missing (1 of 1 shards)",
        ),
        (
            {"model.safetensors": None, "model-00002-of-00003.safetensors": safetensors_bytes()},
            "model-00001-of-00003.safetensors is missing (2 of 3 shards)",
        ),
        (
            {"model-00001-of-00001.safetensors": safetensors_bytes()[:-1]},
            "model-00001-of-00001.safetensors has",
        ),
        (
            {"config.json": None, "adapter_config.json": b'{"base_model_name_or_path": "org/base"}'},
            "a LoRA adapter for org/base, not a whole model; use --model with that base and --adapter",
        ),
    ],
)
def test_a_folder_that_is_no_safe_checkpoint(
    tmp_path: Path, change: dict[str, bytes | None], said: str
) -> None:
    files = {name: content for name, content in (checkpoint_files() | change).items() if content is not None}
    assert said in refused(str(write_files(tmp_path / "local", files)))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "roberta"}, "an encoder (roberta), and an instruct model is needed here"),
        ({"model_type": "new", "architectures": ["NewForMaskedLM"]}, "an encoder (NewForMaskedLM)"),
        (
            {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            "vLLM does not serve",
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
    resolve(folder, "encoder")  # what it can do as one is for training to find out
    if said is None:
        resolve(folder, "instruct")
        return
    with pytest.raises(CheckpointError) as caught:
        resolve(folder, "instruct")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_found_without_reading_it(tmp_path: Path) -> None:
    whole = safetensors_bytes(floats=10)
    folder = write_files(tmp_path / "local", checkpoint_files())
    length = int.from_bytes(whole[:8], "little")
    header = whole[8 : 8 + length].replace(b"40]", b"40000000000000]")
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(10_000_000_000)  # a hole: 10 GB that no disk holds
    assert "has 10,000,000,000 bytes where its header says 40,000,000,000,0" in refused(str(folder))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "no such folder" in refused(str(tmp_path / "absent"))


def test_resolving_is_cheap_and_loads_nothing_heavy(presets: Path) -> None:
    pull(find_preset("tiny", presets))
    resolve("tiny", "encoder", presets)
    start = time.perf_counter()
    resolve("tiny", "encoder", presets)
    assert time.perf_counter() - start < 0.1
    heavy = "{'torch', 'transformers', 'numpy', 'huggingface_hub'}"
    look = f"import sys, datacreate.checkpoints; print({heavy} & {{*sys.modules}})"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", look], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
