"""Servers that a run starts: they answer, are restarted once, and stop with the run."""

from __future__ import annotations

import errno
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import pytest

from datacreate.checkpoints.checkpoint import resolve
from datacreate.engines import EngineOptions, server, server_pool, server_sources
from datacreate.engines.chat_api import ChatApi
from datacreate.engines.engine import Engine, ServerCommand
from datacreate.engines.factory import LocalModel, make_client
from datacreate.engines.llamacpp import LLAMACPP
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import Request, Sampling, scoring_request
from datacreate.engines.server_sources import Address, LocalServers, RemoteServers
from datacreate.engines.vllm import VLLM
from datacreate.errors import EngineError, ServersUnavailable, StorageError
from tests.engines.helpers import MESSAGES, Notes, answers, failed_requests, make
from tests.support.making import COMMONSENSE
from tests.support.process import ROOT
from tests.support.servers import MODEL, Server, until
from tests.support.tiny_model import write_gguf, write_safetensors

needs_llamacpp = pytest.mark.skipif(not LLAMACPP.build(), reason="llama.cpp (xllamacpp) is not installed here")


def servers_of(pid: int) -> list[psutil.Process]:
    """The llama.cpp servers among the descendants of a process, without their supervisors."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if process.cmdline()[1:3] == ["-m", "datacreate.engines.llamacpp"]:
                found.append(process)
    return found


def make_local(run_dir: Path, model: Path, notes: Notes, count: int = 30) -> None:
    settings = {"engine": "llamacpp", "num_examples": 2, "concurrency": 4}
    make(run_dir, model=str(model), notes=notes, count=count, **settings)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("llamacpp", marks=needs_llamacpp),
        pytest.param(
            "vllm", marks=[pytest.mark.model, pytest.mark.skipif(not VLLM.build(), reason="vLLM is not installed")]
        ),
    ],
)
def test_a_local_server_follows_schemas_and_scores_choices(tiny_gguf: Path, tmp_path: Path, kind: Any) -> None:
    options: dict[str, Any] = {"max_num_seqs": 2, "max_model_len": 1024}
    options |= {"enforce_eager": True, "replicas": 1} if kind == "vllm" else {}
    model = write_safetensors(tmp_path / "tiny") if kind == "vllm" else tiny_gguf
    checkpoint = resolve(str(model), "instruct")
    local = LocalModel(checkpoint, EngineOptions(engine=kind, **options))
    client = make_client(local, count=5, log=tmp_path / "log")
    item = {"prefixItems": [{"const": "a b"}, {"enum": [1, 2]}]}
    schema = {"type": "array", **item, "minItems": 2, "maxItems": 2}
    with closing(client):
        client.start()
        assert (client.slots, client.max_in_flight, client.max_context) == (2, 3, 1024)  # one waits in the queue
        assert 10 < client.count_tokens(MESSAGES) < 100
        assert not client.needs_letters(["yes", "no"])
        assert client.needs_letters(["yes", "yes"])
        write = Request(1, MESSAGES, json.dumps(schema), Sampling(max_tokens=50))
        written, scored = answers(client, write, scoring_request(-2, MESSAGES, ("A", "B", "C")))
    assert json.loads(written.text) in (["a b", 1], ["a b", 2])
    assert written.generated_tokens > 0
    assert sum(scored.scores) == pytest.approx(1)
    assert len(set(scored.scores)) == 3
    assert servers_of(os.getpid()) == []


@needs_llamacpp
def test_a_server_that_is_killed_is_restarted_and_nothing_is_lost(
    tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[psutil.Process] = []
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))  # for the folder of the saved slots

    def kill_once() -> None:
        if not killed:
            killed.extend(servers_of(os.getpid()))
            killed[0].kill()

    notes = Notes(kill_once)
    make_local(tmp_path / "run", tiny_gguf, notes)
    assert len(killed) == 1
    assert notes.has("llama.cpp server for tiny ended", "restarted", "are repeated")
    assert list(temporary.iterdir()) == []
    assert failed_requests(tmp_path / "run") == 0
    assert servers_of(os.getpid()) == []


def test_a_local_server_is_waited_for_longer_than_others(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """It loads its model again."""
    monkeypatch.setattr(server_pool, "_REMOTE_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(server_pool, "_FIRST_PAUSE_SECONDS", 0.01)

    class Alive(RemoteServers):
        remote = False

    request = scoring_request(1, [{"role": "user", "content": "Answer with the letter A."}], ("A", "B"))
    with closing(ModelClient(Alive([server.url]), ChatApi((MODEL,)), EngineOptions())) as client:
        client.start()
        server.stop()
        client.submit(request)
        assert not any(client.poll(0.1) for _ in range(6))
        server.start_again()
        until(lambda: bool(client.poll(0.1)))


def test_others_answer_while_a_local_server_is_restarted(
    server: Server, other: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_pool, "_FIRST_PAUSE_SECONDS", 0.01)
    answered: list[int] = []

    class SlowlyRestarted(RemoteServers):
        remote = False

        def is_broken(self, url: str, times_hung: int) -> bool:
            return url == server.url and server.stopping.is_set()

        def repair(self, url: str) -> str:
            before = len(answered)
            until(lambda: len(answered) >= before + 20)
            server.start_again()
            return "restarted"

    notes = Notes()
    schema = json.dumps({"type": "array", "prefixItems": [{"const": "a"}] * 2, "minItems": 2, "maxItems": 2})
    source = SlowlyRestarted([server.url, other.url])
    with closing(ModelClient(source, ChatApi((MODEL,)), EngineOptions(max_num_seqs=2), notes.notify)) as client:
        client.start()
        server.on_answer = lambda number: server.stop() if number == 1 else None
        for number in range(10_000):
            client.submit(Request(number, MESSAGES, schema, Sampling(max_tokens=10)))
            while number + 1 - len(answered) >= 10:  # as many are in flight
                answered += [each.request_id for each in client.poll(10.0)]
            if notes.has("available again"):
                break
    assert notes.messages == ["restarted", f"{server.url}: available again"]


@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (StorageError("engine.log: disk full"), StorageError, "disk full"),
        (
            OSError(errno.EAGAIN, "No processes"),
            ServersUnavailable,
            r"cannot be restarted \(No processes\); run the same",
        ),
        (RuntimeError("a bug"), RuntimeError, "a bug"),
    ],
)
def test_an_error_at_a_restart_stops_the_run(
    server: Server, error: Exception, raised: type[Exception], says: str
) -> None:
    class NotRestarted(RemoteServers):
        remote = False

        def is_broken(self, url: str, times_hung: int) -> bool:
            return server.stopping.is_set()

        def repair(self, url: str) -> str:
            raise error

    request = scoring_request(1, [{"role": "user", "content": "Answer with the letter A."}], ("A", "B"))
    with closing(ModelClient(NotRestarted([server.url]), ChatApi((MODEL,)), EngineOptions())) as client:
        client.start()
        server.stop()
        client.submit(request)
        with pytest.raises(raised, match=says):
            until(lambda: bool(client.poll(0.1)))


def scripted_servers(log: Path, count: int = 1, first_line: str = "") -> LocalServers:
    """Servers in processes of their own, whose programs begin with this line."""
    program = (
        f"{first_line}\nimport sys, threading; from tests.support.servers import Server\n"
        "with Server(port=int(sys.argv[-1]), page=b'healthy'): threading.Event().wait()"
    )
    environment = {"PYTHONPATH": str(ROOT)}
    command = ServerCommand(Engine(), MODEL, (sys.executable, "-c", program), environment, slots=1)
    return LocalServers(lambda: [command] * count, log, lambda _: None)


def child_processes() -> set[psutil.Process]:
    """The children of this process: supervisors of servers, and perhaps what earlier tests have started."""
    return {*psutil.Process().children()}


def process_at(url: str) -> psutil.Process:
    """The process of a scripted server, without its supervisor."""
    port, processes = url.rpartition(":")[2], psutil.Process().children(recursive=True)
    [found] = (each for each in processes if each.cmdline()[1] == "-c" and each.cmdline()[-1] == port)
    return found


def test_a_server_that_is_slow_once_after_a_restart_is_used_again(tmp_path: Path) -> None:
    others = child_processes()
    notes = Notes()
    servers = scripted_servers(tmp_path / "log")
    schema = json.dumps({"type": "array", "prefixItems": [{"const": "a"}] * 2, "minItems": 2, "maxItems": 2})
    options = EngineOptions(request_timeout=1.0)
    with closing(ModelClient(servers, ChatApi((MODEL,)), options, notes.notify)) as client:
        client.start()
        [address] = servers.addresses()
        process_at(address.url).kill()
        answers(client, Request(1, MESSAGES, schema, Sampling(max_tokens=10)))
        assert notes.messages.pop() == f"{address.url}: available again"
        assert "restarted, its unanswered requests" in notes.messages.pop()
        notes.messages.clear()
        process = process_at(address.url)
        notes.on_message = lambda _: process.resume()
        process.suspend()
        until(lambda: process.status() == psutil.STATUS_STOPPED)
        answers(client, Request(2, MESSAGES, schema, Sampling(max_tokens=10)))
        assert process.is_running()
    slow = f"{address.url}: no response in 1 s; suspended until it answers"
    assert notes.messages == [slow, f"{address.url}: available again"]
    assert child_processes() <= others


@pytest.mark.parametrize(
    ("url", "has_gpu", "seconds"),
    [("http://127.0.0.1:1", False, 1800.0), ("http://127.0.0.1:1", True, 300.0), ("http://node7:1", False, 300.0)],
)
def test_a_server_on_a_cpu_has_more_time_for_a_response(
    monkeypatch: pytest.MonkeyPatch, url: str, has_gpu: bool, seconds: float
) -> None:
    monkeypatch.setattr(server, "has_gpu", lambda: has_gpu)
    tls = ssl.create_default_context()
    made = server.Server(Address(url=url), ChatApi((MODEL,)), tls, EngineOptions(), is_remote=True)
    assert made.request_seconds == seconds


def test_the_only_server_that_hangs_after_its_restart_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_pool, "_FIRST_PAUSE_SECONDS", 0.01)
    hangs, others = tmp_path / "hangs", child_processes()
    silent = f"servers.Server._fault = lambda *_: servers.silent if Path({str(hangs)!r}).exists() else None"
    servers = scripted_servers(
        tmp_path / "log", first_line=f"from pathlib import Path; from tests.support import servers; {silent}"
    )
    options = EngineOptions().model_copy(update={"request_timeout": 0.5})
    with closing(ModelClient(servers, ChatApi((MODEL,)), options)) as client:
        client.start()
        hangs.touch()
        client.submit(Request(1, MESSAGES, json.dumps({"type": "array"}), Sampling(max_tokens=10)))
        says = r"which this command started, does not answer in time .*; it failed again after a restart; run the same"
        with pytest.raises(ServersUnavailable, match=says):
            until(lambda: bool(client.poll(0.1)), 60)
    assert child_processes() <= others


def test_requests_are_answered_while_a_folder_of_servers_is_read_slowly(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_pool, "_SCAN_SECONDS", 0.01)
    is_ready, reading, is_answered = Event(), Event(), Event()

    class SlowFolder(RemoteServers):
        def addresses(self) -> tuple[Address, ...]:
            if is_ready.is_set():
                reading.set()
                assert is_answered.wait(20)
            return super().addresses()

    with closing(ModelClient(SlowFolder([server.url, str(tmp_path)]), ChatApi((MODEL,)), EngineOptions())) as client:
        client.start()
        is_ready.set()
        assert reading.wait(20)
        client.submit(scoring_request(1, [{"role": "user", "content": "Answer with the letter A."}], ("A", "B")))
        until(lambda: bool(client.poll(0.1)))
        is_answered.set()


def test_no_server_is_left_if_some_are_being_restarted_when_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They ignore SIGTERM, so each takes the whole grace period to stop; all together take no longer."""
    monkeypatch.setattr(server_sources, "_GRACE_SECONDS", 2.0)
    others = child_processes()
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    servers = scripted_servers(tmp_path / "log", 3, ignore)
    servers.start()
    told: list[str | None] = []
    repairs = [Thread(target=lambda url=each.url: told.append(servers.repair(url))) for each in servers.addresses()]
    for repair in repairs:
        repair.start()
    time.sleep(0.2)
    began = time.monotonic()
    servers.stop()
    assert time.monotonic() - began < 5
    for repair in repairs:
        repair.join()
    assert told == [None] * 3
    assert child_processes() <= others


