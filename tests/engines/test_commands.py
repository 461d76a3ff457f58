"""Which engine loads a model, on which GPUs, with which command line; models that do not fit are refused."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from datacreate import hardware
from datacreate.checkpoints.checkpoint import Adapter, Checkpoint, resolve, with_adapter
from datacreate.checkpoints.presets import Preset, ServerSettings, load_presets
from datacreate.engines import EngineOptions, RunEngineOptions
from datacreate.engines.engine import Workload
from datacreate.engines.factory import choose_engine, group_gpus
from datacreate.engines.llamacpp import LLAMACPP
from datacreate.engines.vllm import VLLM
from datacreate.errors import EngineError, UsageError
from datacreate.hardware import check_build, visible_gpus
from tests.support.tiny_model import write_safetensors

BF16_CPU = frozenset({"avx512_bf16"})


@pytest.fixture(scope="module")
def safetensors(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return resolve(str(write_safetensors(tmp_path_factory.mktemp("models") / "tiny")), "instruct")


@pytest.fixture
def gguf(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(LLAMACPP, "build", lambda: "llamacpp")
    return resolve(str(tiny_gguf), "instruct")


@pytest.fixture
def on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VLLM, "build", lambda: "cpu")


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
    ids=["a GPU", "bf16", "AVX2", "AVX2, only vLLM", "only llama.cpp", "neither"],
)
def test_auto_chooses_by_machine_and_count(
    gguf: Checkpoint,
    safetensors: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    build: str | None,
    bf16: bool,
    has_llamacpp: bool,
    of_gguf: str,
    of_safetensors: str,
) -> None:
    monkeypatch.setattr(VLLM, "build", lambda: build)
    monkeypatch.setattr(LLAMACPP, "build", lambda: "llamacpp" if has_llamacpp else None)
    monkeypatch.setattr(hardware, "cpu_flags", lambda: BF16_CPU if bf16 else frozenset())

    def chosen(checkpoint: Checkpoint) -> str:
        try:
            return " ".join(choose_engine(checkpoint, "auto", count).name for count in (499, 500))
        except EngineError as error:
            return str(error)

    assert chosen(gguf).startswith(of_gguf)
    assert of_safetensors in chosen(safetensors)


def test_llama_cpp_has_fewer_slots_with_a_longer_context(gguf: Checkpoint, safetensors: Checkpoint) -> None:
    usual, long = (LLAMACPP.command(gguf, ServerSettings(max_model_len=tokens), Workload()) for tokens in (None, 4096))
    assert usual.slots == 2 * long.slots
    assert LLAMACPP.command(gguf, ServerSettings(max_num_seqs=3), Workload()).slots == 3
    with pytest.raises(EngineError, match="tiny has a context of 4096 tokens"):
        LLAMACPP.command(gguf, ServerSettings(max_model_len=10**6), Workload())
    with pytest.raises(EngineError, match=r"tiny: llama\.cpp loads only GGUF files; .*--engine vllm"):
        LLAMACPP.command(safetensors, ServerSettings(), Workload())


@pytest.mark.usefixtures("on_a_cpu")
def test_a_model_larger_than_the_memory_is_refused_with_the_numbers(
    gguf: Checkpoint, safetensors: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=0.1 * 1024**3))
    with pytest.raises(EngineError, match=r"tiny needs about 0\.\d GiB \(.*0\.1 GiB are free; use a smaller"):
        LLAMACPP.command(gguf, ServerSettings(), Workload())
    with pytest.raises(EngineError, match=r"tiny needs about 3.5 GiB \(0.0 weights, 1.0 cache, 2.5 overhead\)"):
        VLLM.command(safetensors, ServerSettings(), Workload())


@pytest.mark.usefixtures("on_a_cpu")
def test_the_command_line_of_vllm_agrees_with_the_record(safetensors: Checkpoint) -> None:
    settings = ServerSettings(dtype="float32", max_model_len=100_000)
    command = VLLM.command(safetensors, settings, Workload(count=5))
    words = " ".join(command.arguments)
    assert "--max-model-len 4096 " in words  # all that the model has
    assert "--served-model-name tiny " in words
    assert "--enable-prefix-caching" in words
    assert "--enforce-eager" in words  # too few examples to compile
    assert "--trust-remote-code" not in words
    assert command.environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert command.record["dtype"] == "float32"
    trusted = Checkpoint("tiny", safetensors.path, safetensors.sha256, None, trust_remote_code=True)
    assert "--trust-remote-code" in VLLM.command(trusted, ServerSettings(), Workload()).arguments


@pytest.mark.usefixtures("on_a_cpu")
def test_an_adapter_is_served_under_the_name_of_the_model(safetensors: Checkpoint) -> None:
    model = with_adapter(safetensors, Adapter("mine", Path("/mine"), "ab" * 32, 9))
    words = " ".join(VLLM.command(model, ServerSettings(), Workload()).arguments)
    assert "--served-model-name tiny with mine-base " in words
    assert "--lora-modules tiny with mine=/mine" in words
    assert "--max-lora-rank 16 " in words


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VLLM, "build", lambda: "gpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")


@pytest.mark.usefixtures("on_a_gpu")
def test_flashinfer_is_used_only_with_its_precompiled_kernels(
    safetensors: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"flashinfer-python": "0.7.0.post1", "flashinfer-cubin": "0.7.0.post1"}
    monkeypatch.setattr(hardware, "installed_version", versions.get)
    environment = VLLM.command(safetensors, ServerSettings(), Workload()).environment
    assert environment["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert "127.0.0.1" in environment["FLASHINFER_CUBINS_REPOSITORY"]
    monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", "1")
    assert VLLM.command(safetensors, ServerSettings(), Workload()).environment["VLLM_USE_FLASHINFER_SAMPLER"] == "1"
    versions["flashinfer-jit-cache"] = "0.7.0.post1+cu130"
    assert "FLASHINFER_CUBINS_REPOSITORY" not in VLLM.command(safetensors, ServerSettings(), Workload()).environment


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize(
    ("gpus", "visible", "slots"),
    [
        (["NVIDIA H100 80GB HBM3, 81559, 0, GPU-a1"], "0", 1024),
        (["NVIDIA A100-SXM4-80GB, 81920, 0, GPU-a1"], "0", 256),
        (["NVIDIA H200, 143771, 0, GPU-a1", "NVIDIA L40S, 46068, 1, GPU-b2"], "1,0", 256),
        (["NVIDIA H200, 143771, 0, GPU-a1", "NVIDIA L40S, 46068, 1, GPU-b2"], "0", 1024),
        (["NVIDIA H200, 143771, 0, GPU-a1", "NVIDIA L40S, 46068, 1, GPU-b2"], "GPU-a", 1024),
        (["NVIDIA H200, 143771, 0, GPU-a1", "NVIDIA L40S, 46068, 1, GPU-b2"], "1", 256),
        (["No devices were found"], "0", 256),
    ],
)
def test_a_gpu_gets_as_many_requests_as_vllm_processes_by_default(
    gpus: list[str], visible: str, slots: int, safetensors: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(hardware, "run_nvidia_smi", lambda *_: "\n".join(gpus) + "\n")
    assert VLLM.command(safetensors, ServerSettings(), Workload()).slots == slots
    assert VLLM.command(safetensors, ServerSettings(max_num_seqs=7), Workload()).slots == 7


GPU_PRESETS = [each for each in load_presets().values() if each.kind == "instruct" and each.sources[0].file is None]


COMMANDS = dict(line.split(": ", 1) for line in Path(__file__).with_name("vllm_commands.txt").read_text().splitlines())
"""The arguments of vLLM's server for each preset, without those that all have."""


