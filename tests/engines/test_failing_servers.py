"""Servers that die, return, stall or fail: nothing is lost, nothing hangs, and the right one is blamed."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from datacreate.errors import EngineError, ServersGone
from datacreate.runs.directory import RunDirectory
from tests.engines.asking import Notes, is_exact, make
from tests.making import examples, train
from tests.servers import MODEL, Fault, Handler, Server, cut_off, hanging, refusing, sending, until


def no_answers(run_dir: Path) -> int:
    """Rejects for want of an answer that are in the log."""
    return sum(
        reject.reason == "no_response"
        for commit in RunDirectory(run_dir).commits()
        for reject in commit.rejects
    )


def test_a_server_that_dies_is_left_and_nothing_is_lost(
    tmp_path: Path, server: Server, other: Server
) -> None:
    server.latency = other.latency = 0.005
    server.on_answer = lambda number: Thread(target=server.stop).start() if number == 8 else None
    notes = Notes()
    make(tmp_path / "run", server, other, notes=notes, count=200)
    is_exact(tmp_path / "run", 200)
    assert notes.has(server.url, "suspended")
    numbers = [commit.request for commit in RunDirectory(tmp_path / "run").commits()]
    assert numbers == list(range(len(numbers)))


def test_a_server_that_comes_back_is_asked_again(tmp_path: Path, server: Server, other: Server) -> None:
    notes = Notes()
    back: list[int] = []  # what it had answered when it came back

    def stop_and_return() -> None:
        server.stop()
        until(lambda: notes.has("suspended"))
        server.again()
        back.append(server.answered)

    def hold(number: int) -> None:  # the run does not end before
        if number == 20:
            until(lambda: bool(back) and server.answered > back[0])

    server.on_answer = lambda number: Thread(target=stop_and_return).start() if number == 8 else None
    other.on_answer = hold
    make(tmp_path / "run", server, other, notes=notes, count=300)
    is_exact(tmp_path / "run", 300)
    assert notes.has(server.url, "available again")


def test_without_any_server_the_run_stops_resumable(tmp_path: Path, server: Server) -> None:
    def stop() -> None:
        server.stop()
        dead.set()

    def die(number: int) -> None:
        if number == 8:
            Thread(target=stop).start()
        if number >= 8:  # nothing is answered while it dies
            dead.wait(10)

    dead = Event()

    server.on_answer = die
    with pytest.raises(ServersGone, match=r"no server answers: .*run the same command") as gone:
        make(tmp_path / "run", server, wait=0.1, count=60)
    assert gone.value.exit_code == 75
    kept = examples(tmp_path / "run")
    assert 0 < len(kept) < 60
    server.on_answer = lambda number: None
    server.again()
    make(tmp_path / "run", server, count=60)
    is_exact(tmp_path / "run", 60)
    assert examples(tmp_path / "run")[: len(kept)] == kept


FAILS: dict[str, tuple[Fault, str]] = {
    "HTTP 500": (refusing(500), "HTTP 500: out of cheese"),
    "HTTP 400": (refusing(400), "HTTP 400: out of cheese"),
    "HTTP 404": (refusing(404), "HTTP 404: out of cheese"),
    "an error in an answer": (
        sending({"error": {"message": "out of cheese"}}),
        "invalid response: out of cheese",
    ),
    "no JSON": (sending(b"<html>Bad gateway</html>"), "an answer that is not JSON"),
    "half an answer": (cut_off, "the connection broke"),
}


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("what", FAILS)
def test_a_server_that_fails_all_real_requests_is_blamed_and_not_they(
    tmp_path: Path, what: str, width: int
) -> None:
    """The self-test passes. The run stops resumable, and ends later with the very same bytes."""
    fault, says = FAILS[what]
    told: dict[str, Any] = {"concurrency": width, "max_num_seqs": width, "count": 25, "num_examples": 5}
    with Server(fault_after=3, later_fault=fault) as server:
        with pytest.raises(ServersGone, match=says) as gone:
            make(tmp_path / "run", server, wait=0.3, **told)
        assert gone.value.exit_code == 75
        assert len(examples(tmp_path / "run")) == 15 if width == 1 else len(examples(tmp_path / "run")) <= 15
        assert no_answers(tmp_path / "run") == 0
        kept = train(tmp_path / "run")
        server.fault_after = None
        make(tmp_path / "run", server, **told)
    is_exact(tmp_path / "run", 25)
    assert train(tmp_path / "run").startswith(kept)
    if width == 1:  # the order of arrival decides what a scripted server answers
        with Server() as well:
            make(tmp_path / "undisturbed", well, **told)
        assert train(tmp_path / "undisturbed") == train(tmp_path / "run")


@pytest.mark.parametrize("status", [400, 500])
def test_a_request_that_fails_while_others_succeed_is_blamed_and_the_run_goes_on(
    tmp_path: Path, status: int
) -> None:
    poison: list[str] = []

    def poisoned(handler: Handler, body: dict[str, Any]) -> None:
        prompt = str(body["messages"])
        if handler.owner.answered >= 10 and not poison and "word" in prompt:
            poison.append(prompt)
        if prompt in poison:
            return handler.reply({"error": {"message": "out of cheese"}}, status)
        return handler.reply(handler.owner.answer(body))

    with Server(fault=poisoned) as server:
        make(tmp_path / "run", server, count=150, strategy="random")
    is_exact(tmp_path / "run", 150)
    assert poison
    assert no_answers(tmp_path / "run") >= 1


@pytest.mark.parametrize("fault", [refusing(500), sending({"choices": "none"}), cut_off, hanging])
def test_a_server_that_fails_is_left_for_the_others(
    tmp_path: Path, server: Server, other: Server, fault: Fault
) -> None:
    server.fault_after, server.later_fault = 5, fault
    notes = Notes()
    make(tmp_path / "run", server, other, notes=notes, count=100, request_timeout=2.0)
    is_exact(tmp_path / "run", 100)
    assert notes.has(server.url, "suspended")
    assert no_answers(tmp_path / "run") == 0


@pytest.mark.parametrize("fault", [refusing(500), sending(b"<html>Bad gateway</html>"), cut_off, hanging])
def test_a_server_that_was_never_well_is_one_line(tmp_path: Path, server: Server, fault: Fault) -> None:
    server.fault = fault
    with pytest.raises(ServersGone, match=server.url) as gone:
        make(tmp_path / "run", server, request_timeout=2.0)
    assert "\n" not in str(gone.value)


def test_an_unreachable_address_is_one_line_at_once_and_beside_a_good_one_a_note(
    tmp_path: Path, server: Server
) -> None:
    with pytest.raises(ServersGone, match=r":9: cannot be reached \(Connection refused\); run the same"):
        make(tmp_path / "run", "http://127.0.0.1:9")
    assert not (tmp_path / "run").exists()
    notes = Notes()
    make(tmp_path / "run", server, "http://127.0.0.1:9", notes=notes)
    is_exact(tmp_path / "run", 40)
    assert notes.has("127.0.0.1:9: cannot be reached")


def test_a_server_of_another_model_is_refused_naming_what_it_serves(tmp_path: Path, server: Server) -> None:
    with pytest.raises(EngineError, match=f"serves {MODEL}, not llama; select one"):
        make(tmp_path / "run", server, model="llama")


def test_one_that_ignores_the_schema_among_others_is_not_used(
    tmp_path: Path, server: Server, other: Server
) -> None:
    server.obeys = False
    notes = Notes()
    make(tmp_path / "run", server, other, notes=notes)
    is_exact(tmp_path / "run", 40)
    assert server.answered == 0
    assert notes.has(server.url, "ignores the JSON Schema", "cannot be used")


def test_a_full_server_is_given_a_rest_and_less_and_is_not_left(tmp_path: Path, server: Server) -> None:
    server.holds, server.latency = 2, 0.002
    notes = Notes()
    make(tmp_path / "run", server, max_num_seqs=6, count=60, notes=notes)
    is_exact(tmp_path / "run", 60)
    assert not notes.has("suspended")
    assert server.asked["/v1/models"] == 2  # once for its name, once before the run
