"""Resume: after a kill, a signal or a full disk the same command ends with the same bytes."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datacreate.errors import EngineError, RunLocked, RunMismatch, UnwritablePath
from datacreate.runs.directory import RunDirectory
from tests.benchmarks.conftest import claims, imported
from tests.corpus.texts import passage
from tests.filters.texts import HashedWords
from tests.support.inprocess import run
from tests.support.making import COMMONSENSE, NLI, NLI_LABELS, STRATEGIES, commits, examples, make, train
from tests.support.process import Live
from tests.support.scripted import ScriptedClient, answering


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "example.json"
    path.write_text(json.dumps(COMMONSENSE))
    return path


def command(example: Path, model: str, run_dir: Path, count: int = 400, *more: object) -> list[object]:
    return ["create", "--example", example, "--model", model, "--run-dir", run_dir, "--count", count, *more]


def log_bytes(run_dir: Path) -> int:
    path = run_dir / "log.jsonl"
    return path.stat().st_size if path.exists() else 0


def log_lines(run_dir: Path) -> int:
    path = run_dir / "log.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_kills_at_random_times_do_not_change_the_result(tmp_path: Path, example: Path, model: str) -> None:
    assert run(*command(example, model, tmp_path / "whole", 400, "--concurrency", 7)).code == 0
    each = log_bytes(tmp_path / "whole") // 5
    killed = command(example, model, tmp_path / "killed", 400, "--concurrency", 7)
    rng = random.Random("kills tree")
    for kill in range(4):
        until = int(each * (kill + rng.random()))
        with Live(*killed, gated=True, shuffle=kill) as live:
            live.allow(9 + max(0, until - log_bytes(tmp_path / "killed")) // 500)
            live.wait_for(lambda u=until: log_bytes(tmp_path / "killed") > u)  # type: ignore[misc]
            live.stop(signal.SIGKILL)
    ended = run(*killed, shuffle=1)
    assert ended.code == 0
    assert "resuming from" in ended.err
    assert train(tmp_path / "killed") == train(tmp_path / "whole")
    requests = [commit.request_number for commit in commits(tmp_path / "killed")]
    assert requests == list(range(len(requests)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_with_code_75(tmp_path: Path, example: Path, model: str, number: int) -> None:
    assert run(*command(example, model, tmp_path / "whole")).code == 0
    stopped = command(example, model, tmp_path / "run")
    with Live(*stopped, gated=True) as live:
        live.allow(10)
        live.wait_for(lambda: log_lines(tmp_path / "run") == 11)
        ended = live.stop(number)
    assert ended.code == 75
    message = "datacreate: stopped by a signal after 50 of 400 examples; run the same command to resume"
    assert ended.failure == message
    assert not json.loads((tmp_path / "run" / "summary.json").read_text())["finished"]
    assert run(*stopped).code == 0
    assert train(tmp_path / "run") == train(tmp_path / "whole")


def test_a_signal_while_the_engine_starts_leaves_no_files(tmp_path: Path, example: Path, model: str) -> None:
    with Live(*command(example, model, tmp_path / "run"), loads=True) as live:
        live.read_until("testing")
        ended = live.stop(signal.SIGTERM)
    assert ended.code == 75
    assert ended.failure == "datacreate: stopped by a signal; run the same command to resume"
    assert not (tmp_path / "run").exists()


def test_the_lock_is_released_after_a_failure(tmp_path: Path, model: str) -> None:
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(RunLocked), directory.locked(), RunDirectory(tmp_path / "run").locked():
        pass
    with pytest.raises(ZeroDivisionError) as kept, directory.locked():
        _ = 1 / 0
    make(tmp_path / "run", model)
    assert kept.tb  # the traceback, and with it every local, was still alive
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        *"config.json log.jsonl train.jsonl summary.json README.md".split()
    }


# Other settings for the same directory


def test_a_larger_count_extends_a_finished_run_and_a_smaller_one_is_an_error(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, example=NLI, labels=NLI_LABELS, count=10)
    before = train(tmp_path)
    with pytest.raises(EngineError, match="ended"):
        make(tmp_path, model, ScriptedClient(answering(), dies_after=0), example=NLI, labels=NLI_LABELS, count=31)
    assert make(tmp_path, model, example=NLI, labels=NLI_LABELS, count=10)["accepted"] == 10
    summary = make(tmp_path, model, example=NLI, labels=NLI_LABELS, count=31)
    assert train(tmp_path).startswith(before)
    assert len(examples(tmp_path)) == summary["accepted"] == summary["requested"] == 31
    labels = [example["label"] for example in examples(tmp_path)]
    assert sorted(map(labels.count, set(labels))) == [10, 10, 11]
    with pytest.raises(RunMismatch, match="made with --count 31, which cannot be reduced to 30"):
        make(tmp_path, model, example=NLI, labels=NLI_LABELS, count=30)


class OtherMachine(HashedWords):
    """Vectors that differ in their last bits, or completely."""

    def __init__(self, difference: float) -> None:
        super().__init__()
        self._difference = difference

    def encode(self, texts: Sequence[str]) -> Any:
        vectors = super().encode(texts)
        vectors = vectors + self._difference * np.random.default_rng(1).normal(size=vectors.shape)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("vectors", ["kept", "deleted", "damaged"])
@pytest.mark.parametrize("difference", [0, 1e-3, 1])
def test_coverage_resumes_with_other_embeddings_and_with_a_damaged_file_of_vectors(
    tmp_path: Path, model: str, difference: float, vectors: str
) -> None:
    run: dict[str, Any] = {"count": 100, "strategy": "coverage", "concurrency": 7}
    with pytest.raises(EngineError, match="ended"):
        make(tmp_path / "run", model, ScriptedClient(answering(), dies_after=12), **run)
    before = train(tmp_path / "run")
    asked = [commit.parent for commit in commits(tmp_path / "run")]
    path = tmp_path / "run" / "vectors.f16"
    if vectors == "deleted":
        path.unlink()
    elif vectors == "damaged":
        path.write_bytes(path.read_bytes().replace(b"\x00\x00", b"\x12\x34", 200))
    embedder = OtherMachine(difference)
    make(tmp_path / "run", model, embedder=embedder, **run)
    assert train(tmp_path / "run").startswith(before)
    assert [commit.parent for commit in commits(tmp_path / "run")][: len(asked)] == asked
    assert len(examples(tmp_path / "run")) == 100
    if difference == 0:
        make(tmp_path / "whole", model, **run)
        assert train(tmp_path / "run") == train(tmp_path / "whole")


def test_a_finished_run_starts_no_engine_and_embeds_nothing(tmp_path: Path, model: str) -> None:
    summary = make(tmp_path, model, strategy="coverage", semantic=0.9)
    (tmp_path / "vectors.f16").unlink()
    embedder, client = HashedWords(), ScriptedClient(answering())
    assert make(tmp_path, model, client, embedder=embedder, strategy="coverage", semantic=0.9) == summary
    assert (embedder.calls, client.started, client.closed) == ([], False, True)


QUESTIONS = [{**COMMONSENSE, "question": f"Where is thing {index} kept?"} for index in range(3)]
INPUTS: dict[str, dict[str, Any]] = {
    "several examples": {"example": QUESTIONS},
    "several in a prompt": {"example": QUESTIONS, "shots": 3},
    "accepted ones in a prompt": {"example": QUESTIONS[:2], "shots": 4},
    "no example": {"example": None, "instruction": "Mails.", "inputs": "subject,body", "labels": "topic=bug,other"},
    "attributes": {"example": NLI, "labels": NLI_LABELS, "attributes": "attributes.yaml", "concurrency": 7},
    "documents": {"example": COMMONSENSE, "corpus": ("a.md",), "concurrency": 7},
}  # fmt: skip


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", INPUTS)
def test_a_killed_run_of_any_inputs_gives_the_same_bytes(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, name: str, strategy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("attributes.yaml").write_text("topic: [a, b, c, d]\nlevel: {easy: 0.7, hard: 0.3}\n")
    Path("a.md").write_text("\n\n".join(map(passage, range(14))))
    settings = INPUTS[name] | {"strategy": strategy, "count": 90}
    if strategy == "naive" and name == "accepted ones in a prompt":
        settings["shots"] = 2  # it has no accepted ones in a prompt
    script = answering(vocabulary=3000)
    make(tmp_path / "whole", model, ScriptedClient(script), **settings)
    for seed, dies_after in enumerate((4, 1, 7, None)):
        with suppress(EngineError):
            client = ScriptedClient(script, dies_after=dies_after, shuffle=random.Random(seed))
            make(tmp_path / "killed", model, client, **settings)
    for file in ("train.jsonl", *(["sources.jsonl", "passages.jsonl"] if name == "documents" else [])):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    whole, killed = commits(tmp_path / "whole"), commits(tmp_path / "killed")
    assert [each.attributes for each in killed] == [each.attributes for each in whole]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_extended_run_that_is_killed_continues_alike(tmp_path: Path, model: str, strategy: str) -> None:
    for name, deaths in (("whole", [None]), ("killed", [3, 9, 5, None])):
        make(tmp_path / name, model, strategy=strategy, count=40)
        for dies_after in deaths:
            with suppress(EngineError):
                client = ScriptedClient(answering(), dies_after=dies_after)
                make(tmp_path / name, model, client, strategy=strategy, count=200)
    assert train(tmp_path / "killed") == train(tmp_path / "whole")
    assert len(examples(tmp_path / "killed")) == 200


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_can_be_extended_by_a_few_examples_again_and_again(tmp_path: Path, model: str, strategy: str) -> None:
    before = b""
    for count in (*range(31, 41), 60, 61, 100):
        summary = make(tmp_path, model, strategy=strategy, example=NLI, labels=NLI_LABELS, count=count)
        assert summary["accepted"] == count
        assert train(tmp_path).startswith(before)
        before = train(tmp_path)


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 7}, r"--seed: 42 stored, 7 requested"),
    "strategy": ({"strategy": "naive"}, '--strategy: "tree" stored, "naive" requested'),
    "recipe": ({"recipe": "paper", "concurrency": None}, '--recipe: "best" stored, "paper" requested'),
    "concurrency": ({"concurrency": 6}, r"--concurrency: 5 stored, 6 requested"),
    "num_chains": ({"num_chains": 6}, r"--num-chains: 5 stored, 6 requested"),
    "example": ({"example": {**COMMONSENSE, "question": "Why?"}}, r'example 1.question: .* stored, "Why\?" requested'),
    "decontaminate": ({"decontaminate": ()}, r"--decontaminate: \['creak'\] stored, \[\] requested"),
    "label_ratio": (
        {"label_ratio": {"entailment": 0.5, "neutral": 0.5, "contradiction": 0.0}},
        r"--label-ratio: none stored, .'entailment': 0.5, 'neutral': 0.5, 'contradiction': 0.0. requested",
    ),
    "verify": ({"verify": "drop"}, '--verify: "keep" stored, "drop" requested'),
    "not verified": ({"verify": "off"}, '--verify: "keep" stored, "off" requested'),
    "labels": (
        {"labels": {"label": "entailment,contradiction"}},
        "format, which --format, --labels and similar options decide; format.properties.label.enum: .* requested",
    ),
    "order of fields": ({"example": dict(reversed(COMMONSENSE.items()))}, r"order of fields in example 1"),
}
"""Name of the setting -> changes, and the message."""

LABELED: dict[str, Any] = {"example": NLI, "labels": NLI_LABELS}
NEEDED: dict[str, dict[str, Any]] = {
    "num_chains": {"strategy": "random"},
    "label_ratio": LABELED,
    "labels": LABELED,
    "verify": {**LABELED, "verify": "keep", "label_noise_check": None},
    "not verified": {**LABELED, "verify": "keep"},
}
"""Other settings that a setting needs."""


@pytest.mark.parametrize("name", OTHER)
def test_other_settings_are_an_error_that_names_the_difference(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    changes, message = OTHER[name]
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path / "home"))
    imported(tmp_path / "files", "creak", {"test": claims(3)})
    run_dir, needed = tmp_path / "run", NEEDED.get(name, {})
    make(run_dir, model, **needed)
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    with pytest.raises(RunMismatch, match=f"was made with another {message}; use the same settings, or another"):
        make(run_dir, model, **needed | changes)
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before


def test_true_differs_from_one_and_models_are_compared(tmp_path: Path, model: str) -> None:
    make(tmp_path / "run", model, example={"question": "Is it?", "label": True}, count=4)
    with pytest.raises(RunMismatch, match=r"another example 1\.label: True stored, 1 requested"):
        make(tmp_path / "run", model, example={"question": "Is it?", "label": 1}, count=4)
    other = shutil.copytree(model, tmp_path / "other-model")
    with pytest.raises(RunMismatch, match='another --model: "scripted-model" stored, "other-model" requested'):
        make(tmp_path / "run", str(other), example={"question": "Is it?", "label": True}, count=4)


def test_a_machine_with_more_capacity_keeps_the_concurrency_of_the_run(tmp_path: Path, model: str) -> None:
    make(tmp_path, model, ScriptedClient(answering(), slots=2), count=40, concurrency=None)
    make(tmp_path, model, ScriptedClient(answering(), slots=8), count=80, concurrency=None)
    assert RunDirectory(tmp_path).read_config().spec.concurrency == 6  # three times the first number of slots


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; skipped where mounting is not permitted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_run_resumes_after_a_full_disk_and_a_read_only_disk_is_one_line(
    tmp_path: Path, small_disk: Path, example: Path, model: str
) -> None:
    assert run(*command(example, model, tmp_path / "whole", 200)).code == 0
    (small_disk / "ballast").write_bytes(bytes(40_960))
    full = run(*command(example, model, small_disk / "run", 200))
    assert full.code == 75
    assert "the disk is full; free space and run the same command to resume" in full.failure
    kept = log_lines(small_disk / "run")
    assert kept > 2
    again = run(*command(example, model, small_disk / "run", 200))
    assert again.code == 75
    assert log_lines(small_disk / "run") >= kept
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert run(*command(example, model, small_disk / "run", 200)).code == 0
    assert train(small_disk / "run") == train(tmp_path / "whole")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    ended = run(*command(example, model, small_disk / "other"))
    assert (ended.code, "Read-only file system" in ended.failure) == (75, True)


def test_a_file_size_limit_is_handled_like_a_full_disk(tmp_path: Path, example: Path, model: str) -> None:
    import resource

    assert run(*command(example, model, tmp_path / "whole", 200)).code == 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        full = run(*command(example, model, tmp_path / "run", 200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.code == 75
    assert "disk is full" in full.failure
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    assert log.endswith(b"}\n")  # no partial line is left
    assert run(*command(example, model, tmp_path / "run", 200)).code == 0
    assert train(tmp_path / "run") == train(tmp_path / "whole")


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path, model: str) -> None:
    with pytest.raises(UnwritablePath, match=r"cannot be written \(File name too long\); choose another path"):
        make(tmp_path / ("n" * 300), model)


def test_files_of_a_killed_start_do_not_block_the_next_run(tmp_path: Path, model: str) -> None:
    for name in (".datacreate-0123abcd.part", "engine.log"):
        (tmp_path / name).write_text("half")
    with RunDirectory(tmp_path).locked():
        record = (tmp_path / ".lock").read_bytes()
    (tmp_path / ".lock").write_bytes(record)
    make(tmp_path, model)
    assert len(examples(tmp_path)) == 25
    assert not list(tmp_path.glob(".*"))
