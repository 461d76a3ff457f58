"""The shipped presets, a user's own, names and files that are wrong, and `models list`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from datacreate.checkpoints.presets import HubRepository, Mirror, find_preset, find_sources, load_presets, read_preset
from datacreate.cli.models import models
from datacreate.errors import CheckpointError

SHIPPED = load_presets()
MIRRORED = {"qwen2.5-coder-0.5b-instruct", "qwen2.5-coder-1.5b-instruct", "all-minilm-l6-v2", "all-mpnet-base-v2"}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_preset_names_the_hub_first(name: str) -> None:
    preset = SHIPPED[name]
    assert preset.name == name == name.lower()
    hub, *mirrors = preset.sources
    assert isinstance(hub, HubRepository)
    assert bool(mirrors) == (name in MIRRORED) != preset.untested
    for mirror in mirrors:
        assert isinstance(mirror, Mirror)
        assert any(file.endswith((".gguf", ".safetensors")) for file in mirror.sha256)
        assert len(set(mirror.packages)) == mirror.parts
    assert preset.engine.dtype is None  # the hardware decides


def test_an_unknown_name_suggests_similar_ones() -> None:
    with pytest.raises(CheckpointError, match=r"did you mean .*qwen2\.5-7b-instruct.*models list"):
        find_preset("qwen2.5-7b-instrct")
    with pytest.raises(CheckpointError, match="unknown model 'zzzz': "):
        find_sources("zzzz")
    assert find_preset("All-MiniLM-L6-v2").name == "all-minilm-l6-v2"


def test_a_hub_id_is_that_of_a_preset_or_of_any_repository() -> None:
    preset, sources = find_sources("qwen/qwen2.5-coder-0.5b-instruct-gguf")
    assert preset == SHIPPED["qwen2.5-coder-0.5b-instruct"]
    assert sources == preset.sources
    other, (source,) = find_sources("Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF@v1")
    assert other == preset
    assert source == HubRepository(hub=preset.sources[0].hub, revision="v1", file=preset.sources[0].file)
    assert find_sources("org/name@abc") == (None, (HubRepository(hub="org/name", revision="abc"),))


def test_a_users_own_preset(data_folder: Path) -> None:
    (data_folder / "presets").mkdir()
    text = "kind: instruct\ndescription: d\nlicense: MIT\nsize_bytes: 5\nsources: [{hub: org/mine}]\n"
    (data_folder / "presets" / "mine.yaml").write_text(text)
    assert load_presets().keys() == {*SHIPPED, "mine"}
    assert find_sources("org/mine")[0] == find_preset("mine")
    (data_folder / "presets" / "qwen3-8b.yaml").write_text(text)
    assert find_preset("qwen3-8b").license == "MIT" != SHIPPED["qwen3-8b"].license


def test_a_misspelled_setting_names_the_file_and_the_key(tmp_path: Path) -> None:
    text = "kind: instruct\ndescription: d\nparameters: 1B\nlicense: MIT\nsize_bytes: 5\n"
    (tmp_path / "a.yaml").write_text(text + "sources: [{hub: o/x}]\nengine: {max_model_length: 4}\n")
    with pytest.raises(CheckpointError, match=r"a\.yaml: engine\.max_model_length: ") as caught:
        read_preset(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)
    (tmp_path / "a.yaml").write_text("kind: [")
    with pytest.raises(CheckpointError, match=r"a\.yaml: not a YAML mapping") as caught:
        read_preset(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


def test_models_list_shows_presets_and_their_sources(data_folder: Path) -> None:
    text = CliRunner().invoke(models, ["list"]).stdout
    assert {"all-mpnet-base-v2", "qwen3-8b"} <= {line.split()[0] for line in text.splitlines()}
    assert "untested, gated" in text
    rows = {row["name"]: row for row in json.loads(CliRunner().invoke(models, ["list", "--json"]).stdout)}
    assert {row["path"] for row in rows.values()} == {None}
    assert rows["qwen3-8b"]["sources"] == [{"hub": "Qwen/Qwen3-8B"}]
