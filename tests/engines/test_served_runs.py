"""Runs with remote servers: all take part, the key is used but not stored, servers register in a folder."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from itertools import count, islice
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest

from datacreate.engines import EngineOptions, server_pool
from datacreate.engines.chat_api import ChatApi
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import scoring_request
from datacreate.engines.server_sources import RemoteServers
from datacreate.errors import EngineError, ServersUnavailable, UsageError
from datacreate.runs.directory import RunDirectory
from tests.engines.helpers import Notes, answers, make
from tests.support.servers import MODEL, Server, schema_of, until


def register(folder: Path, *servers: Server, capacity: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for server in servers:
        text = json.dumps({"url": server.url, "max_num_seqs": capacity})
        (folder / f"{server.port}.json").write_text(text)


def test_every_server_gets_requests_up_to_its_capacity(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(latency=0.002)) for _ in range(3)]
        make(tmp_path / "run", *servers, count=150)
    assert all(0 < server.max_out <= 5 for server in servers)


def test_requests_have_the_sampling_and_the_record_has_the_server(tmp_path: Path, server: Server) -> None:
    changed = {"top_k": 40, "temperature": 0.7, "chat_template_kwargs": {"enable_thinking": False}}
    make(tmp_path / "run", server, **changed)
    body = server.bodies[-1]
    assert {name: body[name] for name in changed} == changed
    assert schema_of(body)["type"] == "array"
    # A setting without a value is sent as neutral: the server's default must not apply.
    assert (body["top_p"], body["min_p"], body["repetition_penalty"]) == (1.0, 0.0, 1.0)
    config = RunDirectory(tmp_path / "run").read_config()
    assert (config.spec.model, config.spec.model_sha256) == (MODEL, f"served as {MODEL}")
    assert config.engines["engine"]["urls"] == [server.url]
    assert "its weights were not checked" in (tmp_path / "run" / "README.md").read_text()


def test_a_model_can_be_named_by_the_folder_it_was_loaded_from(tmp_path: Path, server: Server) -> None:
    make(tmp_path / "run", server, model=f"/models/{MODEL}")
    assert server.bodies[-1]["model"] == MODEL


def test_a_key_is_sent_and_not_stored(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = "sesame-4711"
    monkeypatch.delenv("DATACREATE_API_KEY", raising=False)
    with pytest.raises(EngineError, match=r"access denied .*\$DATACREATE_API_KEY"):
        make(tmp_path / "run", server)
    monkeypatch.setenv("DATACREATE_API_KEY", server.key)
    make(tmp_path / "run", server)
    for path in (tmp_path / "run").iterdir():
        assert b"sesame" not in path.read_bytes()


def test_a_registered_key_is_sent_and_not_stored(tmp_path: Path, server: Server, other: Server) -> None:
    folder = tmp_path / "servers"
    folder.mkdir()
    for number, each in enumerate((server, other)):
        each.key = f"sesame-{number}"
        (folder / f"{number}.json").write_text(json.dumps({"url": each.url, "key": each.key}))
    make(tmp_path / "run", str(folder), servers=2)
    assert server.answered
    assert other.answered
    assert not any(b"sesame" in path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file())


def test_a_server_that_registers_later_is_used(tmp_path: Path, server: Server, other: Server) -> None:
    folder = tmp_path / "run" / "servers"

    def add_other(number: int) -> None:
        if number == 10:
            register(folder, other, capacity=2)
        if number == 11:
            until(lambda: other.requests["/v1/models"] > 0)

    server.on_answer = add_other
    register(folder, server, capacity=2)
    make(tmp_path / "run", str(folder), max_num_seqs=None, count=300)
    assert other.answered > 0
    assert server.max_out <= 3


def test_connections_to_a_server_that_left_are_closed(
    tmp_path: Path, server: Server, other: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_pool, "_SCAN_SECONDS", 0.05)
    folder = tmp_path / "servers"
    register(folder, server, other, capacity=8)
    server.latency = other.latency = 0.05
    requests = (
        scoring_request(number, [{"role": "user", "content": "Answer with the letter A."}], ("A", "B"))
        for number in count(1)
    )

    def connections() -> int:
        found = psutil.Process().net_connections("tcp")
        return sum(bool(each.raddr) and each.raddr.port == other.port for each in found)

    options = EngineOptions(url=(str(folder),), servers=2)
    with closing(ModelClient(RemoteServers(options.url), ChatApi((MODEL,)), options)) as client:
        answers(client, *islice(requests, 12))
        (folder / f"{other.port}.json").unlink()
        other.stop()
        assert connections() > 3
        answers(client, *islice(requests, 4))
        until(lambda: not connections())


def test_the_run_waits_for_the_number_of_servers(tmp_path: Path, server: Server, other: Server) -> None:
    folder = tmp_path / "servers"
    server.on_models = lambda number: register(folder, other, capacity=40) if number == 1 else None
    starting = Thread(target=register, args=(folder, server), kwargs={"capacity": 40})
    notes = Notes()
    notes.on_message = lambda text: starting.start() if "waiting up to" in text else None
    make(tmp_path / "run", str(folder), notes=notes, max_num_seqs=None, model=MODEL, servers=2, count=600)
    assert RunDirectory(tmp_path / "run").read_config().spec.concurrency > 40
    assert other.answered


def test_an_empty_folder_is_an_error_after_the_wait(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    notes = Notes()
    with pytest.raises(ServersUnavailable, match=r"no server at .*servers"):
        make(tmp_path / "run", str(tmp_path / "servers"), notes=notes, wait=0.1)
    assert notes.has("waiting up to")


def test_unreadable_files_of_a_folder_are_ignored(tmp_path: Path) -> None:
    assert RemoteServers([str(tmp_path / "not" / "yet")]).addresses() == ()
    (tmp_path / "half.json").write_text('{"url": "htt')
    (tmp_path / "other.json").write_text('{"url": 3}')
    (tmp_path / "one.json").write_text(json.dumps({"url": "http://node7:8000/v1/", "max_num_seqs": 256}))
    [found] = RemoteServers([str(tmp_path)]).addresses()
    assert (found.url, found.max_num_seqs) == ("http://node7:8000", 256)


def test_each_of_several_models_has_its_servers(tmp_path: Path, server: Server) -> None:
    with Server(model="second") as other:
        make(tmp_path / "run", server, other, model=(MODEL, "second"))
    assert {body["model"] for body in server.bodies} == {MODEL}
    assert {body["model"] for body in other.bodies} == {"second"}


HOST = "http://host:1"


@pytest.mark.parametrize(
    ("urls", "settings", "says"),
    [
        ("", {}, r"--url \(empty\): neither an address nor a folder; write it as http://HOST:PORT"),
        ("somewhere", {}, "neither an address nor a folder"),
        ("http://me:pass@host:1", {}, r"\$DATACREATE_API_KEY"),
        ("http://host:99999", {}, "neither an address nor a folder"),
        (HOST, {"engine": "vllm"}, "--engine: remote servers have loaded their models"),
        (HOST, {"dtype": "bfloat16"}, "--dtype: remote servers have loaded their models"),
        (HOST, {"request_timeout": float("inf")}, "--request-timeout inf: give a num"),
        (HOST, {"request_timeout": float("nan")}, "--request-timeout nan: give a num"),
    ],
)
def test_invalid_settings_are_one_line(tmp_path: Path, urls: str | None, settings: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        make(tmp_path / "run", *([] if urls is None else [urls]), max_num_seqs=None, **settings)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("key", ["open\nsesame", "öffne dich", "sesame street"])
def test_a_key_that_cannot_be_sent_is_one_line(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("DATACREATE_API_KEY", key)
    says = r"\$DATACREATE_API_KEY has a space, a line break or a non-ASCII"
    with pytest.raises(UsageError, match=says) as refused:
        make(tmp_path / "run", server)
    assert key not in str(refused.value)