def with_config(checkpoint: Checkpoint, folder: Path, **changes: object) -> Checkpoint:
    """The checkpoint with another config.json."""
    config = json.loads((checkpoint.path / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return replace(checkpoint, path=folder)


@pytest.mark.usefixtures("on_a_gpu")
@pytest.mark.parametrize("preset", GPU_PRESETS, ids=lambda preset: preset.name)
def test_the_command_line_of_a_preset(preset: Preset, safetensors: Checkpoint, tmp_path: Path) -> None:
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8}
    checkpoint = with_config(safetensors, tmp_path, max_position_embeddings=262_144, **heads)
    words = " ".join(VLLM.command(checkpoint, preset.engine, Workload()).arguments[3:])
    usual = (
        rf"--model {tmp_path} --served-model-name tiny --structured-outputs-config {{.*}} --enable-prefix-caching "
        r"--uvicorn-log-level warning (.*) --max-num-seqs 256"
    )
    found = re.fullmatch(usual, words)
    assert found
    assert found[1] == COMMANDS[preset.name]
    # The parser is what lets a model think before the grammar applies.
    assert bool(preset.engine.reasoning_parser) == bool(preset.thinking)


def test_every_preset_has_its_command_line_and_a_parser_of_vllm() -> None:
    assert [preset.name for preset in GPU_PRESETS] == [*COMMANDS]
    vllm = importlib.util.find_spec("vllm")  # not imported, which is slow
    if vllm and vllm.submodule_search_locations:
        known = Path(vllm.submodule_search_locations[0], "reasoning", "__init__.py").read_text()
        parsers = {preset.engine.reasoning_parser for preset in GPU_PRESETS} - {None}
        assert all(f'"{parser}": (' in known for parser in parsers)


@pytest.mark.usefixtures("on_a_gpu")
def test_quantization_and_type_of_the_cache_reach_vllm(safetensors: Checkpoint, tmp_path: Path) -> None:
    settings = ServerSettings(quantization="fp8", kv_cache_dtype="fp8", tensor_parallel_size=2)
    command = VLLM.command(safetensors, settings, Workload())
    words = " ".join(command.arguments)
    assert "--tensor-parallel-size 2 --kv-cache-dtype fp8 --quantization fp8" in words
    assert (command.record["quantization"], command.record["kv_cache_dtype"]) == ("fp8", "fp8")
    assert "--language-model-only" not in words
    sees = with_config(safetensors, tmp_path, vision_config={})
    assert "--language-model-only" in VLLM.command(sees, settings, Workload()).arguments


def test_a_missing_vllm_is_one_line(safetensors: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VLLM, "build", lambda: None)
    with pytest.raises(EngineError, match=r"vLLM is not installed; .*--engine llamacpp"):
        VLLM.command(safetensors, ServerSettings(), Workload())


@pytest.mark.usefixtures("on_a_gpu")
def test_the_gpu_build_needs_a_gpu(safetensors: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "vllm_build", lambda: "gpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(EngineError, match=r"^tiny: the installed build is for NVIDIA GPUs"):
        VLLM.command(safetensors, ServerSettings(), Workload())


def test_a_job_on_a_node_that_does_not_suit_the_build_fails_at_once(
    gguf: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = "echo 'GPU 0: NVIDIA H100 (UUID: GPU-aaaa-01)'"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{listing}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(hardware, "vllm_build", lambda: "cpu")
    notes: list[str] = []
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    check_build(notes.append)
    assert [note.partition(";")[0] for note in notes] == [
        "warning: this machine has an NVIDIA GPU, and the installed build is for CPUs"
    ]
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with pytest.raises(EngineError, match=r"run scripts/setup --gpu"):
        choose_engine(gguf, "auto", 5)
    assert choose_engine(gguf, "llamacpp", 5) is LLAMACPP  # what the user asked for
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_build(notes.append)
    monkeypatch.setattr(hardware, "vllm_build", lambda: "gpu")
    with pytest.raises(EngineError, match=r"for NVIDIA GPUs, and this process has none"):
        check_build(notes.append)
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("names", "visible"),
    [
        ("3, GPU-aaaa-01,MIG-GPU-bbbb/1/0", ("3", "GPU-aaaa-01", "MIG-GPU-bbbb/1/0")),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0,-1,1", ("0",)),
        ("1,1,0", ("1", "0")),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(
    monkeypatch: pytest.MonkeyPatch, names: str, visible: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", names)
    assert visible_gpus() == visible


def test_auto_starts_a_server_per_complete_group_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    assert group_gpus("auto", 2) == [("0", "1"), ("2", "3")]
    assert group_gpus(3, 1) == [("0",), ("1",), ("2",)]
    assert group_gpus(1, 1) == [()]
    with pytest.raises(UsageError, match=r"--replicas 6 needs 6 GPUs .*, only 5 can be used; use at most 5, or add"):
        group_gpus(6, 1)
    with pytest.raises(UsageError, match=r"--replicas 2 needs 8 GPUs \(4 for each server: .*; use at most 1, or add"):
        group_gpus(2, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert group_gpus("auto", 1) == [()]


def test_a_local_verifier_has_the_request_timeout_of_the_run() -> None:
    assert RunEngineOptions(request_timeout=600, max_num_seqs=2).for_verifier == EngineOptions(request_timeout=600)
