"""The main job on a real model: Qwen2.5-Coder-0.5B-Instruct through real vLLM on this machine.

One engine is loaded for most of the tests and shared; the tests that kill processes start the
real command.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from datacreate.engines.selftest import prove_grammar, question
from datacreate.serving import Seat, vllm_engine

from datacreate import CreateConfig, create
from datacreate.checkpoints import Checkpoint, resolve
from datacreate.engines.base import Completion, Engine, Request, Sampling
from datacreate.errors import EngineError
from datacreate.runs.directory import RunDirectory
from datacreate.tasks.normal import normalised

pytestmark = pytest.mark.model

MODEL = "qwen2.5-coder-0.5b-instruct"
COMMONSENSE = Path(__file__).parents[1] / "data" / "examples" / "commonsense.json"
CLAIM = {
    "question": "Bees make honey from nectar.",
    "context": None,
    "options": ["True", "False"],
    "label": True,
}
PASSAGE = {
    "question": "did the bridge survive the flood",
    "context": "The old stone bridge of Aldmoor was swept away by the flood of 1901 and never built again.",
    "options": ["True", "False"],
    "label": False,
}


class Shared:
    """An engine that outlives the runs that use it: closing is left to the fixture."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def close(self) -> None:
        """Let pass what the last run gave up: all that is answered before one more request is."""
        self._engine.submit(question())
        answers: list[Completion] = []
        while question().id not in [answer.request_id for answer in answers]:
            answers = self._engine.poll(60.0)
            assert answers, "the engine answers no more"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    folder = tmp_path_factory.mktemp("engine")
    config = CreateConfig(example=COMMONSENSE, count=1, run_dir=folder, model=MODEL)
    loaded = vllm_engine(resolve(MODEL, "instruct"), config, RunDirectory(folder))
    loaded.start()
    yield Shared(loaded)
    loaded.close()


def run(
    engine: Shared, folder: Path, example: Path | dict[str, Any], count: int, **settings: Any
) -> list[dict[str, Any]]:
    """One run on the shared engine; the lines of its train.jsonl."""
    config = CreateConfig(example=example, count=count, run_dir=folder, model=MODEL, **settings)

    def factory(checkpoint: Checkpoint, config: CreateConfig, directory: RunDirectory, seat: Seat) -> Any:
        return engine

    summary = create(config, engine_factory=factory)
    assert summary["accepted"] == count
    return lines_of(folder)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "train.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line]


def assert_good(folder: Path, examples: list[dict[str, Any]], root: dict[str, Any]) -> None:
    """Valid under the run's own schema, no question twice, none the formatting example's."""
    identity = json.loads((folder / "config.json").read_text(encoding="utf-8"))["identity"]
    validator = jsonschema.Draft202012Validator(identity["format"])
    for example in examples:
        validator.validate(example)
        assert list(example) == list(root)
    questions = [normalised(example["question"]) for example in examples]
    assert len(set(questions)) == len(questions)
    assert normalised(root["question"]) not in questions


@pytest.mark.parametrize("strategy", ["naive", "random", "diverse", "similar", "tree", "coverage"])
def test_every_strategy_gives_exactly_25_good_examples(engine: Shared, tmp_path: Path, strategy: str) -> None:
    examples = run(engine, tmp_path / "run", COMMONSENSE, 25, strategy=strategy, encoder="all-minilm-l6-v2")

    assert len(examples) == 25
    assert_good(tmp_path / "run", examples, json.loads(COMMONSENSE.read_text()))
    for example in examples:
        assert example["label"] in example["options"]
        assert len(set(example["options"])) == 5


@pytest.mark.parametrize("root", [CLAIM, PASSAGE], ids=["closed book", "open book"])
def test_yes_no_labels_are_balanced_to_one(engine: Shared, tmp_path: Path, root: dict[str, Any]) -> None:
    examples = run(engine, tmp_path / "run", root, 11)  # verified by the same model, as is usual

    assert_good(tmp_path / "run", examples, root)
    assert sorted(Counter(example["label"] for example in examples).values()) == [5, 6]
    assert all(example["options"] == ["True", "False"] for example in examples)


def test_three_labels_of_natural_language_inference(engine: Shared, tmp_path: Path) -> None:
    root = {
        "premise": "The café closes at six.",
        "hypothesis": "The café is open at seven.",
        "label": "contradiction",
    }
    examples = run(engine, tmp_path / "run", root, 9, labels={"label": "entailment,neutral,contradiction"})

    assert Counter(e["label"] for e in examples) == {"entailment": 3, "neutral": 3, "contradiction": 3}
    assert all(e["premise"].strip() and e["hypothesis"].strip() for e in examples)


