"""A simulated GPU node: where several models run, and how much of the GPUs' memory each gets.

The GPUs are those of a script named nvidia-smi, the weights are empty files of the size of real ones, and the table
of what is placed where is that of docs/engines.md.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datacreate import hardware
from datacreate.checkpoints.checkpoint import Checkpoint, resolve
from datacreate.checkpoints.presets import ServerSettings, find_preset
from datacreate.engines import EngineOptions, factory
from datacreate.engines.engine import GpuNeed, ServerCommand, Workload
from datacreate.engines.factory import LocalModel, make_local_servers, make_server_commands, place_models
from datacreate.engines.vllm import VLLM
from datacreate.errors import EngineError, UsageError
from datacreate.messages import Notify, no_notify
from datacreate.runs.directory import RunDirectory
from tests.engines.helpers import YES_NO, make
from tests.finetuning.conftest import import_rows
from tests.finetuning.sets import claims, write_rows
from tests.support.inprocess import typed
from tests.support.process import ROOT

Node = Callable[..., None]

SIZES = {  # bytes of the weights in 16 bits; layers, width, heads, heads of keys and values
    "1.5B": (3_087_467_144, 28, 1536, 12, 2),
    "7B": (15_231_233_024, 28, 3584, 28, 4),
    "32B": (65_527_841_792, 64, 5120, 40, 8),
    "70B": (141_107_412_992, 80, 8192, 64, 8),
}


def checkpoint(folder: Path, size: str) -> Checkpoint:
    weights, layers, width, heads, kv_heads = SIZES[size]
    path = folder / size
    if not path.is_dir():
        path.mkdir()
        config = {
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": layers,
            "hidden_size": width, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
            "max_position_embeddings": 32768, "dtype": "bfloat16",
        }  # fmt: skip
        (path / "config.json").write_text(json.dumps(config))
        (path / "tokenizer.json").write_text("{}")
        (path / "model.safetensors").touch()
        os.truncate(path / "model.safetensors", weights)
    return resolve(str(path), "instruct")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """Makes this machine one with so many GPUs of 80 GB, others of so many MiB, and the GPU build of vLLM."""
    programs = tmp_path / "bin"
    programs.mkdir()

    def gpus(number: int, *others: int) -> None:
        sizes = [81559] * number + [*others]
        listing = "".join(f"GPU {i}: NVIDIA H100 80GB HBM3 (UUID: GPU-{i})\n" for i in range(len(sizes)))
        memory = "".join(f"NVIDIA H100 80GB HBM3, {size}, {i}, GPU-{i}\n" for i, size in enumerate(sizes))
        script = f'#!/bin/sh\nif [ "$1" = -L ]; then printf "{listing}"; else printf "{memory}"; fi\n'
        (programs / "nvidia-smi").write_text(script)
        (programs / "nvidia-smi").chmod(0o755)

    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(VLLM, "build", lambda: "gpu")
    monkeypatch.setattr(factory, "check_build", lambda _: None)
    return gpus


def options(words: list[str]) -> EngineOptions:
    """`TP2 fp8`: two GPUs for each server, weights in 8 bits."""
    size = next((int(word[2:]) for word in words if word.startswith("TP")), None)
    quantization = "fp8_per_tensor" if "fp8" in words else None
    return EngineOptions(tensor_parallel_size=size, quantization=quantization)


def placed(folder: Path, generator: str, verifier: str) -> list[str]:
    """The servers of the generator and of the verifier, as the table describes them."""
    named = [cell.split() for cell in (generator, verifier) if cell]
    models = [
        LocalModel(checkpoint(folder, name), options(words), only_scores=number == 1)
        for number, (name, *words) in enumerate(named)
    ]
    try:
        where = place_models(models, 100_000, no_notify)
    except EngineError:
        return ["do not fit"] * 2
    found = []
    for model, work in zip(models, where, strict=True):
        commands = make_server_commands(model, work, "auto")
        gpus = [command.environment.get("CUDA_VISIBLE_DEVICES", "all") for command in commands]
        first, last = (re.sub("GPU-", "", gpus[at]) for at in (0, -1))
        on = first if first == last else f"{first} … {last}"
        share = commands[0].record.get("gpu_memory_utilization", 0.92)
        found.append(f"{len(commands)} on {on}; {share:.2f}; {commands[0].slots}")
    return found if verifier else [*found, ""]


def table() -> list[list[str]]:
    """The rows of the table in docs/engines.md."""
    text = (ROOT / "docs" / "engines.md").read_text()
    rows = text.partition("| GPUs | generator | verifier |")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(rows) > 8
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize("row", table(), ids=lambda row: " ".join(row[:3]))
def test_models_are_placed_as_the_documentation_says(row: list[str], node: Node, tmp_path: Path) -> None:
    gpus, generator, verifier, *servers = row
    node(int(gpus))
    assert placed(tmp_path, generator, verifier) == servers


def test_models_that_do_not_fit_are_refused_with_numbers_and_advice(node: Node, tmp_path: Path) -> None:
    node(1)
    models = [
        LocalModel(checkpoint(tmp_path, "7B"), EngineOptions()),
        LocalModel(checkpoint(tmp_path, "32B"), EngineOptions(), only_scores=True),
    ]
    servers = make_local_servers(models[0], count=10, log=None, sharing=models, notify=no_notify)
    with pytest.raises(EngineError) as refused:
        servers.start()
    assert str(refused.value) == (
        "7B (19.5 GiB) and 32B (70.9 GiB) need 90.3 GiB on each GPU, and 73.3 of 79.6 GiB may be used; use smaller or "
        "quantized models (--quantization, --verifier-quantization), or more GPUs (--tensor-parallel-size, "
        "--verifier-tensor-parallel-size); or use --verify off, then `datacreate filter RUN_DIR --verifier 32B --out "
        "FILE`"
    )


def test_a_second_model_that_cannot_be_split_is_refused_before_the_first_server_starts(
    node: Node, tmp_path: Path
) -> None:
    node(8)
    models = [
        LocalModel(checkpoint(tmp_path, "7B"), EngineOptions()),
        LocalModel(checkpoint(tmp_path, "32B"), EngineOptions(tensor_parallel_size=3), only_scores=True),
    ]
    servers = make_local_servers(models[0], count=10, log=None, sharing=models, notify=no_notify)
    says = "^32B: --tensor-parallel-size 3 cannot split 40 heads, 8 of keys; .*--verifier-tensor-parallel-size"
    with pytest.raises(EngineError, match=says):
        servers.start()


@pytest.mark.parametrize(
    ("verifier", "settings", "problem"),
    [
        (
            "1.5B",
            {"tensor_parallel_size": 4},
            "^1.5B: --tensor-parallel-size 4 needs 4 GPUs, only 2 are visible; .*--verifier-",
        ),
        ("1.5B", {"replicas": 3}, "^--replicas 3 needs 3 GPUs .* only 2 can be used"),
        (
            "32B",
            {"replicas": 2},
            "^--replicas 2 needs 2 GPUs .* only 1 can be used",
        ),  # the other one is that of the generator
    ],
)
def test_a_second_model_that_needs_more_gpus_is_refused_before_the_first_server_starts(
    node: Node, tmp_path: Path, verifier: str, settings: dict[str, Any], problem: str
) -> None:
    node(2)
    models = [
        LocalModel(checkpoint(tmp_path, "7B"), EngineOptions()),
        LocalModel(checkpoint(tmp_path, verifier), EngineOptions.of(**settings), only_scores=True),
    ]
    servers = make_local_servers(models[0], count=10, log=None, sharing=models, notify=no_notify)
    with pytest.raises((EngineError, UsageError), match=problem):
        servers.start()


def test_no_larger_number_of_gpus_is_tried_than_a_model_needs(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node(8)
    tried: list[int | None] = []
    gpu_need = VLLM.gpu_need

    def recorded(model: Checkpoint, settings: ServerSettings, notify: Notify) -> GpuNeed | None:
        tried.append(settings.tensor_parallel_size)
        return gpu_need(model, settings, notify)

    monkeypatch.setattr(VLLM, "gpu_need", recorded)
    command(checkpoint(tmp_path, "70B"))
    assert tried == [None, 1, 2, 3, 4]


def command(model: Checkpoint, *, notify: Notify = no_notify, **settings: Any) -> ServerCommand:
    """The command of the only server of a model that is alone."""
    local = LocalModel(model, EngineOptions.of(**settings))
    [only] = make_server_commands(local, Workload(notify=notify))
    return only


def test_a_model_that_is_alone_gets_the_gpus_that_it_needs(node: Node, tmp_path: Path) -> None:
    def gpus_of(model: Checkpoint, **settings: Any) -> object:
        return command(model, **settings).record["tensor_parallel_size"]

    node(2)
    notes: list[str] = []
    preset = find_preset("llama-3.3-70b-instruct")
    assert preset.engine.tensor_parallel_size == 4
    assert gpus_of(replace(checkpoint(tmp_path, "70B"), preset=preset), notify=notes.append) == 2
    assert notes == []  # it seems to fit on none: vLLM decides
    assert gpus_of(replace(checkpoint(tmp_path, "32B"), preset=preset), notify=notes.append) == 1
    assert notes == ["32B: --tensor-parallel-size 1 suits these GPUs"]
    node(1, 4096)
    model = checkpoint(tmp_path, "32B")
    assert gpus_of(model) == 1
    node(8)
    assert (gpus_of(model), gpus_of(model, tensor_parallel_size=2)) == (1, 2)
    with pytest.raises(EngineError, match="--tensor-parallel-size 3 cannot split 40 heads, 8 of keys"):
        command(model, tensor_parallel_size=3)
    config = json.loads((model.path / "config.json").read_text())
    os.truncate(model.path / "model.safetensors", 2 * SIZES["32B"][0])
    for stored in ({"torch_dtype": "float32"}, {"text_config": config | {"dtype": "float32"}}):
        (model.path / "config.json").write_text(json.dumps(config | {"dtype": None} | stored))
        assert gpus_of(model) == 1
    (model.path / "consolidated.safetensors").touch()  # the same weights again
    os.truncate(model.path / "consolidated.safetensors", 8 * SIZES["32B"][0])
    (model.path / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 2}))
    os.truncate(model.path / "model.safetensors", 4 * SIZES["32B"][0])
    assert gpus_of(model) == 4


def test_a_model_whose_weights_do_not_fit_is_refused(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node(1)
    says = (
        r"^the weights of 70B take at least 131\.4 GiB on each of 1 GPUs, and 73\.3 of 79\.6 GiB may be used; use more "
        r"GPUs \(--tensor-parallel-size\), or a smaller or quantized model \(--quantization fp8_per_tensor\)$"
    )
    for settings in ({}, {"tensor_parallel_size": 1}):
        with pytest.raises(EngineError, match=says):
            command(checkpoint(tmp_path, "70B"), **settings)
    command(checkpoint(tmp_path, "70B"), quantization="bitsandbytes")  # how small the weights get is not known
    model = checkpoint(tmp_path, "70B")
    config = json.loads((model.path / "config.json").read_text())
    (model.path / "config.json").write_text(json.dumps(config | {"dtype": None}))
    command(model)  # it may be stored in 32 bits
    os.truncate(model.path / "model.safetensors", 2 * SIZES["70B"][0])
    with pytest.raises(EngineError, match=says):
        command(model)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(hardware, "vllm_build", lambda: "gpu")
    with pytest.raises(EngineError, match="this process has none"):
        command(checkpoint(tmp_path, "70B"))


def test_a_model_with_linear_attention_has_fewer_slots_and_kernels_that_need_no_compiler(
    node: Node, tmp_path: Path
) -> None:
    node(1)
    model = checkpoint(tmp_path, "7B")
    usual = VLLM.command(model, ServerSettings(), Workload())
    assert (usual.slots, "--gdn-prefill-backend" in usual.arguments) == (1024, False)
    config = json.loads((model.path / "config.json").read_text())
    config["layer_types"] = ["linear_attention"] * 21 + ["full_attention"] * 7
    (model.path / "config.json").write_text(json.dumps({"text_config": config}))
    command = VLLM.command(model, ServerSettings(), Workload())
    assert (command.slots, "--gdn-prefill-backend triton" in " ".join(command.arguments)) == (128, True)
    assert VLLM.command(model, ServerSettings(max_num_seqs=500), Workload()).slots == 500


FAKE_VLLM = """
import os, signal, sys, threading
from tests.support.servers import Server

