"""`datacreate serve`, as far as it goes without a model: what is wrong is told before anything loads."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from datacreate import serve
from datacreate.checkpoints import resolve
from datacreate.engines.addresses import Address, Addresses
from datacreate.engines.local import ServerCommand
from datacreate.engines.settings import EngineOptions
from datacreate.errors import EngineError, ServersGone, UsageError
from datacreate.hardware import has_llamacpp
from datacreate.serve import Endpoint, serving, wait
from datacreate.signals import Signals
from tests.engines.asking import is_exact, make
from tests.inprocess import typed
from tests.process import ROOT
from tests.servers import until
from tests.tiny_model import write_gguf


@pytest.fixture
def gguf(tmp_path: Path) -> str:
    return str(write_gguf(tmp_path / "tiny.gguf"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "192.0.2.7"], "--host 192.0.2.7 --port 0: "),
        (["--", "--port", "8000"], "--port: datacreate sets this argument"),
        (["--", "--served_model_name=x"], "--served_model_name=x: datacreate sets this argument"),
        (["--", "--ssl-keyfile", "key.pem"], "datacreate serves without TLS"),
        (["--", "--data-parallel-size", "none"], "--data-parallel-size none: use a number of copies"),
        (["--max-num-seqs", "-1"], "--max-num-seqs -1: "),
        (["--engine", "llamacpp", "--block-size", "16"], "--block-size: only vLLM has that setting"),
        (["--engine", "llamacpp", "--", "--seed", "1"], "--seed: only vLLM's server accepts"),
    ],
)
def test_what_cannot_be_is_one_line(gguf: str, words: list[str], says: str) -> None:
    ended = typed("serve", "--model", gguf, *words)
    assert (ended.code, says in ended.failure) == (2, True), ended.err
    assert "starting llama.cpp" not in ended.err


def test_a_port_that_somebody_has_and_a_key_that_cannot_be_sent(
    gguf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = typed("serve", "--model", gguf, "--port", str(taken.getsockname()[1]))
    assert (ended.code, "Address already in use" in ended.failure) == (2, True)
    monkeypatch.setenv("DATACREATE_API_KEY", "two\nlines")
    assert "$DATACREATE_API_KEY contains" in typed("serve", "--model", gguf).failure


_SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        os._exit(3) if self.path == "/die" else None
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def command(script: str) -> ServerCommand:
    """A server of a model as far as HTTP goes."""
    return ServerCommand("llama.cpp", "tiny", (sys.executable, "-c", script), {}, 4)


def test_an_address_is_published_while_the_server_is_ready_and_an_end_is_resumable(
    gguf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "server_command", lambda *_: command(_SERVER))
    folder = tmp_path / "run" / "servers"
    endpoint = Endpoint(register_dir=folder)
    more = ["--data-parallel-size=3"]
    with serving(
        resolve(gguf, "instruct"), EngineOptions(), endpoint, more, Signals(), lambda _: None
    ) as server:
        [found] = Addresses([str(folder)]).now()
        assert found == Address(url=server.address.url, model="tiny", max_num_seqs=12)
        with suppress(OSError):
            urlopen(f"{found.url}/die")
        with pytest.raises(ServersGone, match=r"ended \(exit code 3\).*run the same command"):
            wait(server)
    assert not list(folder.iterdir())


def test_a_server_that_ends_before_it_is_ready_publishes_nothing(
    gguf: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "server_command", lambda *_: command("raise SystemExit(1)"))
    endpoint = Endpoint(register_dir=tmp_path / "servers")
    with (
        pytest.raises(EngineError, match=r"llama.cpp server for tiny ended \(exit code 1\)"),
        serving(resolve(gguf, "instruct"), EngineOptions(), endpoint, (), Signals(), lambda _: None),
    ):
        raise AssertionError("it is not ready")
    assert list((tmp_path / "servers").iterdir()) == []


def test_unreadable_files_of_a_folder_are_nobody(tmp_path: Path) -> None:
    assert Addresses([str(tmp_path / "to" / "come")]).now() == ()
    (tmp_path / "half.json").write_text('{"url": "htt')
    (tmp_path / "other.json").write_text('{"url": 3}')
    (tmp_path / "one.json").write_text(json.dumps({"url": "http://node7:8000/v1/", "max_num_seqs": 256}))
    [found] = Addresses([str(tmp_path)]).now()
    assert (found.url, found.max_num_seqs) == ("http://node7:8000", 256)
    with pytest.raises(UsageError, match="an empty address"):
        Addresses([""])


@pytest.mark.skipif(not has_llamacpp(), reason="llama.cpp (xllamacpp) is not installed here")
def test_a_server_is_published_while_it_is_ready_and_ends_with_what_it_started(
    tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATACREATE_API_KEY", "sesame-4711")
    folder = tmp_path / "servers"
    command = [sys.executable, "-m", "datacreate", "serve", "--model", str(tiny_gguf), "--engine", "llamacpp"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--max-num-seqs", "4", "--register-dir", str(folder)],
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
