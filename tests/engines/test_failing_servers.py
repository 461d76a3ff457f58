"""Servers that die, return, stall or fail: nothing is lost, nothing hangs, and the right cause is found."""

from __future__ import annotations

import json
import resource
from collections import Counter
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from datacreate.engines import EngineOptions, server_pool
from datacreate.engines.chat_api import ChatApi
from datacreate.engines.model_client import ModelClient
from datacreate.engines.request import Request, Sampling
from datacreate.engines.server_sources import RemoteServers
from datacreate.errors import EngineError, ServersUnavailable
from datacreate.runs.directory import RunDirectory
from tests.engines.helpers import Notes, answers, failed_requests, make
from tests.support.making import commits, examples, train
from tests.support.servers import MODEL, Fault, Handler, Server, cut_off, hanging, refusing, sending, silent, until


def test_a_server_that_returns_is_used_again(tmp_path: Path, server: Server, other: Server) -> None:
    notes = Notes()

    def stop_and_return() -> None:
        server.stop()
        until(lambda: notes.has("suspended"))
        server.start_again()

    server.on_answer = lambda number: Thread(target=stop_and_return).start() if number == 8 else None
    other.on_answer = lambda number: until(lambda: notes.has("available again")) if number == 20 else None
    make(tmp_path / "run", server, other, notes=notes, count=300)
    assert notes.has(server.url, "available again")
    numbers = [commit.request_number for commit in RunDirectory(tmp_path / "run").commits()]
    assert numbers == list(range(len(numbers)))  # none is lost


def test_a_proxy_in_maintenance_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """For a while the only server redirects everything, and denies access."""
    monkeypatch.setattr(server_pool, "_FIRST_PAUSE_SECONDS", 0.01)
    notes = Notes()

    def return_at_second_message(text: str) -> None:
        if "suspended" in text and server.models_status == 302:
            server.models_status, server.later_fault = 403, refusing(403)
        elif "suspended" in text:
            server.models_status, server.fault_after = 200, None

    notes.on_message = return_at_second_message
    server.on_answer = lambda number: setattr(server, "models_status", 302) if number == 8 else None
    server.fault_after, server.later_fault = 8, sending(b"", 302, Location="/maintenance")
    make(tmp_path / "run", server, notes=notes, count=100)
    assert notes.has(server.url, "HTTP 403", "suspended")
    assert notes.has(server.url, "available again")


def test_without_any_server_the_run_stops_resumable(tmp_path: Path, server: Server) -> None:
    dead = Event()

    def stop() -> None:
        server.stop()
        dead.set()

    def die(number: int) -> None:
        if number == 8:
            Thread(target=stop).start()
        if number >= 8:  # nothing is answered while it dies
            dead.wait(10)

    server.on_answer = die
    with pytest.raises(ServersUnavailable, match=r"no server answers: .*run the same command") as failure:
        make(tmp_path / "run", server, wait=0.1, count=60)
    assert failure.value.exit_code == 75
    kept = examples(tmp_path / "run")
    assert 0 < len(kept) < 60
    server.on_answer = lambda number: None
    server.start_again()
    make(tmp_path / "run", server, count=60)
    assert examples(tmp_path / "run")[: len(kept)] == kept


class CountsNoTokens(Server):
    """It passes the server tests, but cannot say how long a prompt is, which a run asks before its first request."""

    def handle(self, handler: Handler, body: Any) -> None:
        if handler.path == "/tokenize":
            return handler.reply({"error": {"message": "out of cheese"}}, 500)
        return super().handle(handler, body)


def test_a_failure_before_the_first_request_stops_the_run_resumable(tmp_path: Path) -> None:
    says = "HTTP 500: out of cheese; .*run the same command"
    with CountsNoTokens(kind="llamacpp") as server, pytest.raises(ServersUnavailable, match=says):
        make(tmp_path / "run", server, wait=0.3)