class Healthy(Server):
    def handle(self, handler, body):
        return handler.reply({}) if handler.path == "/health" else super().handle(handler, body)

value = dict(zip(sys.argv, sys.argv[1:]))
print(os.environ.get("CUDA_VISIBLE_DEVICES", "all"), value["--gpu-memory-utilization"], flush=True)
stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
name, port = value["--served-model-name"], int(value["--port"])
with Healthy(model=name, port=port, key=os.environ["VLLM_API_KEY"]) as server:
    stopped.wait()
    print("answered", len(server.bodies), flush=True)
"""


def install_vllm(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install this program as the server of vLLM, for child processes."""
    package = folder / "fake" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text(program)
    for parent in [*list(package.parents)[:2], package]:
        (parent / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "fake"), str(ROOT)]))


FAILED_START = """\
(EngineCore pid=7) ERROR 11-30 07:00:00 [core.py:1510] EngineCore failed to start.
(EngineCore pid=7) ERROR 11-30 07:00:00 [core.py:1510]     raise ValueError(
(EngineCore pid=7) ERROR 11-30 07:00:00 [core.py:1510] ValueError: Free memory on device cuda:0 is too low
(EngineCore pid=7) ERROR 11-30 07:00:00 [core.py:1510] Exception: failed. See stack trace for root cause.
AttributeError: 'NoneType' object has no attribute 'close'
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}
"""


