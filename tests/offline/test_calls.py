"""No verb reaches for another machine, and none lets a library do so or report its use.

Every process that the command line starts is guarded (tests/guard.py): one that connects to anything but
loopback, or asks for the address of a name, is refused and fails the test.
"""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest
import yaml

from datacreate.finetuning.records import read_evaluation
from tests.finetuning.conftest import import_rows, save_encoder
from tests.finetuning.sets import claims
from tests.guard import CallsOut
from tests.offline.guarding import Guarded, unset
from tests.process import ROOT

VERBS_ALONE = "tests.offline.several"
"""Several commands after each other, with a scripted engine."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, model: str) -> Guarded:
    """All verbs have been run, from an example to the report: a sweep's steps alone, the rest in one."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "models").mkdir()
    writer = Path(shutil.copytree(model, folder / "models" / "writer"))
    tiny = save_encoder(folder / "models" / "tiny")
    home = {"DATACREATE_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", "SCRIPTED": "{}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATACREATE_HOME", home["DATACREATE_HOME"])
        import_rows(folder / "reference", "creak", train=claims(60, 1), test=claims(20, 2))
    told = Guarded(folder / "calls.jsonl", environment=home)
    example = ROOT / "data" / "examples" / "commonsense.json"
    run, plan = folder / "run", folder / "plan.yaml"
    usual = {"benchmarks": ["creak"], "conditions": ["tree"], "generators": ["./models/writer"], "count": 10}
    usual |= {"encoders": ["./models/tiny"], "train_seeds": [1], "train": {"epochs": 1}, "test": ["creak"]}
    plan.write_text(yaml.safe_dump(usual))
    made = ("--example", example, "--model", writer, "--verify", "off")
    commands: dict[tuple[object, ...], int | None] = {
        ("create", *made, "--count", 12, "--run-dir", run, "--strategy", "naive"): 0,
        ("preview", *made): 0,
        ("show", run): 0,
        ("export", run, "--layout", "parquet", "--out", folder / "parquet"): 0,
        ("filter", run, "--semantic", "0.999", "--embedding-model", tiny): 0,
        ("schema", "infer", example): 0,
        ("doctor",): None,  # depends on this machine
        ("serve", "--model", writer): 1,  # no model to load; tests/cli/test_serve.py has one
        ("models", "list"): 0,
        ("benchmarks", "list"): 0,
        ("benchmarks", "show", "creak"): 0,
        ("benchmarks", "verify", "creak"): 1,  # fewer rows than the registry says
        ("sweep", plan, "--out", folder / "out"): 0,
        ("report", folder / "out", "--out", folder / "report"): 0,
    }
    typed = [word for command in commands for word in ("--then", *command)][1:]
    ended = told.run(*typed, module=VERBS_ALONE)
    codes = json.loads(ended.out.splitlines()[-1])
    wanted = list(commands.values())
    assert [code if want is not None else None for code, want in zip(codes, wanted, strict=True)] == wanted
    return told


def test_a_sweeps_steps_are_real_ones(guarded: Guarded) -> None:
    model = guarded.log.parent / "out" / "trained" / "creak-writer-tree-42" / "tree-tiny-10" / "seed-1"
    evaluation = read_evaluation(model / "evaluations" / "creak-test")
    assert (evaluation.condition.name, evaluation.condition.count, evaluation.scores.rows) == ("tree", 10, 20)
    assert evaluation.condition.generator == "writer"
    assert not list(model.glob("*.safetensors"))
    assert (model / "model.json").is_file()


def test_no_verb_calls_anything_but_this_machine(guarded: Guarded) -> None:
    assert guarded.called == set()


def test_the_verbs_that_were_run_are_all_that_need_no_network(guarded: Guarded) -> None:
    from datacreate.cli.main import VERBS

    words = {word for line in guarded.noted("end") for word in line["command"]}
    assert words >= set(VERBS)
    assert {"create", "train", "evaluate"} <= words


def test_every_process_has_downloads_and_telemetry_switched_off_before_a_library_reads_it(
    guarded: Guarded,
) -> None:
    imported = guarded.noted("import")
    assert {"huggingface_hub", "transformers", "datasets"} <= {line["library"] for line in imported}
    lacking = {(line["library"], *line["command"][:5], *unset(line)) for line in imported if unset(line)}
    assert lacking == set()
    ends = [line for line in guarded.noted("end") if "datacreate" in " ".join(line["command"])]
    assert [line["command"] for line in ends if unset(line)] == []


def test_the_guard_catches_a_process_that_calls_out(tmp_path: Path) -> None:
    told = Guarded(tmp_path / "calls.jsonl")
    told.run(module="tests.offline.calling")
    assert told.called == {
        ("socket.connect", "192.0.2.1"),
        ("socket.sendto", "2001:db8::1"),
        ("socket.getaddrinfo", "example.invalid"),
        ("socket.gethostbyname", "example.invalid"),
    }


def test_this_suite_is_guarded_itself(calls_out: list[str]) -> None:
    with pytest.raises(CallsOut), socket.socket() as outside:
        outside.connect(("192.0.2.1", 80))
    assert calls_out == ["socket.connect 192.0.2.1"]
    calls_out.clear()


def test_the_python_api_reads_local_files_only_and_leaves_the_environment_alone(
    tmp_path: Path, model: str
) -> None:
    guarded = Guarded(tmp_path / "calls.jsonl", environment={"OMP_NUM_THREADS": "1"})
    encoder = save_encoder(tmp_path / "tiny")
    guarded.run(model, encoder, tmp_path, module="tests.offline.python_api")
    assert guarded.called == set()
    assert (tmp_path / "run" / "summary.json").is_file()


def test_only_what_is_for_fetching_lifts_them() -> None:
    lifting = [
        path.relative_to(ROOT / "datacreate").as_posix()
        for path in sorted((ROOT / "datacreate").rglob("*.py"))
        if "lift()" in path.read_text(encoding="utf-8").replace("def lift()", "")
    ]
    assert lifting == ["benchmarks/hub.py", "checkpoints/hub.py"]