@needs_llamacpp
def test_a_server_that_is_killed_twice_stops_the_run_resumable(tmp_path: Path, tiny_gguf: Path) -> None:
    notes = Notes(lambda: [server.kill() for server in servers_of(os.getpid())])
    says = r"ended \(exit code -9\): .*; it failed again after a restart; run the same command"
    with pytest.raises(ServersUnavailable, match=says):
        make_local(tmp_path / "run", tiny_gguf, notes, count=1000)
    assert servers_of(os.getpid()) == []


@needs_llamacpp
def test_a_server_that_cannot_start_is_one_line_with_its_last_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    damaged = write_gguf(tmp_path / "damaged.gguf", without="blk.1.attn_k.weight")
    says = r"llama.cpp server for damaged ended \(exit code 1\): .*tensor 'blk\.1\.attn_k\.weight' not found"
    with pytest.raises(EngineError, match=says) as refused:
        make_local(tmp_path / "run", damaged, Notes())
    assert "\n" not in str(refused.value)
    assert Path(str(refused.value).rpartition("its log is ")[2]).is_file()
    checkpoint = resolve(str(damaged), "instruct")  # also without a run directory the log is kept
    client = make_client(LocalModel(checkpoint, EngineOptions(engine="llamacpp")), count=5)
    with closing(client), pytest.raises(EngineError, match=says) as refused:
        client.start()
    assert Path(str(refused.value).rpartition("its log is ")[2]).is_file()


