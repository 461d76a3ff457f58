"""`datacreate serve`: what is wrong is told before anything loads; a server is published while ready."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from datacreate.engines.addresses import Addresses
from datacreate.hardware import has_llamacpp
from tests.engines.asking import is_exact, make
from tests.inprocess import typed
from tests.process import ROOT
from tests.servers import until


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "192.0.2.7"], "--host 192.0.2.7 --port 0: "),
        (["--", "--port", "8000"], "--port: datacreate sets that"),
        (["--", "--served_model_name=x"], "--served_model_name=x: datacreate sets that"),
        (["--", "--ssl-keyfile", "key.pem"], "servers are asked without TLS"),
        (["--engine", "vllm", "--block-size", "-1"], "--block-size -1: "),
        (["--engine", "llamacpp", "--block-size", "16"], "--block-size: only vLLM has that setting"),
    ],
)
def test_what_cannot_be_is_one_line(model: str, words: list[str], says: str) -> None:
    ended = typed("serve", "--model", model, *words)
    assert ended.code == 2
    assert says in ended.failure
    assert "starting" not in ended.err


def test_a_port_that_somebody_has_is_told_of(model: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = typed("serve", "--model", model, "--port", str(taken.getsockname()[1]))
    assert (ended.code, "Address already in use" in ended.failure) == (2, True)


def test_unreadable_files_in_a_folder_of_servers_are_nobody(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"url": "htt')
    (tmp_path / "other.json").write_text('{"url": 3}')
    (tmp_path / "one.json").write_text(json.dumps({"url": "http://node7:8000/v1/", "max_num_seqs": 256}))
    [found] = Addresses([str(tmp_path)]).now()
    assert (found.url, found.max_num_seqs) == ("http://node7:8000", 256)


@pytest.mark.skipif(not has_llamacpp(), reason="llama.cpp (xllamacpp) is not installed here")
def test_a_server_is_published_while_it_is_ready_and_ends_with_what_it_started(
    tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATACREATE_API_KEY", "sesame-4711")
    folder = tmp_path / "servers"
    command = [sys.executable, "-m", "datacreate", "serve", "--model", str(tiny_gguf), "--engine", "llamacpp"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--max-num-seqs", "4", "--publish", str(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: bool(list(folder.glob("*.json"))) or process.poll() is not None, 120)
        assert process.poll() is None, (tmp_path / "log").read_text()
        make(tmp_path / "run", str(folder), count=10, num_examples=2, max_num_seqs=None)
        is_exact(tmp_path / "run", 10)
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
        assert list(folder.iterdir()) == []
        assert not any(each.is_running() for each in below)
    finally:
        process.kill()
        process.wait()
    for path in (tmp_path / "log", *(tmp_path / "run").iterdir()):
        assert b"sesame" not in path.read_bytes()
