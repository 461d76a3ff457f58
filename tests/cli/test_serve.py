"""`datacreate serve`: invalid settings are refused before a model loads; servers register while they are ready."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from datacreate import hardware
from datacreate.checkpoints.checkpoint import resolve
from datacreate.engines import EngineOptions, factory
from datacreate.engines.engine import ServerCommand, Workload
from datacreate.engines.factory import LocalModel, start_shared_server
from datacreate.engines.llamacpp import LLAMACPP
from datacreate.engines.server_sources import Address, LocalServer, RemoteServers
from datacreate.engines.vllm import VLLM
from datacreate.errors import EngineError, ServersUnavailable
from tests.engines.helpers import make
from tests.support.inprocess import typed
from tests.support.process import ROOT
from tests.support.servers import until


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--host", "192.0.2.7"], "--host 192.0.2.7 --port 0: "),
        (["--", "--port", "8000"], "--port: datacreate sets this option of vLLM; remove it"),
        (["--", "--served_model_name=x"], "--served_model_name=x: datacreate sets this option of vLLM; remove it"),
        (["--", "--ssl-keyfile", "key.pem"], "--ssl-keyfile: datacreate sets this option of vLLM; remove it"),
        (["--max-num-seqs", "-1"], "--max-num-seqs -1: "),
        (["--engine", "llamacpp", "--dtype", "float16"], "--dtype: llama.cpp has no such setting"),
        (["--engine", "llamacpp", "--", "--seed", "1"], "--seed: llama.cpp's server accepts no"),
    ],
)
def test_invalid_settings_are_one_line(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    if words[0] == "--":  # for vLLM's server
        monkeypatch.setattr(factory, "choose_engine", lambda *_: VLLM)
        monkeypatch.setattr(factory, "make_server_commands", lambda *_, **__: pytest.fail("the model is converted"))
    ended = typed("serve", "--model", str(tiny_gguf), *words)
    assert (ended.code, says in ended.failure) == (2, True), ended.err
    assert "starting llama.cpp" not in ended.err


def test_a_used_port_and_an_invalid_key_are_refused(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        ended = typed("serve", "--model", str(tiny_gguf), "--port", str(used.getsockname()[1]))
    assert (ended.code, "Address already in use" in ended.failure) == (2, True)
    monkeypatch.setenv("DATACREATE_API_KEY", "two\nlines")
    assert "$DATACREATE_API_KEY has a space" in typed("serve", "--model", str(tiny_gguf)).failure


def test_the_engine_is_that_of_a_small_run(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with bfloat16, where both engines suit, llama.cpp starts in seconds."""
    monkeypatch.setattr(VLLM, "build", lambda: "cpu")
    monkeypatch.setattr(LLAMACPP, "build", lambda: "llamacpp")
    monkeypatch.setattr(hardware, "cpu_flags", lambda: frozenset({"avx512_bf16"}))

    def commands(model: LocalModel, work: Workload) -> None:
        raise EngineError(f"chosen: {model.options.engine}")

    monkeypatch.setattr(factory, "make_server_commands", commands)
    assert typed("serve", "--model", str(tiny_gguf)).failure.endswith("chosen: llamacpp")


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

Serving = Callable[..., AbstractContextManager[LocalServer]]


@pytest.fixture
def serving_script(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """`start_shared_server` with a Python script as the server, registered in tmp_path/servers."""

    def start(script: str, *more: str, host: str = "127.0.0.1") -> AbstractContextManager[LocalServer]:
        monkeypatch.setattr(factory, "choose_engine", lambda *_: VLLM)
        command = ServerCommand(VLLM, "tiny", (sys.executable, "-c", script), {}, 4)
        monkeypatch.setattr(factory, "make_server_commands", lambda *_, **__: [command])
        checkpoint = resolve(str(tiny_gguf), "instruct")
        address = {"host": host, "register_dir": tmp_path / "servers"}
        return start_shared_server(checkpoint, EngineOptions(), more, lambda _: None, **address)

    return start


def test_a_server_is_registered_while_it_is_ready(serving_script: Serving, tmp_path: Path) -> None:
    with serving_script(_SERVER, "--data-parallel-size=3") as server:
        [found] = RemoteServers([str(tmp_path / "servers")]).addresses()
        assert found == Address(url=server.address.url, max_num_seqs=12)
        with suppress(OSError):
            urlopen(f"{found.url}/die")
        with pytest.raises(ServersUnavailable, match=r"ended \(exit code 3\).*run the same command"):
            server.wait()
    assert list((tmp_path / "servers").iterdir()) == []


def test_a_server_for_other_machines_registers_a_key_that_only_its_owner_can_read(
    serving_script: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATACREATE_API_KEY", raising=False)
    folder, started = tmp_path / "servers", tmp_path / "started"
    script = f"import os; open({str(started)!r}, 'w').write(os.environ['VLLM_API_KEY']){_SERVER}"
    with serving_script(script, host="0.0.0.0") as server:
        [path] = folder.iterdir()
        [found] = RemoteServers([str(folder)]).addresses()
        assert (path.stat().st_mode & 0o777, len(found.key) > 30) == (0o600, True)
        assert found.key == started.read_text()
        assert found.key not in f"{found} {found!r} {server.address!r}"
        monkeypatch.setenv("DATACREATE_API_KEY", "that-of-other-servers")
        assert [each.key for each in RemoteServers([str(folder)]).addresses()] == [found.key]
    with serving_script(_SERVER, host="0.0.0.0"):  # with a key of the user
        [path] = folder.iterdir()
        assert "key" not in path.read_text()


def test_a_server_that_ends_at_its_start_is_not_registered(serving_script: Serving, tmp_path: Path) -> None:
    says = r"vLLM server for tiny ended \(exit code 1\)"
    with pytest.raises(EngineError, match=says), serving_script("raise SystemExit(1)"):
        raise AssertionError("it is not ready")
    assert list((tmp_path / "servers").iterdir()) == []


@pytest.mark.skipif(not LLAMACPP.build(), reason="llama.cpp (xllamacpp) is not installed here")
def test_a_run_uses_a_registered_server_and_sigterm_stops_it(
    tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATACREATE_API_KEY", "sesame-4711")
    folder = tmp_path / "servers"
    words = ["--model", tiny_gguf, "--engine", "llamacpp", "--max-num-seqs", 4, "--register-dir", folder]
    command = [sys.executable, "-m", "datacreate", "serve", *map(str, words)]
    with (tmp_path / "log").open("wb") as log:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: bool(list(folder.glob("*.json"))) or process.poll() is not None, 120)
        assert process.poll() is None, (tmp_path / "log").read_text()
        make(tmp_path / "run", str(folder), count=10, num_examples=2, max_num_seqs=None)
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 75
        assert list(folder.iterdir()) == []
        assert not any(each.is_running() for each in below)
        said = (tmp_path / "log").read_text()
        assert ("stopped by a signal" in said, "resume" in said) == (True, False)
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "log").read_text().endswith("datacreate: stopped by a signal\n")
    for path in (tmp_path / "log", *(tmp_path / "run").iterdir()):
        assert b"sesame" not in path.read_bytes()
