"""Servers that die, return, stall, send garbage or will not do: nothing is lost, nothing hangs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiohttp import web

from datacreate.errors import EngineError, NoProgress, ServersGone
from tests.engines.openai.asking import Notes, is_exact, make
from tests.making import COMMONSENSE, examples
from tests.servers import MODEL, Server, until


def test_a_server_that_dies_is_left_and_nothing_is_lost(
    tmp_path: Path, server: Server, other: Server
) -> None:
    server.latency = other.latency = 0.005
    server.on_answer = lambda number: Thread(target=server.stop).start() if number == 8 else None
    notes = Notes()
    make(tmp_path / "run", server, other, notes=notes, count=200)
    is_exact(tmp_path / "run", 200)
    assert any(server.url in said and "it is left" in said for said in notes.said)
    requests = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    numbers = [each["request"] for each in requests if "request" in each]
    assert numbers == list(range(len(numbers)))


def test_a_server_that_comes_back_is_asked_again(tmp_path: Path, server: Server, other: Server) -> None:
    notes = Notes()
    back: list[int] = []  # what it had answered when it came back

    def stop_and_return() -> None:
        server.stop()
        until(lambda: any("it is left" in said for said in notes.said))
        server.again()
        back.append(server.answered)

    def hold(number: int) -> None:  # the run does not end before
        if number == 20:
            until(lambda: bool(back) and server.answered > back[0])

    server.on_answer = lambda number: Thread(target=stop_and_return).start() if number == 8 else None
    other.on_answer = hold
    make(tmp_path / "run", server, other, notes=notes, count=300)
    is_exact(tmp_path / "run", 300)
    assert any("is asked again" in said for said in notes.said)


def test_without_any_server_the_run_stops_resumable_and_goes_on_later(tmp_path: Path, server: Server) -> None:
    server.on_answer = lambda number: Thread(target=server.stop).start() if number == 8 else None
    with pytest.raises(ServersGone, match=r"no server answers: .*run the same command") as gone:
        make(tmp_path / "run", server, wait=0.1)
    assert gone.value.exit_code == 75
    kept = examples(tmp_path / "run")
    assert 0 < len(kept) < 60
    server.on_answer = lambda number: None
    server.again()
    make(tmp_path / "run", server)
    is_exact(tmp_path / "run", 60)
    assert examples(tmp_path / "run")[: len(kept)] == kept


def test_servers_that_stay_ill_use_up_the_patience(tmp_path: Path, server: Server) -> None:
    def fall_ill(number: int) -> None:
        if number == 5:
            server.fault = broken

    server.on_answer = fall_ill
    with pytest.raises(ServersGone, match="out of cheese"):
        make(tmp_path / "run", server, wait=2.0)
    assert examples(tmp_path / "run")


def test_an_unreachable_address_is_one_line_at_once(tmp_path: Path) -> None:
    with pytest.raises(ServersGone, match=r":9: cannot be reached \(Connection refused\); run the same"):
        make(tmp_path / "run", "http://127.0.0.1:9")
    assert not (tmp_path / "run").exists()


def test_an_unreachable_address_beside_a_good_one_costs_a_note(tmp_path: Path, server: Server) -> None:
    notes = Notes()
    make(tmp_path / "run", server, "http://127.0.0.1:9", notes=notes)
    is_exact(tmp_path / "run", 60)
    assert any("127.0.0.1:9: cannot be reached" in said for said in notes.said)


def test_a_server_of_another_model_is_refused_naming_what_it_serves(tmp_path: Path, server: Server) -> None:
    with pytest.raises(EngineError, match=f"serves {MODEL}, and not llama; name one that it serves"):
        make(tmp_path / "run", server, model="llama")


def test_a_server_that_ignores_the_schema_is_refused(tmp_path: Path, server: Server) -> None:
    server.obeys = False
    with pytest.raises(EngineError, match=r"does not enforce the grammar.*Good morning") as refused:
        make(tmp_path / "run", server)
    assert not isinstance(refused.value, ServersGone)


def test_one_that_ignores_the_schema_among_others_is_not_asked(
    tmp_path: Path, server: Server, other: Server
) -> None:
    server.obeys = False
    notes = Notes()
    make(tmp_path / "run", server, other, notes=notes)
    is_exact(tmp_path / "run", 60)
    assert server.answered == 0
    assert any(server.url in said and "not asked any more" in said for said in notes.said)


@pytest.mark.parametrize("card", [{"id": {}}, {"id": MODEL, "max_model_len": float("inf")}, {"id": [1]}])
def test_a_card_that_makes_no_sense_does_not_end_a_run(
    tmp_path: Path, server: Server, other: Server, card: Any
) -> None:
    server.card = card
    make(tmp_path / "run", server, other, model=MODEL)
    is_exact(tmp_path / "run", 60)


def test_a_server_with_less_room_than_it_is_given_is_asked_for_less(tmp_path: Path, server: Server) -> None:
    server.holds, server.latency = 3, 0.002
    make(tmp_path / "run", server, max_num_seqs=12, count=100)
    is_exact(tmp_path / "run", 100)


def test_a_full_server_is_given_a_rest_and_not_left(tmp_path: Path, server: Server) -> None:
    server.holds, server.latency = 2, 0.002
    notes = Notes()
    make(tmp_path / "run", server, max_num_seqs=6, count=60, notes=notes)
    is_exact(tmp_path / "run", 60)
    assert not any("it is left" in said for said in notes.said)
    assert server.asked["/v1/models"] == 2  # once for its name, once before the run


async def broken(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "out of cheese"}}, status=500)


async def garbage(request: web.Request) -> web.StreamResponse:
    return web.Response(text="<html>Bad gateway</html>")


async def no_answer(request: web.Request) -> web.StreamResponse:
    return web.json_response({"choices": "none"})


async def cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"mess')
    assert request.transport
    request.transport.abort()
    return response


async def hanging(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "5000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"mess')
    await asyncio.sleep(60)
    return response


FAULTS = [broken, garbage, no_answer, cut_off, hanging]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_falls_ill_is_left_for_the_others(
    tmp_path: Path, server: Server, other: Server, fault: Any
) -> None:
    def fall_ill(number: int) -> None:
        if number == 5:
            server.fault = fault

    server.on_answer = fall_ill
    notes = Notes()
    make(tmp_path / "run", server, other, notes=notes, count=100, request_timeout=0.3)
    is_exact(tmp_path / "run", 100)
    assert any(server.url in said and "it is left" in said for said in notes.said)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_was_never_well_is_one_line(tmp_path: Path, server: Server, fault: Any) -> None:
    server.fault = fault
    with pytest.raises(ServersGone, match=server.url) as gone:
        make(tmp_path / "run", server, request_timeout=0.2)
    assert "\n" not in str(gone.value)


def test_a_request_that_no_server_can_answer_does_not_hold_up_the_rest(
    tmp_path: Path, server: Server, other: Server
) -> None:
    async def now_and_then(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if "poison" in json.dumps(body["messages"]):
            return await broken(request)
        return web.json_response(server._answer(body))

    server.fault = other.fault = now_and_then
    # The example itself cannot be answered: all of it fails, is counted, and ends with the reason.
    with pytest.raises(NoProgress, match="out of cheese"):
        make(
            tmp_path / "run",
            server,
            other,
            example=COMMONSENSE | {"question": "poison"},
            patience=2,
            window=1,
        )