@needs_llamacpp
def test_concurrent_runs_have_their_own_servers_which_stop_with_them(tmp_path: Path, tiny_gguf: Path) -> None:
    (tmp_path / "example.json").write_text(json.dumps(COMMONSENSE))
    words = ["create", "--example", tmp_path / "example.json", "--count", "100000", "--model", tiny_gguf]
    words += ["--engine", "llamacpp", "--max-num-seqs", "4", "--num-examples", "2", "--verify", "off"]
    runs: list[subprocess.Popen[bytes]] = []
    logs = [tmp_path / name / "log.jsonl" for name in ("first", "second")]
    try:
        for log in logs:
            command = [sys.executable, "-m", "datacreate", *map(str, words), "--run-dir", str(log.parent)]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            with log.parent.with_suffix(".err").open("wb") as err:
                runs.append(subprocess.Popen(command, env=environment, stderr=err, stdout=subprocess.DEVNULL))
        until(lambda: all(log.exists() and b'"request"' in log.read_bytes() for log in logs), 120)
        lines = [server.cmdline() for run in runs for server in servers_of(run.pid)]
        below = [psutil.Process(run.pid).children(recursive=True) for run in runs]
        assert len({line[line.index("--port") + 1] for line in lines}) == 2
        runs[0].kill()  # kill -9
        _, alive = psutil.wait_procs(below[0], timeout=10)
        assert alive == []
        runs[1].send_signal(signal.SIGTERM)
        assert runs[1].wait(60) == 75
        assert not any(process.is_running() for process in below[1])
        assert b"run the same command" in (tmp_path / "second.err").read_bytes()
    finally:
        for run in runs:
            run.kill()
            run.wait()
