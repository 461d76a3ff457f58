"""Every file that is read may hold anything: the error is one line, never another exception."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from datacreate import files, locking
from datacreate.benchmarks import find_benchmark, read_split
from datacreate.checkpoints.checkpoint import read_adapter, resolve
from datacreate.checkpoints.gguf import read_gguf
from datacreate.checkpoints.presets import read_preset
from datacreate.cli.terminal import print_json
from datacreate.engines.server_sources import RemoteServers
from datacreate.errors import CheckpointError, DatacreateError, StorageError
from datacreate.finetuning.records import read_evaluation, read_model, read_predictions, read_training
from datacreate.formats.task_format import load_format
from datacreate.locking import MACHINE, locked
from datacreate.runs.directory import RunDirectory
from datacreate.runs.formatting_examples import examples_in_file
from datacreate.runs.validated_rows import read_rows
from datacreate.selection.embeddings import SentenceEmbedder
from datacreate.sweep.plan import load_plan
from tests.support.inprocess import run
from tests.support.making import COMMONSENSE, make

ODD = ["null", "true", "-1", "0", "1.5", "1e999", "-1e999", "NaN", "1" + 18 * "0", "1" + 5000 * "0", '""', '"x"']
ODD += [
    "[]",
    "[1]",
    "{}",
    '{"x": [1]}',
    '"\\ud800"',
    '"\\u0000"',
    "[[1], {}]",
    300 * "[" + 300 * "]",
    3000 * "[" + 3000 * "]",
]
DEEP = [start * 3000 for start in ("[", '{"a":', "- ", "a: [", "{")]
HOLE = "@hole@"


def holes(document: Any) -> Iterator[Any]:
    """Copies of a document with a hole instead of one of its values."""
    yield HOLE
    for key in document if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ():
        for inner in holes(document[key]):
            copy = document.copy()
            copy[key] = inner
            yield copy


def contents(valid: str) -> st.SearchStrategy[bytes]:
    """Random bytes, deep nesting, and the valid document with an odd value at one place."""
    try:
        texts = [json.dumps(document) for document in holes(yaml.safe_load(valid))]
    except yaml.YAMLError:
        texts = [valid]
    put = lambda text, odd: text.replace(f'"{HOLE}"', odd).encode()  # noqa: E731
    replaced = st.builds(put, st.sampled_from(texts), st.sampled_from(ODD))
    return st.one_of(st.binary(max_size=200), st.sampled_from(DEEP).map(str.encode), replaced, replaced, replaced)


def gguf_header(*values: tuple[str, tuple[int, bytes]]) -> bytes:
    """A GGUF file without tensors; a value is its kind and its bytes."""
    name = b"general.architecture"
    known = struct.pack("<Q", len(name)) + name + struct.pack("<IQ", 8, 1) + b"a"
    parts = [struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + content
             for key, (kind, content) in values]  # fmt: skip
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1 + len(parts)) + known + b"".join(parts)


def gguf_array(item: tuple[int, bytes], count: int) -> tuple[int, bytes]:
    return 9, struct.pack("<IQ", item[0], count) + item[1] * count


def gguf_files() -> st.SearchStrategy[bytes]:
    """Random bytes, truncated headers, nested arrays and values of any kind in every place."""
    numbers = [(4, struct.pack("<I", 0)), (5, struct.pack("<i", -1)), (6, struct.pack("<f", float("nan")))]
    numbers += [(7, b"\2"), (10, struct.pack("<Q", 2**64 - 1)), (8, struct.pack("<Q", 1) + b"\xff"), (99, b"")]
    values = st.recursive(st.sampled_from(numbers), lambda one: st.builds(gguf_array, one, st.integers(0, 3)))
    names = ["context_length", "embedding_length", "block_count", "attention.head_count", "attention.head_count_kv"]
    keys = st.sampled_from(["general.architecture", "general.type", *(f"a.{name}" for name in names)])
    files = st.lists(st.tuples(keys, values), max_size=6).map(lambda found: gguf_header(*found))
    cut = st.builds(lambda file, size: file[:size], files, st.integers(0, 200))
    deep = st.just(gguf_header(("a.context_length", (9, struct.pack("<IQ", 9, 1) * 1100))))
    return st.one_of(st.binary(max_size=200), files, files, cut, deep)


Reader = Callable[[Path], object]
"""Reads a folder."""

OPTIONS = "example: {a: b}\ncount: 5\nrun-dir: runs/x\nlabels: {b: [c, d]}\nnear: 0.7\nmodel: [a, b]\nengine: auto"
PLAN = "generators: [a]\nstrategies: [tree]\ncreate: {count: 5}"
CHECKPOINT = '{"model_type": "qwen2", "architectures": ["QForCausalLM"]}'
ADDRESS = '{"url": "http://a:1", "model": "m", "max_num_seqs": 4}'
ADAPTER = '{"peft_type": "LORA", "r": 8, "use_dora": false}'
SCORES = {"rows": 9, "classes": 2, "accuracy": 0.5, "accuracy_interval": [0.1, 0.9], "balanced_accuracy": 0.5}
SCORES |= {"macro_f1": 0.5, "constant": 0.5, "score": 0.1, "score_interval": [0.0, 0.5]}
SCORES |= {"degenerate": False, "above_chance": True, "predicted": {"a": 9}}


def read_run(folder: Path) -> None:
    run = RunDirectory(folder)
    print_json(run.read_config().model_dump(mode="json"))
    print_json([run.summary(), *run.examples()])


def take_lock(folder: Path) -> None:
    with locked(folder):
        pass


def read_options(folder: Path) -> None:
    ended = run("create", "--config", folder / "options.yaml", "--dry-run")
    if ended.code:
        raise DatacreateError(ended.failure)


def shipped(*parts: str) -> str:
    return files.shipped(*parts).read_text(encoding="utf-8")


READERS: dict[str, tuple[str, str | st.SearchStrategy[bytes], Reader]] = {
    "example": ("example.json", json.dumps(COMMONSENSE), lambda at: examples_in_file(at / "example.json")),
    "format": (
        "format.json",
        shipped("schemas", "multiple_choice.json"),
        lambda at: load_format(str(at / "format.json")),
    ),
    "rows": ("rows.jsonl", json.dumps(COMMONSENSE), lambda at: list(read_rows(at / "rows.jsonl").read())),
    "plan": ("plan.yaml", PLAN, lambda at: load_plan(str(at / "plan.yaml"))),
    "preset": (
        "mine.yaml",
        shipped("models", "qwen2.5-coder-0.5b-instruct.yaml"),
        lambda at: read_preset(at / "mine.yaml"),
    ),
    "checkpoint": ("config.json", CHECKPOINT, lambda at: resolve(str(at), "instruct")),
    "adapter": ("adapter_config.json", ADAPTER, read_adapter),
    "gguf": ("model.gguf", gguf_files(), lambda at: read_gguf(at / "model.gguf")),
    "options": ("options.yaml", OPTIONS, read_options),
    "lock": (".lock", st.binary(max_size=99) | st.just(f"process 1\n{MACHINE}\nab\n".encode()), take_lock),
    "address": ("1.json", ADDRESS, lambda at: RemoteServers([str(at)]).addresses()),
    "scores": ("evaluation.json", json.dumps({"scores": SCORES}), read_evaluation),
    "predictions": (
        "predictions.jsonl",
        '{"row": 0, "label": "a", "predicted": "b", "correct": false, "scores": [0.5]}',
        read_predictions,
    ),
    "training": ("training.json", "{}", read_training),
    "model": ("model.json", "{}", read_model),
    "manifest": (
        "benchmarks/csqa/manifest.json",
        '{"name": "csqa", "splits": {}, "when": "2026", "datacreate": "0.1.0"}',
        lambda at: read_split(find_benchmark("csqa"), "test"),
    ),
}
"""What is read -> file; a valid or nearly valid content, or a strategy for contents; reader."""


@pytest.mark.parametrize("name", [*READERS, "run", "log"])
def test_every_content_is_read_or_one_line(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name in ("run", "log"):
        make(tmp_path, model, count=4)
        path, read = tmp_path / {"run": "config.json", "log": "log.jsonl"}[name], read_run
        valid: str | st.SearchStrategy[bytes] = path.read_text(encoding="utf-8")
    else:
        if name == "checkpoint":
            shutil.copytree(model, tmp_path, dirs_exist_ok=True)
        file, valid, read = READERS[name]
        path = tmp_path / file
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    monkeypatch.setenv("DATACREATE_HOME", str(tmp_path))
    monkeypatch.setattr(locking, "sleep", lambda _: None)

    @settings(max_examples=25, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(contents(valid) if isinstance(valid, str) else valid)
    def check(content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        try:
            read(tmp_path)
        except DatacreateError as error:
            message = str(error)
            if message.splitlines() != [message]:
                raise AssertionError(message) from error

    check()


@pytest.mark.parametrize("kind", ["link to nothing", "pipe", "folder"])
def test_a_lock_that_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    lock = tmp_path / "run" / ".lock"
    lock.parent.mkdir()
    lock.symlink_to("nowhere") if kind == "link to nothing" else os.mkfifo(lock) if kind == "pipe" else lock.mkdir()
    with pytest.raises(StorageError, match=r"link is there|regular file"), RunDirectory(tmp_path / "run").locked():
        pass


def test_an_embedding_model_that_does_not_load_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"does not load .* restore it, or choose another --embedding-model"):
        SentenceEmbedder(tmp_path).encode(["a"])
