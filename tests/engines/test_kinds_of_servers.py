"""Every kind of OpenAI-compatible server is used as it should be, or refused in one line before the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datacreate.errors import EngineError, ServersGone
from datacreate.runs.directory import RunDirectory
from tests.engines.asking import YES_NO, Notes, is_exact, make
from tests.servers import Server


def roles(server: Server) -> set[str]:
    return {message["role"] for body in server.bodies[-5:] for message in body["messages"]}


def field(name: str) -> Callable[[str], dict[str, Any]]:
    return lambda text: {"content": None, name: text}


USED: dict[str, tuple[dict[str, Any], Callable[[Server], bool]]] = {
    "vLLM": ({}, lambda server: any("logprob_token_ids" in body for body in server.bodies)),
    "llama.cpp": (
        {"kind": "llamacpp", "slots": 8},
        lambda server: any(body.get("grammar", "").startswith("%llguidance") for body in server.bodies),
    ),
    "llama.cpp without llguidance": (
        {"kind": "llamacpp", "slots": 8, "guided": False},
        lambda server: not any("grammar" in body for body in server.bodies[-20:]),
    ),
    "only models and chat completions": ({"kind": "bare"}, lambda server: True),
    "no system role: 400": ({"system_role": 400}, lambda server: roles(server) == {"user"}),
    "no system role: 500": ({"kind": "bare", "system_role": 500}, lambda server: roles(server) == {"user"}),
    "no system role in llama.cpp": (
        {"kind": "llamacpp", "slots": 8, "system_role": 500},
        lambda server: roles(server) == {"user"},
    ),
    "code fences": ({"says": lambda text: {"content": f"Sure:\n```json\n{text}\n```"}}, lambda server: True),
    "all in reasoning_content": ({"says": field("reasoning_content")}, lambda server: True),
    "all in reasoning": ({"kind": "bare", "says": field("reasoning")}, lambda server: True),
    "thinking aloud": (
        {"says": lambda text: {"content": f"<think>\nA list [1, 2], then?\n</think>\n{text}"}},
        lambda server: True,
    ),
}


@pytest.mark.parametrize("kind", USED)
def test_a_server_that_does_what_is_needed_is_used(tmp_path: Path, kind: str) -> None:
    features, holds = USED[kind]
    with Server(**features) as server:
        summary = make(tmp_path / "run", server, example=YES_NO, verify="keep", count=20)
        is_exact(tmp_path / "run", 20)
        assert summary["verification"]["scored"] >= 20
        assert holds(server)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "ignores response_format": ({"kind": "bare", "obeys": False}, "ignores the JSON Schema: .*Good morning"),
    "ignores the grammar": ({"kind": "llamacpp", "slots": 8, "obeys": False}, "ignores the JSON Schema"),
    "refuses every schema": (
        {"fault": lambda handler, body: handler.reply({"error": "no schemas"}, 400)},
        "refused the self-test: HTTP 400: no schemas",
    ),
    "ignores logprobs": (
        {"kind": "bare", "scores": "none"},
        "returns no probabilities for label scoring: it returns no logprobs",
    ),
    "names no choice": ({"scores": "others"}, "its logprobs contain none of the choices"),
    "names no choice, as llama.cpp": (
        {"kind": "llamacpp", "slots": 8, "scores": "others"},
        "its logprobs contain none of the choices",
    ),
    "scores that do not depend on the question": ({"scores": "uniform"}, "do not depend on the question"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_server_that_does_not_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    features, says = REFUSED[kind]
    with Server(**features) as server, pytest.raises(EngineError, match=says) as refused:
        make(tmp_path / "run", server, example=YES_NO, verify="keep", count=20)
    assert not isinstance(refused.value, ServersGone)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_server_without_logprobs_writes_where_nothing_is_verified(tmp_path: Path) -> None:
    with Server(kind="bare", scores="none") as server:
        make(tmp_path / "run", server)
        is_exact(tmp_path / "run", 40)


def test_the_schema_of_the_run_itself_is_tried_first(tmp_path: Path) -> None:
    def choosy(handler: Any, body: dict[str, Any]) -> None:
        if "enum" in str(body["response_format"]):
            return handler.reply({"error": {"message": "enum is not supported"}}, 400)
        return handler.reply(handler.owner.answer(body))

    says = "refused the schema of this run: HTTP 400: enum is not supported"
    with Server(kind="bare", fault=choosy) as server, pytest.raises(EngineError, match=says):
        make(tmp_path / "run", server, example={"text": "fine", "mood": "good"}, labels={"mood": "good,bad"},
             method="paper")  # fmt: skip


def test_queued_requests_of_a_server_with_one_slot_do_not_time_out(tmp_path: Path) -> None:
    """Eight requests wait for one slot, together for longer than the timeout; one is answered at a time."""
    notes = Notes()
    with Server(kind="bare", slots=1, latency=0.3) as server:
        make(tmp_path / "run", server, max_num_seqs=8, num_examples=2, count=20, request_timeout=2.0,
             notes=notes)  # fmt: skip
        assert server.most_out == 8
    is_exact(tmp_path / "run", 20)
    assert not notes.has("suspended")


def test_llama_cpp_is_given_no_more_than_its_slots(tmp_path: Path) -> None:
    with Server(kind="llamacpp", slots=2, latency=0.01) as server:
        make(tmp_path / "run", server, max_num_seqs=None)
        assert server.most_out <= 2
    engine = RunDirectory(tmp_path / "run").read_config().engines["engine"]
    assert (engine["max_num_seqs"], engine["max_model_len"], engine["server"]) == ([2], 4096, "llama.cpp b0")


def test_unset_sampling_is_sent_as_neutral_values(tmp_path: Path, server: Server) -> None:
    make(tmp_path / "run", server)
    body = server.bodies[-1]
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (1.0, 1.0, 0, 0.0)
    assert body["repetition_penalty"] == 1.0