def test_ratings_nested_objects_and_other_languages(engine: Shared, tmp_path: Path) -> None:
    root = {
        "review": {"text": "El hotel estaba limpio y el desayuno era excelente.", "city": "Sevilla"},
        "stars": 5,
    }
    examples = run(engine, tmp_path / "run", root, 10, ranges={"stars": "1..5"}, verify="off")

    assert Counter(e["stars"] for e in examples) == dict.fromkeys(range(1, 6), 2)
    assert all(set(e["review"]) == {"text", "city"} for e in examples)


def test_extracted_answers_are_spans_of_their_context(engine: Shared, tmp_path: Path) -> None:
    root = {
        "context": "The lighthouse at Cape Orrin was built in 1874 by Ida Brandt.",
        "question": "Who built the lighthouse at Cape Orrin?",
        "answer": "Ida Brandt",
    }
    examples = run(engine, tmp_path / "run", root, 6)

    assert all(e["answer"] in e["context"] for e in examples)


def test_the_grammar_is_in_force_and_one_refused_schema_harms_nobody(engine: Shared) -> None:
    prove_grammar(engine)  # type: ignore[arg-type]
    messages = [{"role": "user", "content": "Say good morning."}]
    sampling = Sampling(max_tokens=24)
    engine.submit(
        Request(1, messages, '{"type":"array","uniqueItems":true,"items":{"type":"string"}}', sampling)
    )
    engine.submit(Request(2, messages, '{"enum":["blue"]}', sampling))
    answers: dict[int, Completion] = {}
    while len(answers) < 2:
        answers |= {answer.request_id: answer for answer in engine.poll(60)}

    assert answers[1].finish_reason == "error"
    assert answers[1].error
    assert answers[2].text == '"blue"'


def command(folder: Path, count: int) -> list[str]:
    return [
        sys.executable, "-m", "datacreate", "create", "--example", str(COMMONSENSE), "--count", str(count),
        "--model", MODEL, "--run-dir", str(folder), "--json",
        # Small steps: four requests of two examples are all that can be committed at once, so that a
        # kill after the first commits never comes too late.
        "--num-examples", "2", "--chains", "4",
    ]  # fmt: skip


def started(folder: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(command(folder, count), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def commits_in(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_bytes().count(b'{"request":') if log.exists() else 0


def wait_for_commits(process: subprocess.Popen[str], folder: Path, number: int) -> None:
    """Until the log holds `number` commits; fails if the run ends before."""
    while commits_in(folder) < number:
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        pytest.fail(f"the run ended early: {process.communicate()[1]}")


@pytest.mark.slow
def test_killed_three_times_it_still_gives_exactly_n_without_repeats(tmp_path: Path) -> None:
    folder, count = tmp_path / "run", 40
    for _ in range(3):
        before = commits_in(folder)
        process = started(folder, count)
        wait_for_commits(process, folder, before + 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    last = subprocess.run(command(folder, count), capture_output=True, text=True)

    assert last.returncode == 0, last.stderr
    assert json.loads(last.stdout)["accepted"] == count
    examples = lines_of(folder)
    assert len(examples) == count
    assert_good(folder, examples, json.loads(COMMONSENSE.read_text()))


def test_a_model_that_dies_is_one_line_and_the_run_goes_on_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = started(folder, 30)
    wait_for_commits(process, folder, 1)
    [worker] = [
        int(pid)
        for pid in _children(process.pid)
        if b"vllm_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate()

    assert process.returncode == 1
    assert "the model's process ended" in errors.splitlines()[-1]
    kept = commits_in(folder)
    assert kept >= 1
    again = started(folder, 30)
    wait_for_commits(again, folder, kept + 1)
    again.send_signal(signal.SIGTERM)
    _, errors = again.communicate()
    assert again.returncode == 75
    assert "run the same command to go on" in errors.splitlines()[-1]


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_context_longer_than_the_model_holds_is_refused_before_anything_loads(tmp_path: Path) -> None:
    config = CreateConfig(
        example={**PASSAGE, "context": "water " * 6000}, count=5, run_dir=tmp_path / "run", model=MODEL
    )  # fmt: skip
    with pytest.raises(EngineError, match="do not fit the model's context of 4096"):
        create(config)
    assert not (tmp_path / "run").exists()
