"""No command reaches another machine, and none lets a library download or report its use.

Every process is guarded (tests/support/guard.py): Python code that connects to anything but loopback, or looks up a
name, is refused and logged. For native code one test runs in a network namespace without interfaces.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from datacreate.checkpoints.checkpoint import resolve
from datacreate.finetuning.records import read_evaluation
from tests.benchmarks.test_copy import as_creak
from tests.finetuning.conftest import import_rows, save_encoder
from tests.finetuning.sets import choices, claims
from tests.offline.guarding import Guarded
from tests.support.guard import CallsOut
from tests.support.process import ROOT

EXAMPLE = ROOT / "data" / "examples" / "commonsense.json"
MODEL = "qwen2.5-coder-0.5b-instruct"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, model: str) -> Guarded:
    """Has run every command: the steps of a sweep in processes of their own, the others in one process."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "models").mkdir()
    writer = Path(shutil.copytree(model, folder / "models" / "writer"))
    tiny = save_encoder(folder / "models" / "tiny")
    home = {"DATACREATE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "SCRIPTED": "{}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACREATE_HOME", home["DATACREATE_HOME"])
        import_rows(folder / "reference", "creak", train=claims(60, 1), test=claims(20, 2))
    guarded = Guarded(folder / "calls.jsonl", environment=home)
    run, plan = folder / "run", folder / "plan.yaml"
    cells = {"benchmarks": ["creak"], "conditions": ["tree"], "generators": ["./models/writer"], "count": 10}
    cells |= {"encoders": ["./models/tiny"], "train_seeds": [1], "train": {"epochs": 1}, "test": ["creak"]}
    plan.write_text(yaml.safe_dump(cells))
    create = ("--example", EXAMPLE, "--model", writer, "--verify", "off")
    commands: dict[tuple[object, ...], int | None] = {
        ("create", *create, "--count", 40, "--run-dir", run, "--strategy", "naive"): 0,
        ("improve", run, "--count", 5, "--model", writer, "--encoder", tiny, "--epochs", 1): 0,
        ("preview", *create): 0,
        ("show", run): 0,
        ("show", run, "--html", folder / "run.html"): 0,
        ("review", run, "--export", folder / "review.csv"): 0,
        ("attributes", "suggest", "--example", EXAMPLE, "--model", writer): None,  # the script proposes nothing
        ("export", run, "--layout", "parquet", "--out", folder / "parquet"): 0,
        ("filter", run, "--semantic", "0.999", "--embedding-model", tiny): 0,
        ("schema", "infer", EXAMPLE): 0,
        ("doctor",): None,  # depends on this machine
        ("serve", "--model", writer, "--engine", "llamacpp"): 1,  # no GGUF file; vLLM is slow, see below
        ("models", "list"): 0,
        ("benchmarks", "list"): 0,
        ("sweep", plan, "--out", folder / "out"): 0,
        ("report", folder / "out", "--out", folder / "report"): 0,
    }
    words = [word for command in commands for word in ("--then", *command)][1:]
    codes = json.loads(guarded.run(*words, module="tests.offline.several").out.splitlines()[-1])
    expected = list(commands.values())
    assert [code if want is not None else None for code, want in zip(codes, expected, strict=True)] == expected
    return guarded


@pytest.mark.slow
def test_no_command_calls_another_machine(guarded: Guarded) -> None:
    from datacreate.cli.group import COMMANDS

    assert guarded.called == set()
    words = {word for line in guarded.lines("end") for word in line["command"]}
    assert words >= {*COMMANDS, "create", "train", "evaluate"}
    model = guarded.log.parent / "out" / "trained" / "creak-writer-tree-42" / "tree-tiny-10" / "seed-1"
    assert read_evaluation(model / "evaluations" / "creak-test").scores.rows == 20


@pytest.mark.slow
def test_downloads_and_telemetry_are_off_before_a_library_is_imported(guarded: Guarded) -> None:
    imported = {line["library"] for line in guarded.lines("import")}
    assert {"huggingface_hub", "transformers", "datasets"} <= imported
    assert guarded.missing_switches() == set()


def test_the_guard_catches_every_kind_of_call(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path / "calls.jsonl")
    guarded.run(module="tests.offline.calls_out")
    assert guarded.called == {
        ("socket.connect", "192.0.2.1"),
        ("socket.sendto", "2001:db8::1"),
        ("socket.getaddrinfo", "example.invalid"),
        ("socket.gethostbyname", "example.invalid"),
    }


def test_the_tests_themselves_are_guarded(calls_out: list[str]) -> None:
    with pytest.raises(CallsOut), socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))
    assert calls_out == ["socket.connect 192.0.2.1"]
    calls_out.clear()


