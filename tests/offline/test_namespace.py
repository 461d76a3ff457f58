"""The whole chain on a real model where there is no network: in a namespace of its own, without an interface.

What the guard of Python's sockets cannot see (native code's) has nothing to reach here either.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from datacreate.checkpoints import resolve
from tests.finetuning.conftest import import_rows, save_encoder
from tests.finetuning.sets import choices
from tests.offline.guarding import Guarded, unset
from tests.process import ROOT

MODEL = "qwen2.5-coder-0.5b-instruct"
INTERFACES = [sys.executable, str(Path(__file__).with_name("interfaces.py"))]


@pytest.fixture(scope="module")
def namespace() -> list[str]:
    """What puts a command into a network namespace of its own; skips where the kernel forbids it."""
    if shutil.which("unshare") is None:
        pytest.skip("no command `unshare` here (util-linux)")
    command = ["unshare", "-n" if os.geteuid() == 0 else "-rn", "--"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"the kernel forbids a network namespace: {tried.stderr.strip()}")
    return command


def up(namespace: list[str], *arguments: str) -> dict[str, bool]:
    done = subprocess.run([*namespace, *INTERFACES, *arguments], capture_output=True, text=True, check=True)
    found: dict[str, bool] = json.loads(done.stdout)
    return found


def test_the_namespace_has_no_interface_that_is_up(namespace: list[str]) -> None:
    assert not any(up(namespace).values())
    assert {name for name, is_up in up(namespace, "--loopback").items() if is_up} == {"lo"}
    ask = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    outside = [*namespace, sys.executable, "-c", ask]
    told = subprocess.run(outside, capture_output=True, text=True, check=False)
    assert "Network is unreachable" in told.stderr


@pytest.mark.model
@pytest.mark.slow
def test_create_train_evaluate_and_report_without_a_network(
    namespace: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = resolve(MODEL, "instruct").path
    home = tmp_path / "home"
    (home / "checkpoints").mkdir(parents=True)
    (home / "checkpoints" / MODEL).symlink_to(model)
    monkeypatch.setenv("DATACREATE_HOME", str(home))
    import_rows(tmp_path / "reference", "csqa", dev=choices(20, 5, 1), test=choices(20, 5, 2))
    tiny, run, trained = save_encoder(tmp_path / "tiny"), tmp_path / "run", tmp_path / "trained"
    log = tmp_path / "calls.jsonl"

    # The model is behind a server on loopback, which is up for `create`; nothing is for the rest.
    with_loopback = Guarded(log, [*namespace, *INTERFACES, "--loopback"])
    alone = Guarded(log, namespace)
    with_loopback.run(
        *("create", "--example", ROOT / "data" / "examples" / "commonsense.json", "--count", 6),
        *("--model", MODEL, "--verify", "off", "--run-dir", run, "--num-examples", 2, "--concurrency", 4),
    )
    assert len((run / "train.jsonl").read_bytes().splitlines()) == 6
    alone.run(
        *("train", run, "--encoder", tiny, "--out", trained, "--seeds", 1, "--epochs", 1),
        *("--model-selection", "none", "--learning-rates", "1e-3", "--max-length", 64),
    )
    alone.run("evaluate", trained, "--benchmark", "csqa")
    told = alone.run("report", tmp_path, "--out", tmp_path / "report")
    assert "csqa" in told.out.lower()
    assert (tmp_path / "report" / "report.html").is_file()

    assert alone.called == set()
    imported = alone.noted("import")
    assert {(line["library"], *unset(line)) for line in imported if unset(line)} == set()
