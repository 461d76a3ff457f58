"""Every kind of OpenAI-compatible server is used as it should be, or refused in one line before the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest

from datacreate.errors import EngineError, ServersUnavailable
from datacreate.runs.directory import RunDirectory
from tests.engines.helpers import YES_NO, Notes, make
from tests.support.servers import MODEL, Handler, Server, refusing, sending, until

LLAMACPP = {"kind": "llamacpp", "slots": 8}


def user_role_only(server: Server) -> bool:
    return {message["role"] for body in server.bodies[-5:] for message in body["messages"]} == {"user"}


USED: dict[str, tuple[dict[str, Any], Callable[[Server], bool]]] = {
    "vLLM": ({}, lambda server: any("logprob_token_ids" in body for body in server.bodies)),
    "vLLM without structural tags": (
        {"own_schema_field": False},
        lambda server: not any("structural_tag" in str(body) for body in server.bodies[-20:]),
    ),
    "llama.cpp": (LLAMACPP, lambda server: any("%llguidance" in body.get("grammar", "") for body in server.bodies)),
    "llama.cpp without llguidance": (
        LLAMACPP | {"own_schema_field": False},
        lambda server: not any("grammar" in body for body in server.bodies[-20:]),
    ),
    "only models and chat completions": ({"kind": "bare"}, bool),
    "nonsense in its list of models": (
        {"cards": [{"id": [1]}, 7, {"id": MODEL, "max_model_len": 1e999}]},
        lambda server: bool(server.answered),
    ),
    "a web page at every other path": ({"kind": "bare", "page": b"<html>Hello</html>"}, bool),
    "no system role: 400": ({"system_role": 400}, user_role_only),
    "no system role: 500": ({"kind": "bare", "system_role": 500}, user_role_only),
    "no system role in llama.cpp": (LLAMACPP | {"system_role": 500}, user_role_only),
    "code fences": ({"says": lambda text: {"content": f"Sure:\n```json\n{text}\n```"}}, bool),
    "answer in reasoning": ({"kind": "bare", "says": lambda text: {"content": None, "reasoning": text}}, bool),
}  # fmt: skip


@pytest.mark.parametrize("kind", USED)
def test_a_compatible_server_is_used(tmp_path: Path, kind: str) -> None:
    features, holds = USED[kind]
    with Server(**features) as server:
        summary = make(tmp_path / "run", server, example=YES_NO, verify="keep", count=20)
    assert summary["verification"]["scored"] >= 20
    assert holds(server)


@pytest.mark.parametrize(
    ("kind", "path", "status"),
    [
        ("vllm", "/version", 429), ("vllm", "/tokenize", 503), ("llamacpp", "/props", 429),
        ("llamacpp", "/apply-template", 429), ("llamacpp", "/tokenize", 503),
    ],
)  # fmt: skip
def test_a_server_that_is_busy_before_the_first_request_is_asked_again(
    tmp_path: Path, kind: Any, path: str, status: int
) -> None:
    with Server(kind=kind, once={path: status}) as server:
        make(tmp_path / "run", server, wait=60.0)
    assert not server.once
    engine = RunDirectory(tmp_path / "run").read_config().engines["engine"]
    assert engine["server"] == {"vllm": "vLLM 0.0 (scripted)", "llamacpp": "llama.cpp b0"}[kind]


THINKS = "it thinks before it answers .* --chat-template-kwargs enable_thinking=false"
NO_MODEL = "it serves no model with a printable name; load one, or rename it"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "ignores response_format": ({"kind": "bare", "obeys": False}, "ignores the JSON Schema: .*Good morning"),
    "ignores the grammar": (LLAMACPP | {"obeys": False}, "ignores the JSON Schema"),
    "refuses every schema": ({"fault": refusing(400, "no schemas")}, "failed the schema test: HTTP 400: no schemas;"),
    "ignores logprobs": (
        {"kind": "bare", "scores": "none"},
        "returns no probabilities for label scoring: it returns no logprobs; .* --verify off",
    ),
    "scores other tokens": (LLAMACPP | {"scores": "others"}, "its logprobs contain none of the choices"),
    "scores that do not depend on the question": ({"scores": "uniform"}, "do not depend on the question"),
    "token texts instead of ids": ({"tokens": ["a", "b"]}, "/tokenize returns no list of token ids"),
    "a text instead of token ids": ({"tokens": "abc"}, "/tokenize returns no list of token ids"),
    "no model": ({"cards": []}, NO_MODEL),
    "a colour in its name": ({"cards": [{"id": "\x1b[31mred"}]}, NO_MODEL),
    "thinks": ({"says": lambda _: {"content": ""}, "reason": "length"}, THINKS),
    "no such path": ({"models_status": 404}, r"no OpenAI-compatible server .* HTTP 404: .*\); check --url"),
    "no chat": ({"fault": sending("<html>No", 404)}, r"chat/completions returns HTTP 404: <html>No\); check --url"),
    "two models": ({"cards": [{"id": "a"}, {"id": "b"}]}, "it serves a, b; select one with --model"),
    "no list of models": ({"cards": "many"}, "no OpenAI-compatible server at this address"),
    "a web page": ({"page": b"<html>Hello</html>", "cards": b"<html>"}, "no OpenAI-compatible server at this address"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_an_incompatible_server_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    features, says = REFUSED[kind]
    with Server(**features) as server, pytest.raises(EngineError, match=says) as refused:
        make(tmp_path / "run", server, example=YES_NO, verify="keep", count=20)
    assert not isinstance(refused.value, ServersUnavailable)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_without_verification_no_logprobs_are_needed(tmp_path: Path) -> None:
    with Server(kind="bare", scores="none") as server:
        make(tmp_path / "run", server)


def test_the_schema_of_the_run_is_tried_first(tmp_path: Path) -> None:
    def choosy(handler: Handler, body: dict[str, Any]) -> None:
        if "enum" in str(body["response_format"]):
            return handler.reply({"error": {"message": "enum is not supported"}}, 400)
        return handler.reply(handler.owner.answer(body))

    says = "failed the test with the schema of this run: HTTP 400: enum is not supported"
    with Server(kind="bare", fault=choosy) as server, pytest.raises(EngineError, match=says):
        make(tmp_path / "run", server, example={"text": "fine", "mood": "good"}, labels={"mood": "good,bad"},
             recipe="paper")  # fmt: skip


class Thinking(Server):
    """Refuses every prompt, also one whose tokens it should count, until thinking is switched off."""

    def handle(self, handler: Handler, body: Any) -> None:
        if body and "messages" in body and body.get("chat_template_kwargs") != {"enable_thinking": False}:
            return handler.reply({"error": {"message": "thinking"}}, 400)
        return super().handle(handler, body)


@pytest.mark.parametrize("kind", ["bare", "vllm", "llamacpp"])
def test_the_template_switches_are_in_every_request_with_a_prompt(tmp_path: Path, kind: Any) -> None:
    with Thinking(kind=kind) as server:
        make(tmp_path / "run", server, chat_template_kwargs={"enable_thinking": False})


def test_the_context_is_the_users_where_the_server_tells_none(tmp_path: Path) -> None:
    for kind, max_context in (("bare", 9000), ("vllm", 4096)):
        with Server(kind=kind) as server:  # type: ignore[arg-type]
            make(tmp_path / kind, server, max_model_len=9000)
        engine = RunDirectory(tmp_path / kind).read_config().engines["engine"]
        assert engine["max_model_len"] == max_context


def test_queued_requests_of_a_server_with_one_slot_do_not_time_out(tmp_path: Path) -> None:
    """Nine requests wait for one slot, together for longer than the timeout; one is answered at a time."""
    notes = Notes()
    with Server(kind="bare", slots=1, latency=0.3) as server:
        make(tmp_path / "run", server, max_num_seqs=8, num_examples=2, count=20, request_timeout=2.0,
             notes=notes)  # fmt: skip
    assert server.max_out == 9
    assert not notes.has("suspended")


@pytest.mark.parametrize(("slots", "in_flight"), [(1, 2), (4, 5), (16, 18)])
def test_in_flight_are_the_slots_and_a_short_queue(tmp_path: Path, slots: int, in_flight: int) -> None:
    def wait_for_all(handler: Handler, body: dict[str, Any]) -> None:
        until(lambda: handler.owner.max_out >= in_flight)
        handler.reply(handler.owner.answer(body))

    with Server(kind="llamacpp", slots=slots, fault_after=0, later_fault=wait_for_all) as server:
        server._slots = Semaphore(in_flight)  # all are counted before one is answered
        make(tmp_path / "run", server, max_num_seqs=None, count=100, num_examples=2, strategy="naive")
    assert server.max_out == in_flight
    engine = RunDirectory(tmp_path / "run").read_config().engines["engine"]
    assert (engine["max_num_seqs"], engine["max_model_len"], engine["server"]) == ([slots], 4096, "llama.cpp b0")