@pytest.mark.parametrize("strategy", ["naive", pytest.param("diverse", marks=pytest.mark.slow)])
def test_the_python_api_reads_local_files_only_and_leaves_the_environment_alone(
    tmp_path: Path, model: str, strategy: str
) -> None:
    guarded = Guarded(tmp_path / "calls.jsonl", environment={"OMP_NUM_THREADS": "1"})
    encoder = save_encoder(tmp_path / "tiny") if strategy == "diverse" else "none"
    guarded.run(model, encoder, strategy, tmp_path, module="tests.offline.python_api")
    assert guarded.called == set()
    assert (tmp_path / "run" / "summary.json").is_file()


def test_only_the_commands_that_download_allow_downloads() -> None:
    from datacreate.cli.group import datacreate

    found = []
    for name, command in datacreate.commands.items():
        context = click.Context(datacreate)
        command = datacreate.get_command(context, name)
        commands = command.commands.items() if isinstance(command, click.Group) else [("", command)]
        found += [f"{name} {part}" for part, each in commands if each.downloads]
    assert found == ["models pull", "benchmarks import"]


def test_an_import_of_a_copy_calls_nobody(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path / "calls.jsonl", environment={"DATACREATE_HOME": str(tmp_path / "home")})
    copy = tmp_path / "copy"
    copy.mkdir()
    for split in ("train", "validation"):
        lines = [json.dumps(as_creak(row)) for row in claims(8, 1)]
        (copy / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    guarded.run("benchmarks", "import", "creak", "--from", copy, "--allow-count-mismatch")
    assert "datasets" in {line["library"] for line in guarded.lines("import")}
    assert guarded.called == set()


@pytest.mark.slow
def test_a_server_of_vllm_calls_nobody(tmp_path: Path, model: str) -> None:
    pytest.importorskip("vllm")
    guarded = Guarded(tmp_path / "calls.jsonl")
    guarded.run("serve", "--model", model, "--engine", "vllm", code=1)  # the model cannot be loaded
    assert "vllm" in {line["library"] for line in guarded.lines("import")}
    assert guarded.called == set()
    assert guarded.missing_switches() == set()


@pytest.mark.model
@pytest.mark.slow
def test_create_train_evaluate_and_report_in_a_namespace_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = ["unshare", "-n" if os.geteuid() == 0 else "-rn", "--"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("cannot create a network namespace")
    model = resolve(MODEL, "instruct").path
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    import_rows(tmp_path / "reference", "csqa", dev=choices(20, 5, 1), test=choices(20, 5, 2))
    tiny, run, trained = save_encoder(tmp_path / "tiny"), tmp_path / "run", tmp_path / "trained"
    log = tmp_path / "calls.jsonl"
    # `create` talks to its model's server on loopback; the other commands get no interface at all.
    loopback = [*namespace, sys.executable, str(Path(__file__).with_name("loopback.py"))]
    with_loopback, without = Guarded(log, loopback), Guarded(log, namespace)
    with_loopback.run(
        *("create", "--example", EXAMPLE, "--count", 6, "--model", model, "--verify", "off"),
        *("--run-dir", run, "--num-examples", 2, "--concurrency", 4),
    )
    assert len((run / "train.jsonl").read_bytes().splitlines()) == 6
    without.run(
        *("train", run, "--encoder", tiny, "--out", trained, "--seeds", 1, "--epochs", 1),
        *("--model-selection", "none", "--learning-rates", "1e-3", "--max-length", 64),
    )
    without.run("evaluate", trained, "--benchmark", "csqa")
    without.run("report", tmp_path, "--out", tmp_path / "report")
    assert (tmp_path / "report" / "report.html").is_file()
    assert without.called == set()
    assert without.missing_switches() == set()