def test_the_reason_of_a_failed_start_is_the_error_of_the_engine_and_the_log_is_kept(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_vllm(f"print({FAILED_START!r})\nraise SystemExit(1)", tmp_path, monkeypatch)
    node(1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "example.json").write_text(json.dumps(YES_NO))
    words = ["preview", "--example", str(tmp_path / "example.json"), "--verify", "off", "--model"]
    ended = typed(*words, str(checkpoint(tmp_path, "1.5B").path))
    reason = "ended (exit code 1): ValueError: Free memory on device cuda:0 is too low; its log is "
    assert reason in ended.err
    assert Path(ended.err.rpartition("its log is ")[2].strip()).read_text().startswith(FAILED_START)


@pytest.mark.parametrize(
    "words", ["filter ROWS --out OUT --verifier", "evaluate --benchmark creak --out OUT --zero-shot"]
)
def test_a_model_that_only_scores_has_fewer_slots(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    install_vllm("import sys\nprint(*sys.argv)\nraise SystemExit(1)", tmp_path, monkeypatch)
    node(1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    import_rows(tmp_path / "rows", "creak", test=claims(6))
    paths = {"ROWS": write_rows(tmp_path / "rows.jsonl", claims(6)), "OUT": tmp_path / "out.jsonl"}
    model = str(checkpoint(tmp_path, "1.5B").path)
    ended = typed(*(str(paths.get(word, word)) for word in words.split()), model)
    assert "--max-num-seqs 256" in Path(ended.err.rpartition("its log is ")[2].strip()).read_text()


def test_a_run_uses_all_servers_of_generator_and_verifier(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers of the generator, and one of the verifier over both GPUs."""
    install_vllm(FAKE_VLLM, tmp_path, monkeypatch)
    node(2)
    models = {"model": str(checkpoint(tmp_path, "1.5B").path), "verifier": str(checkpoint(tmp_path, "7B").path)}
    settings = {"verify": "keep", "example": YES_NO, "count": 200, "strategy": "tree", "max_num_seqs": 20, "near": None}
    make(tmp_path / "run", **settings, **models, verifier_tensor_parallel_size=2)
    logs = {path.name: path.read_text().split() for path in (tmp_path / "run").glob("*[er1-9].log")}
    assert {name: " ".join(words[:2]) for name, words in logs.items()} == {
        "engine.1.log": "GPU-0 0.772",
        "engine.2.log": "GPU-1 0.772",
        "verifier.log": "all 0.147",
    }
    assert all(int(words[-1]) > 12 for words in logs.values())
    assert RunDirectory(tmp_path / "run").read_config().engines["engine"]["replicas"] == 2
