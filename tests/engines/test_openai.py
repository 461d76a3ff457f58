"""Models behind servers: exactly what was asked for, whatever the servers do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from datacreate import CreateConfig, create
from datacreate.engines.base import Request, Sampling, scoring
from datacreate.engines.openai.wire import Unwell, Wire, read
from datacreate.errors import EngineError, NoProgress, ServersGone, UsageError
from datacreate.runs.directory import RunDirectory
from tests.making import COMMONSENSE, examples
from tests.servers import MODEL, Server, until

YES_NO = {"question": "Is the sea salty?", "label": "yes"}


class Notes:
    """A `Progress` that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.on_note: Callable[[str], object] = lambda _: None

    def note(self, text: str) -> None:
        self.said.append(text)
        self.on_note(text)

    def update(self, *_: object) -> None: ...


def make(run_dir: Path, *servers: Server | str, notes: Notes | None = None, **changes: Any) -> dict[str, Any]:
    urls = tuple(each.url if isinstance(each, Server) else each for each in servers)
    usual = {"example": COMMONSENSE, "count": 60, "max_num_seqs": 4, "verify": "off", "against": ()}
    config = CreateConfig.of(run_dir=run_dir, urls=urls, **usual | changes)
    return create(config, progress=notes or Notes())


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        yield one


@pytest.fixture
def other() -> Iterator[Server]:
    with Server() as one:
        yield one


def is_exact(run_dir: Path, count: int) -> None:
    questions = [example["question"] for example in examples(run_dir)]
    assert len(questions) == len(set(questions)) == count


@pytest.mark.parametrize("number", [1, 2, 5])
def test_exactly_the_count_and_every_server_has_its_part(tmp_path: Path, number: int) -> None:
    with ExitStack() as stack:
        servers = [stack.enter_context(Server(latency=0.002)) for _ in range(number)]
        make(tmp_path / "run", *servers, count=150)
        is_exact(tmp_path / "run", 150)
        assert all(each.answered for each in servers)
        assert all(each.most_out <= 4 for each in servers)


def test_a_server_is_asked_with_the_standard_schema_and_the_sampling(tmp_path: Path, server: Server) -> None:
    make(tmp_path / "run", server, top_k=40, temperature=0.7, chat_template={"enable_thinking": False})
    body = server.bodies[-1]
    assert body["response_format"]["type"] == "json_schema"
    assert body["response_format"]["json_schema"]["schema"]["type"] == "array"
    assert (body["model"], body["top_k"], body["temperature"]) == (MODEL, 40, 0.7)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_the_record_has_where_it_ran_and_the_name_that_the_model_is_served_by(
    tmp_path: Path, server: Server
) -> None:
    make(tmp_path / "run", server)
    config = RunDirectory(tmp_path / "run").read_config()
    assert (config.identity.model, config.identity.model_sha256) == (MODEL, f"served as {MODEL}")
    assert config.engines["engine"]["urls"] == [server.url]
    assert "its weights were not seen" in (tmp_path / "run" / "README.md").read_text()
    assert server.url in (tmp_path / "run" / "log.jsonl").read_text()


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


def test_a_server_may_be_asked_for_by_the_folder_it_loaded_from(tmp_path: Path, server: Server) -> None:
    make(tmp_path / "run", server, model=f"/models/{MODEL}")
    assert server.bodies[-1]["model"] == MODEL


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


def test_a_server_with_less_room_than_it_is_given_is_asked_for_less(tmp_path: Path, server: Server) -> None:
    server.holds, server.latency = 3, 0.002
    make(tmp_path / "run", server, max_num_seqs=12, count=100)
    is_exact(tmp_path / "run", 100)


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


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "sesame-4711"
    monkeypatch.delenv("DATACREATE_API_KEY", raising=False)
    with pytest.raises(EngineError, match=r"refuses the key .*\$DATACREATE_API_KEY"):
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


def test_labels_are_verified_through_servers(tmp_path: Path, server: Server) -> None:
    summary = make(tmp_path / "run", server, example=YES_NO, verify="keep", count=20)
    scored = [body for body in server.bodies if body.get("logprobs")]
    assert scored
    assert all(body["max_tokens"] == 1 and len(body["logprob_token_ids"]) == 2 for body in scored)
    assert summary["accepted"] == 20