FAILURES: dict[str, tuple[Fault, str]] = {
    "HTTP 500": (refusing(500), "HTTP 500: out of cheese"),
    "HTTP 400": (refusing(400), "HTTP 400: out of cheese"),
    "HTTP 404": (refusing(404), "HTTP 404: out of cheese"),
    "an error in an answer": (sending({"error": {"message": "out of cheese"}}), "invalid response: out of cheese"),
    "a redirect": (sending(b"", 302, Location="http://127.0.0.1:9/"), r"it redirects .*\(HTTP 302\)"),
    "HTTP 403": (refusing(403), r"access denied \(HTTP 403\)"),
    "no JSON": (sending(b"<html>Bad gateway</html>"), "it returned something other than JSON"),
    "half an answer": (cut_off, "the connection broke"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("failure", "width"), [*((name, 1) for name in FAILURES), ("HTTP 500", 4), ("half an answer", 4)]
)
def test_if_all_requests_fail_the_server_is_the_cause(tmp_path: Path, failure: str, width: int) -> None:
    """The server tests pass. The run stops resumable, and ends later with the very same bytes."""
    fault, says = FAILURES[failure]
    settings: dict[str, Any] = {"concurrency": width, "max_num_seqs": width, "count": 25, "num_examples": 5}
    with Server(fault_after=3, later_fault=fault) as server:
        with pytest.raises(ServersUnavailable, match=says):
            make(tmp_path / "run", server, wait=0.3, **settings)
        assert len(examples(tmp_path / "run")) == 15 if width == 1 else len(examples(tmp_path / "run")) <= 15
        assert failed_requests(tmp_path / "run") == 0
        kept = train(tmp_path / "run")
        server.fault_after = None
        make(tmp_path / "run", server, **settings)
    assert train(tmp_path / "run").startswith(kept)
    if width == 1:  # otherwise the order of arrival decides what a scripted server answers
        with Server() as good:
            make(tmp_path / "undisturbed", good, **settings)
        assert train(tmp_path / "undisturbed") == train(tmp_path / "run")


@pytest.mark.parametrize("failure", ["an error in an answer", "HTTP 404", "half an answer"])
def test_the_same_error_five_times_in_a_row_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    """The server passes the tests each time, so that it would be tried again for ever."""
    monkeypatch.setattr(server_pool, "_FIRST_PAUSE_SECONDS", 0.001)
    fault, says = FAILURES[failure]
    with Server(fault_after=3, later_fault=fault) as server:
        says = rf"the same error 5 times in a row: {says}.*; .*run the same command"
        with pytest.raises(ServersUnavailable, match=says):
            make(tmp_path / "run", server, wait=600)
        server.fault_after = None
        make(tmp_path / "run", server)


def test_a_server_that_always_fails_does_not_stop_a_run_with_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, other: Server
) -> None:
    """Not even when the other one fails once."""
    monkeypatch.setattr(server_pool, "_FIRST_PAUSE_SECONDS", 0.001)
    failures: list[Server] = []

    def fail(handler: Handler, body: dict[str, Any]) -> None:
        if handler.owner is other and other in failures:
            return handler.reply(other.answer(body))
        failures.append(handler.owner)
        return handler.reply({"error": {"message": "out of cheese"}}, 500)

    server.fault_after, other.fault_after = 0, 20
    server.later_fault = other.later_fault = fail
    other.on_answer = lambda number: until(lambda: failures.count(server) > 5) if number == 10 else None
    make(tmp_path / "run", server, other, count=100)
    assert failures.count(other) == 1


