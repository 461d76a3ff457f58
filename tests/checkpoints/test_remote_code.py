"""A publisher's own Python code runs only where its preset and the user both say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from datacreate.checkpoints import find_preset, load_presets, pull, resolve, state, verify
from datacreate.errors import CheckpointError
from tests.checkpoints.conftest import checkpoint_files, make_preset, write_files

CODE = {"config.json": b'{"auto_map": {"AutoModelForCausalLM": "own.Own"}}', "own.py": b"class Own: ...\n"}
_PRESET = "kind: instruct\ndescription: d\nparameters: 1M\nlicense: MIT\nsize_bytes: 9\n"


@pytest.fixture
def presets(tmp_path: Path, home: Path) -> Path:
    """Two presets over one source with code of its own: `allowed` says trust_remote_code, `usual` does not."""
    source = write_files(tmp_path / "src", checkpoint_files() | CODE)
    folder = tmp_path / "presets"
    folder.mkdir()
    for name, told in (("allowed", "trust_remote_code: true\n"), ("usual", "")):
        (folder / f"{name}.yaml").write_text(f"{_PRESET}{told}sources: [{{path: {source}}}]\n")
    return folder


def refused(name: str, presets: Path | None = None, **told: bool) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(name, "instruct", presets, **told)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_both_must_say_so(presets: Path) -> None:
    folder = pull(find_preset("allowed", presets))
    assert refused("allowed", presets) == (
        "allowed needs Python code of its publisher's to run here: say --trust-remote-code to let it, "
        "or take another model"
    )
    found = resolve("allowed", "instruct", presets, trust_remote_code=True)
    assert found.trust_remote_code
    assert (folder / "own.py").read_bytes() == CODE["own.py"]
    assert (folder / "config.json").read_bytes() == CODE["config.json"]
    assert verify(find_preset("allowed", presets)).good
    (folder / "own.py").write_bytes(b"class 0wn: ...\n")
    assert verify(find_preset("allowed", presets)).problems == (
        "own.py is not what was pulled (its sha256 differs)",
    )


def test_the_word_alone_gives_nothing_to_a_preset_or_a_folder(presets: Path, tmp_path: Path) -> None:
    folder = pull(find_preset("usual", presets))
    assert not (folder / "own.py").exists()
    assert not resolve("usual", "instruct", presets, trust_remote_code=True).trust_remote_code
    assert "never run here unless a preset says trust_remote_code" in refused(
        str(tmp_path / "src"), trust_remote_code=True
    )
    pulled = pull(find_preset("allowed", presets))  # by its folder it is nobody's preset
    assert "never run here" in refused(str(pulled), trust_remote_code=True)


def test_a_tokenizer_of_its_own_is_code_as_well(tmp_path: Path) -> None:
    files = checkpoint_files() | {"config.json": b'{"model_type": "qwen2"}', "vocab.txt": b""}
    files["tokenizer_config.json"] = b'{"auto_map": {"AutoTokenizer": ["own.Own", null]}}'
    resolve(str(write_files(tmp_path / "both", files)), "instruct")  # tokenizer.json needs none
    del files["tokenizer.json"]
    assert "tokenizer_config.json asks for Python code" in refused(str(write_files(tmp_path / "own", files)))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"hub": "org/own", "revision": "main"}, "give a commit as the revision"),
        ({"packages": ["own"], "version": "1", "folder": "f"}, "whose code is not run"),
    ],
)
def test_code_comes_from_one_commit_and_from_no_package(source: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_preset(source, trust_remote_code=True)
    make_preset({"hub": "org/own", "revision": "a" * 40}, trust_remote_code=True)


def test_no_shipped_preset_asks_for_it(home: Path) -> None:
    assert [preset.name for preset in load_presets().values() if preset.trust_remote_code] == []
    assert state(find_preset("qwen3-8b")) == "absent"
