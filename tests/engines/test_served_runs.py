"""Models behind servers: exactly what was asked for, from all of them, with the key, from a folder."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from datacreate.create import create
from datacreate.errors import EngineError, ServersGone, UsageError
from datacreate.runs.config import CreateConfig
from datacreate.runs.directory import RunDirectory
from tests.engines.asking import Notes, is_exact, make
from tests.inprocess import typed
from tests.making import COMMONSENSE
from tests.servers import MODEL, Server, until


def test_exactly_the_count_and_every_server_has_its_part(tmp_path: Path) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(latency=0.002)) for _ in range(3)]
        make(tmp_path / "run", *servers, count=150)
        is_exact(tmp_path / "run", 150)
        assert all(each.answered for each in servers)
        assert all(each.most_out <= 4 for each in servers)


def test_the_request_has_the_sampling_and_the_record_has_where_it_ran(tmp_path: Path, server: Server) -> None:
    make(tmp_path / "run", server, top_k=40, temperature=0.7, chat_template_kwargs={"enable_thinking": False})
    body = server.bodies[-1]
    assert body["response_format"]["json_schema"]["schema"]["type"] == "array"
    assert (body["model"], body["top_k"], body["temperature"]) == (MODEL, 40, 0.7)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    config = RunDirectory(tmp_path / "run").read_config()
    assert (config.spec.model, config.spec.model_sha256) == (MODEL, f"served as {MODEL}")
    assert config.engines["engine"]["urls"] == [server.url]
    assert "its weights were not checked" in (tmp_path / "run" / "README.md").read_text()
    assert server.url in (tmp_path / "run" / "log.jsonl").read_text()


def test_a_server_may_be_asked_for_by_the_folder_it_loaded_from(tmp_path: Path, server: Server) -> None:
    make(tmp_path / "run", server, model=f"/models/{MODEL}")
    assert server.bodies[-1]["model"] == MODEL


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "sesame-4711"
    monkeypatch.delenv("DATACREATE_API_KEY", raising=False)
    with pytest.raises(EngineError, match=r"access denied .*\$DATACREATE_API_KEY"):
        make(tmp_path / "run", server)
    monkeypatch.setenv("DATACREATE_API_KEY", server.key)
    make(tmp_path / "run", server)
    for path in (tmp_path / "run").iterdir():
        assert b"sesame" not in path.read_bytes()


def test_servers_come_to_a_folder_while_the_run_is_under_way(tmp_path: Path, server: Server) -> None:
    folder = tmp_path / "run" / "servers"
    folder.mkdir(parents=True)

    def publish(one: Server) -> None:
        (folder / f"{one.port}.json").write_text(json.dumps({"url": one.url, "max_num_seqs": 2}))

    with Server() as late:

        def more(number: int) -> None:
            if number == 10:
                publish(late)
            if number == 11:  # no more from here until the late one has been found
                until(lambda: late.asked["/v1/models"] > 0)

        server.on_answer = more
        publish(server)
        make(tmp_path / "run", str(folder), max_num_seqs=None, count=300)
        is_exact(tmp_path / "run", 300)
        assert late.answered > 0
        assert server.most_out <= 2


def test_as_many_servers_as_are_asked_for_are_waited_for(tmp_path: Path, server: Server) -> None:
    folder = tmp_path / "servers"

    def publish(*servers: Server) -> None:
        folder.mkdir(exist_ok=True)
        for one in servers:
            (folder / f"{one.port}.json").write_text(json.dumps({"url": one.url, "max_num_seqs": 40}))

    with Server() as late:
        server.on_models = lambda number: publish(late) if number == 1 else None
        coming = Thread(target=publish, args=(server,))  # after the run has begun to look
        notes = Notes()
        notes.on_note = lambda said: coming.start() if "waiting up to" in said else None
        told = {"max_num_seqs": None, "model": MODEL, "servers": 2, "count": 600}
        make(tmp_path / "run", str(folder), notes=notes, **told)
        assert RunDirectory(tmp_path / "run").read_config().spec.concurrency > 40
        assert late.answered


def test_an_empty_folder_is_waited_at_and_then_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    notes = Notes()
    with pytest.raises(ServersGone, match=r"no server at .*servers"):
        make(tmp_path / "run", str(tmp_path / "servers"), notes=notes, wait=0.1)
    assert notes.has("waiting up to")


def test_a_run_that_began_with_fewer_servers_says_that_it_cannot_fill_them(
    tmp_path: Path, server: Server, other: Server
) -> None:
    make(tmp_path / "run", server, count=50, concurrency=4)
    notes = Notes()
    make(tmp_path / "run", server, other, count=100, concurrency=4, notes=notes)
    assert notes.has("8 requests")


def test_models_behind_several_servers_take_turns(tmp_path: Path, server: Server) -> None:
    with Server(model="second") as other:
        make(tmp_path / "run", server, other, model=(MODEL, "second"))
        is_exact(tmp_path / "run", 40)
        assert server.answered
        assert other.answered
        assert {body["model"] for body in other.bodies} == {"second"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"urls": ("",)}, "--url: an empty address; write it as http://HOST:PORT"),
        ({"urls": ("somewhere",)}, "neither an address nor a folder"),
        ({"urls": ("http://me:pass@host:1",)}, r"\$DATACREATE_API_KEY"),
        ({"urls": ("http://host:99999",)}, "neither an address nor a folder"),
        ({"urls": (), "engine": "openai"}, "name the servers with --url"),
        ({"urls": ("http://host:1",), "engine": "vllm"}, "that is for running servers"),
        ({"urls": ("http://host:1",), "dtype": "bfloat16"}, "--dtype: running servers have loaded their models"),
        ({"urls": ("http://host:1",), "request_timeout": float("inf")}, "--request-timeout inf: give a num"),
        ({"urls": ("http://host:1",), "request_timeout": float("nan")}, "--request-timeout nan: give a num"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_one_line(tmp_path: Path, settings: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        create(CreateConfig.of(example=COMMONSENSE, count=5, run_dir=tmp_path / "run", **settings))
    assert "\n" not in str(refused.value)


def test_an_empty_address_is_refused_by_the_command_line_too(tmp_path: Path) -> None:
    (tmp_path / "example.json").write_text(json.dumps(COMMONSENSE))
    words = ["create", "--example", str(tmp_path / "example.json"), "--run-dir", str(tmp_path / "run")]
    ended = typed(*words, "--count", "5", "--url", "")
    assert (ended.code, "--url" in ended.failure) == (2, True)