def test_models_behind_several_servers_take_turns(tmp_path: Path, server: Server) -> None:
    with Server(model="second") as other:
        make(tmp_path / "run", server, other, model=(MODEL, "second"))
        is_exact(tmp_path / "run", 60)
        assert server.answered
        assert other.answered
        assert {body["model"] for body in other.bodies} == {"second"}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"urls": ("somewhere",)}, "neither an address nor a folder"),
        ({"urls": ("http://me:pass@host:1",)}, r"\$DATACREATE_API_KEY"),
        ({"urls": ("http://host:99999",)}, "neither an address nor a folder"),
        ({"urls": (), "engine": "openai"}, "say where with --url"),
        ({"urls": ("http://host:1",), "engine": "vllm"}, "that is for servers"),
        ({"urls": ("http://host:1",), "dtype": "bfloat16"}, "--dtype: servers load their models themselves"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(tmp_path: Path, settings: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        create(CreateConfig.of(example=COMMONSENSE, count=5, run_dir=tmp_path / "run", **settings))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "logprobs", "usage", "finish_reason"]), inner
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_whatever_a_server_sends_is_an_answer_or_no_answer(document: Any) -> None:
    for request in (
        Request(1, [{"role": "user", "content": "?"}], "{}", Sampling(5)),
        scoring(-2, [], ("a", "b")),
    ):
        try:
            completion = read(request, document)
        except Unwell:
            continue
        assert completion.request_id == request.id


def test_probabilities_come_from_the_spelling_where_a_server_knows_no_token_ids() -> None:
    likeliest = [{"token": " B", "logprob": -0.1}, {"token": "A", "logprob": -2.4}]
    document = {"choices": [{"logprobs": {"content": [{"top_logprobs": likeliest}]}}]}
    scores = read(scoring(-2, [], ("A", "B")), document).scores
    assert scores[1] > 0.85
    assert sum(scores) == pytest.approx(1)
    assert Wire((MODEL,)).body(scoring(-2, [], ("A", "B")))["top_logprobs"] == 20


def test_a_full_server_is_given_a_rest_and_not_left(tmp_path: Path, server: Server) -> None:
    server.holds, server.latency = 2, 0.002
    notes = Notes()
    make(tmp_path / "run", server, max_num_seqs=6, count=60, notes=notes)
    is_exact(tmp_path / "run", 60)
    assert not any("it is left" in said for said in notes.said)
    assert server.asked["/v1/models"] == 2  # once for its name, once before the run


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
        notes.on_note = lambda said: coming.start() if "waiting for" in said else None
        told = {"max_num_seqs": None, "model": MODEL, "servers": 2, "count": 1000}
        make(tmp_path / "run", str(folder), notes=notes, **told)
        assert RunDirectory(tmp_path / "run").read_config().identity.window > 40
        assert late.answered


def test_a_run_that_began_with_fewer_servers_says_that_it_cannot_fill_them(
    tmp_path: Path, server: Server, other: Server
) -> None:
    make(tmp_path / "run", server, count=50, window=4)
    notes = Notes()
    make(tmp_path / "run", server, other, count=100, window=4, notes=notes)
    assert any("hold 8 requests at once, and this run has no more than 4" in said for said in notes.said)


def test_a_model_without_a_system_role_is_asked_without_one(tmp_path: Path, server: Server) -> None:
    server.system_role = False
    make(tmp_path / "run", server, model=MODEL)
    is_exact(tmp_path / "run", 60)
    assert {message["role"] for message in server.bodies[-1]["messages"]} == {"user"}


@pytest.mark.parametrize("card", [{"id": {}}, {"id": MODEL, "max_model_len": float("inf")}, {"id": [1]}])
def test_a_card_that_makes_no_sense_does_not_end_a_run(
    tmp_path: Path, server: Server, other: Server, card: Any
) -> None:
    server.card = card
    make(tmp_path / "run", server, other, model=MODEL)
    is_exact(tmp_path / "run", 60)


def test_an_empty_folder_is_waited_at_and_then_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "servers").mkdir()
    notes = Notes()
    with pytest.raises(ServersGone, match=r"no server has come to .*servers"):
        make(tmp_path / "run", str(tmp_path / "servers"), notes=notes, wait=0.1)
    assert any("waiting for a server to come" in said for said in notes.said)


def test_servers_that_stay_ill_use_up_the_patience(tmp_path: Path, server: Server) -> None:
    def fall_ill(number: int) -> None:
        if number == 5:
            server.fault = broken

    server.on_answer = fall_ill
    with pytest.raises(ServersGone, match="out of cheese"):
        make(tmp_path / "run", server, wait=2.0)
    assert examples(tmp_path / "run")