@pytest.mark.parametrize(("status", "num_chains", "max_failures"), [(400, 3, 2), (500, 1, 3)])
def test_if_others_succeed_the_request_is_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, num_chains: int, max_failures: int
) -> None:
    monkeypatch.setattr(server_pool, "_FIRST_PAUSE_SECONDS", 0.01)
    failing: list[str] = []
    failures: list[int] = []

    def fail_one(handler: Handler, body: dict[str, Any]) -> None:
        prompt = str(body["messages"])
        if handler.owner.answered >= 10 and not failing and "word" in prompt:
            failing.append(prompt)
        if prompt in failing:
            failures.append(status)
            return handler.reply({"error": {"message": "out of cheese"}}, status)
        return handler.reply(handler.owner.answer(body))

    with Server(fault=fail_one) as server:
        make(tmp_path / "run", server, count=150, strategy="random", num_chains=num_chains)
    rejects = [reject for commit in commits(tmp_path / "run") for reject in commit.rejects]
    texts = [reject.text for reject in rejects if reject.reason == "no_response"]
    assert texts == [f"{max_failures} failures: HTTP {status}: out of cheese"] * (len(failures) // max_failures)
    assert texts


def test_a_failure_of_the_request_that_is_sent_instead_is_not_that_of_the_request(
    server: Server, other: Server
) -> None:
    """To find out whether the server is the cause, the last completed request is sent again. It fails, while another
    request is completed."""
    sent: Counter[str] = Counter()
    sent_again, other_is_completed = Event(), Event()

    def fail(handler: Handler, body: dict[str, Any]) -> None:
        prompt = body["messages"][-1]["content"]
        sent[prompt] += 1
        if (prompt, sent[prompt]) == ("completed", 2):
            sent_again.set()
            other_is_completed.wait(20)
        if (prompt, sent[prompt]) in (("failing", 1), ("completed", 2)):
            return handler.reply({"error": {"message": "out of cheese"}}, 400)
        return handler.reply(handler.owner.answer(body))

    def request(number: int, prompt: str) -> Request:
        schema = {"type": "array", "items": {"const": 1}, "minItems": 2, "maxItems": 2}
        return Request(number, [{"role": "user", "content": prompt}], json.dumps(schema), Sampling(100))

    for each in (server, other):
        each.fault_after, each.later_fault = 0, fail
    options = EngineOptions(url=(server.url, other.url), max_num_seqs=4)
    with closing(ModelClient(RemoteServers(options.url), ChatApi((MODEL,)), options)) as client:
        answers(client, request(0, "completed"))
        client.submit(request(1, "failing"))
        assert sent_again.wait(20)
        answers(client, request(2, "other"))
        other_is_completed.set()
        [completion] = client.poll(60.0)
    assert completion.error is None
    assert sent == {"completed": 2, "failing": 2, "other": 1}


@pytest.mark.parametrize(
    "fault", [refusing(500), sending(b"", 302, Location="/"), sending({"choices": "none"}), cut_off, hanging, silent]
)
def test_others_replace_one_that_fails(tmp_path: Path, server: Server, other: Server, fault: Fault) -> None:
    server.fault_after, server.later_fault = 5, fault
    notes = Notes()
    make(tmp_path / "run", server, other, notes=notes, count=100, request_timeout=2.0)
    assert notes.has(server.url, "suspended")
    assert failed_requests(tmp_path / "run") == 0


@pytest.mark.parametrize("fault", [refusing(500), sending(b"<html>Bad gateway</html>"), cut_off, hanging])
def test_a_server_that_fails_a_server_test_is_one_line(tmp_path: Path, server: Server, fault: Fault) -> None:
    server.fault = fault
    with pytest.raises(ServersUnavailable, match=server.url) as failure:
        make(tmp_path / "run", server, request_timeout=2.0)
    assert "\n" not in str(failure.value)


def test_an_unreachable_server_is_an_error_if_it_is_the_only_one(tmp_path: Path) -> None:
    says = r":9: cannot be reached \(Connection refused\); check --url, or start the server, and run the same"
    with pytest.raises(ServersUnavailable, match=says):
        make(tmp_path / "run", "http://127.0.0.1:9")
    assert not (tmp_path / "run").exists()


def test_each_request_may_have_a_connection(tmp_path: Path, server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
    try:
        make(tmp_path / "run", server)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 4000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_server_of_another_model_is_refused(tmp_path: Path, server: Server) -> None:
    with pytest.raises(EngineError, match=f"serves {MODEL}, not llama; select one"):
        make(tmp_path / "run", server, model="llama")


def test_unusable_servers_are_left_out(tmp_path: Path, server: Server, other: Server) -> None:
    server.obeys = False
    dead, notes = "http://127.0.0.1:9", Notes()
    make(tmp_path / "run", server, other, dead, notes=notes)
    assert server.answered == 0
    assert notes.has(server.url, "ignores the JSON Schema", "cannot be used")
    assert notes.has(f"{dead}: cannot be reached")


@pytest.mark.parametrize("first_status", [401, 500])
def test_the_error_of_a_busy_server_is_resumable_and_not_about_an_earlier_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, first_status: int
) -> None:
    monkeypatch.setattr(server_pool, "_FIRST_PAUSE_SECONDS", 0.01)
    server.on_models = lambda number: setattr(server, "models_status", first_status if number == 1 else 429)
    (tmp_path / "servers").mkdir()
    (tmp_path / "servers" / "one.json").write_text(json.dumps({"url": server.url}))
    with pytest.raises(ServersUnavailable, match=r"HTTP 429: .*smaller --max-num-seqs"):
        make(tmp_path / "run", str(tmp_path / "servers"), wait=1)


def test_a_busy_server_is_suspended_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    """However often it refuses a request; one line is printed."""
    monkeypatch.setattr(server_pool, "_FIRST_PAUSE_SECONDS", 0.001)
    refused: list[int] = []

    def refuse(handler: Handler, body: dict[str, Any]) -> None:
        if len(refused) % 8 == 7:
            return handler.reply(handler.owner.answer(body))
        refused.append(handler.owner.answered)
        return handler.reply({"error": {"message": "busy"}}, 429)

    def answer_once(number: int) -> None:
        if number == 6:
            refused.append(number)

    server.fault_after, server.later_fault, server.on_answer = 3, refuse, answer_once
    notes = Notes()
    make(tmp_path / "run", server, notes=notes)
    assert len(refused) > 14
    assert notes.has("HTTP 429: busy; with a smaller --max-num-seqs", "suspended")
    assert sum(server.url in line for line in notes.messages) == 1
