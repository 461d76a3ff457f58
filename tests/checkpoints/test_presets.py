"""The shipped presets, and what happens with a name or a file that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from datacreate.checkpoints import find_preset, load_presets
from datacreate.checkpoints.preset import HubSource, PackageSource
from datacreate.errors import CheckpointError

SHIPPED = load_presets()


def test_the_four_that_work_without_a_hub_come_from_packages_with_known_hashes() -> None:
    for name in (
        "qwen2.5-coder-0.5b-instruct",
        "qwen2.5-coder-1.5b-instruct",
        "all-minilm-l6-v2",
        "all-mpnet-base-v2",
    ):
        preset = SHIPPED[name]
        assert not preset.untested
        assert isinstance(preset.sources[0], PackageSource)
        assert all(source.sha256 for source in preset.sources)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_preset_has_what_it_needs(name: str) -> None:
    preset = SHIPPED[name]
    assert preset.name == name == name.lower()
    assert preset.description
    assert preset.license
    for source in preset.sources:
        hub_commit = isinstance(source, HubSource) and len(source.revision) == 40
        pinned = any(file.endswith((".gguf", ".safetensors")) for file in source.sha256)
        assert pinned or hub_commit or preset.untested, f"{source.label} is pinned by nothing"
    assert preset.engine.dtype == "auto"  # the hardware decides


def test_an_unknown_name_suggests_near_ones_and_where_to_look() -> None:
    with pytest.raises(CheckpointError, match=r"did you mean .*qwen2\.5-7b-instruct.*models list"):
        find_preset("qwen2.5-7b-instrct")
    with pytest.raises(CheckpointError, match=r"qwen2\.5-7b-instruct"):
        find_preset("Qwen/Qwen2.5-7B-Instruct")
    with pytest.raises(CheckpointError, match="unknown model 'zzzz': "):
        find_preset("zzzz")


def test_case_does_not_matter() -> None:
    assert find_preset("All-MiniLM-L6-v2").name == "all-minilm-l6-v2"


def test_a_misspelt_setting_names_the_file_and_the_key(tmp_path: Path) -> None:
    text = "kind: instruct\ndescription: d\nparameters: 1B\nlicense: MIT\nsize_bytes: 5\n"
    (tmp_path / "a.yaml").write_text(text + "sources: [{path: /x}]\nengine: {max_model_length: 4}\n")
    with pytest.raises(CheckpointError, match=r"a\.yaml: engine\.max_model_length: ") as caught:
        load_presets(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "a.yaml").write_text("kind: [")
    with pytest.raises(CheckpointError, match=r"a\.yaml: not YAML") as caught:
        find_preset("a", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_range_of_packages_keeps_the_width_of_its_first_number() -> None:
    source = PackageSource.model_validate(
        {"packages": ["p-{008..010}", "q{9..10}"], "version": "1", "member": "*", "file": "x.gguf"}
    )
    assert source.packages == ("p-008", "p-009", "p-010", "q9", "q10")
