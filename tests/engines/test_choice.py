"""Which engine loads a model on which machine, and what llama.cpp's server is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from datacreate import hardware
from datacreate.checkpoints import Checkpoint, EngineSettings, resolve
from datacreate.engines import llamacpp
from datacreate.engines.factory import choose
from datacreate.engines.llamacpp import llamacpp_command
from datacreate.engines.vllm import WORTH_COMPILING
from datacreate.errors import EngineError
from tests.tiny_model import write_safetensors

MANY, FEW = WORTH_COMPILING, WORTH_COMPILING - 1


@pytest.fixture(scope="module")
def safetensors(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(write_safetensors(tmp_path_factory.mktemp("models") / "tiny")), "instruct")


@pytest.fixture
def gguf(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(llamacpp, "has_llamacpp", lambda: True)
    return resolve(str(tiny_gguf), "instruct")


@pytest.mark.parametrize(
    ("build", "bf16", "has_llamacpp", "of_gguf", "of_safetensors"),
    [
        ("gpu", False, True, "vllm vllm", "vllm"),
        ("cpu", True, True, "llamacpp vllm", "vllm"),
        ("cpu", False, True, "llamacpp llamacpp", "vllm"),
        ("cpu", False, False, "vllm vllm", "vllm"),
        (None, False, True, "llamacpp llamacpp", "only vLLM loads safetensors"),
        (None, False, False, "no engine is installed", "only vLLM loads safetensors"),
    ],
    ids=["a GPU", "bf16", "AVX2", "AVX2, vLLM alone", "llama.cpp alone", "neither"],
)
def test_auto_takes_what_suits_the_machine_and_the_count(
    gguf: Checkpoint,
    safetensors: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    build: str | None,
    bf16: bool,
    has_llamacpp: bool,
    of_gguf: str,
    of_safetensors: str,
) -> None:
    for name, value in (("vllm_build", build), ("cpu_has_bf16", bf16), ("has_llamacpp", has_llamacpp)):
        monkeypatch.setattr(hardware, name, lambda value=value: value)

    def chosen(checkpoint: Checkpoint, *counts: int) -> str:
        try:
            return " ".join(choose(checkpoint, "auto", count) for count in counts)
        except EngineError as error:
            return str(error)

    assert chosen(gguf, FEW, MANY).startswith(of_gguf)
    assert of_safetensors in chosen(safetensors, MANY)


def test_longer_contexts_get_fewer_slots_and_what_cannot_fit_is_refused_with_the_numbers(
    gguf: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, long = (llamacpp_command(gguf, EngineSettings(max_model_len=tokens)) for tokens in (None, 4096))
    assert usual.capacity == 2 * long.capacity
    assert llamacpp_command(gguf, EngineSettings(max_num_seqs=3)).capacity == 3
    with pytest.raises(EngineError, match="tiny has a context of 4096 tokens"):
        llamacpp_command(gguf, EngineSettings(max_model_len=10**6))
    monkeypatch.setattr(llamacpp, "free_gib", lambda _: 0.1)
    with pytest.raises(EngineError, match=r"tiny needs about 0\.\d GiB \(.*0\.1 GiB are free; use a smaller"):
        llamacpp_command(gguf, EngineSettings())


def test_llama_cpp_takes_no_safetensors(safetensors: Checkpoint, gguf: Checkpoint) -> None:
    with pytest.raises(EngineError, match=r"tiny: llama\.cpp loads only GGUF files; .*--engine vllm"):
        llamacpp_command(safetensors, EngineSettings())
