"""Models that think before they answer: how they are switched, where their thoughts go, and who may not think."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from datacreate.checkpoints.checkpoint import resolve
from datacreate.checkpoints.presets import Preset
from datacreate.commands.filter_rows import FilterConfig, filter_rows
from datacreate.commands.zero_shot import answer_zero_shot
from datacreate.engines import EngineOptions
from datacreate.engines.factory import LocalModel, make_client
from datacreate.engines.llamacpp import LLAMACPP
from datacreate.engines.request import DEFAULT_THINKING, Request, Sampling
from datacreate.errors import RunMismatch, UsageError
from datacreate.messages import Progress
from datacreate.runs.directory import RunDirectory
from datacreate.runs.stats import summary_fields
from tests.engines.helpers import MESSAGES, YES_NO, Notes, answers, make
from tests.support.making import commits, examples
from tests.support.servers import MODEL, Server
from tests.support.tiny_model import THINKING_TEMPLATE, write_gguf

THOUGHT = "Which places are wet? Perhaps [1]."
SWITCHES = """{enable: {enable_thinking: true}, disable: {enable_thinking: false}, sampling: {temperature: 0.6}}"""
ALWAYS = "{enable: {reasoning_effort: low}, has_limit: false}"

WritePreset = Callable[[str | None], None]


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WritePreset:
    """Makes a preset of the served model with this `thinking`."""
    monkeypatch.setenv("DATACREATE_HOME", str(data_folder := tmp_path / "data"))
    (data_folder / "presets").mkdir(parents=True)

    def write(thinking: str | None) -> None:
        text = "kind: instruct\ndescription: d\nlicense: MIT\nsize_bytes: 5\nsources: [{hub: org/mine}]\n"
        text += f"thinking: {thinking}\n" if thinking else ""
        (data_folder / "presets" / f"{MODEL}.yaml").write_text(text)

    return write


def in_field(field: str) -> Callable[[str], dict[str, Any]]:
    return lambda text: {"content": text, field: THOUGHT}


@pytest.mark.parametrize(
    ("features", "limit_field", "counted"),
    [
        ({"says": in_field("reasoning"), "thought": 30}, "thinking_token_budget", 30),
        ({"kind": "llamacpp", "says": in_field("reasoning_content")}, "thinking_budget_tokens", None),
        ({"kind": "bare", "says": lambda text: {"content": f"<think>{THOUGHT}</think>{text}"}}, None, None),
    ],
    ids=["vLLM", "llama.cpp", "in the text"],
)
def test_thoughts_are_in_the_log_and_not_in_the_data(
    tmp_path: Path, features: dict[str, Any], limit_field: str | None, counted: int | None
) -> None:
    run = tmp_path / "run"
    with Server(**features) as server:
        make(run, server, thinking=300, count=20)
        summary = make(run, server, thinking=300, count=40)  # resumed
        body = server.bodies[-1]
        with pytest.raises(RunMismatch, match=r"--thinking: 300 stored, 2048 requested"):
            make(run, server, thinking="on", count=40)
        with pytest.raises(RunMismatch, match=r"--thinking: 300 stored, none requested"):
            make(run, server, count=40)
    sampling = RunDirectory(run).read_config().spec.sampling
    assert body["max_tokens"] == sampling["max_tokens"] + 300
    assert body.get(limit_field or "") == (300 if limit_field else None)
    assert "response_format" in body  # llama.cpp's own grammar would leave no room for thoughts
    assert "Perhaps" not in (run / "train.jsonl").read_text()
    assert {commit.thoughts for commit in commits(run)} == {THOUGHT}
    tokens = [commit.thinking_tokens for commit in commits(run)]
    assert all(0 < each < commit.generated_tokens for each, commit in zip(tokens, commits(run), strict=True))
    assert counted is None or set(tokens) == {counted}
    assert summary["thinking_tokens"] == sum(tokens)
    assert f"of which {sum(tokens)} thinking" in summary_fields(summary)["cost"]


def test_a_model_thinks_when_it_writes_and_not_when_it_scores(
    tmp_path: Path, server: Server, preset: WritePreset
) -> None:
    preset(SWITCHES)
    server.says = in_field("reasoning")
    make(tmp_path / "run", server, model=MODEL, example=YES_NO, verify="keep", count=20, thinking="on")
    asked = {bool(body.get("logprobs")): body for body in server.bodies}
    assert asked[False]["chat_template_kwargs"] == {"enable_thinking": True}
    assert (asked[False]["thinking_token_budget"], asked[False]["temperature"]) == (DEFAULT_THINKING, 0.6)
    assert asked[True]["chat_template_kwargs"] == {"enable_thinking": False}
    assert asked[True]["max_tokens"] == 1
    make(tmp_path / "off", server, model=MODEL, count=20)
    assert server.bodies[-1]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "thinking_token_budget" not in server.bodies[-1]


def test_a_model_that_must_think_has_room_for_it(tmp_path: Path, server: Server, preset: WritePreset) -> None:
    preset(ALWAYS)
    make(tmp_path / "run", server, model=MODEL, count=20, chat_template_kwargs={"reasoning_effort": "high"})
    assert all(body["max_tokens"] > DEFAULT_THINKING for body in server.bodies)  # also those of the server tests
    body = server.bodies[-1]
    assert body["reasoning_effort"] == body["chat_template_kwargs"]["reasoning_effort"] == "high"
    assert "thinking_token_budget" not in body


def test_the_recipe_does_not_verify_with_a_model_that_always_thinks(
    tmp_path: Path, server: Server, preset: WritePreset
) -> None:
    preset(ALWAYS)
    for count in (20, 30):
        notes = Notes()
        make(tmp_path / "run", server, notes=notes, model=MODEL, example=YES_NO, verify=None, count=count)
        says = f"recipe best: strategy tree, answers are not verified: {MODEL} always thinks"
        assert notes.messages[0].startswith(says)
    assert RunDirectory(tmp_path / "run").read_config().spec.verification is None
    assert not any("logprobs" in body for body in server.bodies)


def test_an_answer_that_is_only_thoughts_is_a_reject(tmp_path: Path) -> None:
    def thinking(text: str) -> dict[str, Any]:
        draft = server.answered % 2 == 0 and server.answered > 0
        return {"content": "" if draft else text, "reasoning": text}

    with Server(says=thinking, slots=1) as server:
        make(tmp_path / "run", server, thinking=100)
    rejected = [commit for commit in commits(tmp_path / "run") if commit.rejects]
    assert {reject.reason for commit in rejected for reject in commit.rejects} == {"no_response"}
    assert all(commit.thoughts for commit in rejected)
    assert len(examples(tmp_path / "run")) == 40


@pytest.mark.skipif(not LLAMACPP.build(), reason="llama.cpp (xllamacpp) is not installed here")
def test_llama_cpp_applies_the_grammar_after_the_thoughts(tmp_path: Path) -> None:
    preset = Preset.model_validate(
        {"name": "tiny", "kind": "instruct", "description": "d", "license": "MIT", "size_bytes": 5}
        | {"sources": [{"hub": "org/tiny"}], "thinking": yaml.safe_load(SWITCHES)}
    )
    model = write_gguf(tmp_path / "tiny.gguf", template=THINKING_TEMPLATE)
    checkpoint = replace(resolve(str(model), "instruct"), preset=preset)
    options = EngineOptions(engine="llamacpp", max_num_seqs=2, max_model_len=1024)
    item = {"prefixItems": [{"const": "a b"}, {"enum": [1, 2]}]}
    schema = json.dumps({"type": "array", **item, "minItems": 2, "maxItems": 2})
    with closing(make_client(LocalModel(checkpoint, options), count=5)) as client:
        client.start()
        usual, thought = answers(
            client,
            Request(0, MESSAGES, schema, Sampling(200)),
            Request(1, MESSAGES, schema, Sampling(200, thinking=20)),
        )
    assert [json.loads(answer.text)[0] for answer in (usual, thought)] == ["a b"] * 2
    assert (usual.thoughts, usual.thinking_tokens) == ("", 0)
    assert thought.thoughts
    assert 0 < thought.thinking_tokens < thought.generated_tokens


@pytest.mark.parametrize(
    ("thinking", "settings", "says"),
    [
        (ALWAYS, {"thinking": "off"}, f"--thinking off: {MODEL} always thinks; remove it"),
        (ALWAYS, {"verify": "keep"}, f"{MODEL} always thinks before it answers, so it cannot score labels"),
        (SWITCHES, {"chat_template_kwargs": {"enable_thinking": True}}, "--chat-template-kwargs enable_thinking: "),
        (None, {"thinking": "on"}, f"--thinking on: {MODEL} does not think; remove it"),
        (None, {"thinking": 0}, "--thinking 0: give on, off or a number of tokens"),
        (SWITCHES, {"thinking": 4000}, "4000 tokens of thinking and 1 new example.* --thinking"),
    ],
)  # fmt: skip
def test_thinking_that_is_not_possible_is_refused_in_one_line(
    tmp_path: Path, server: Server, preset: WritePreset, thinking: str | None, settings: dict[str, Any], says: str
) -> None:
    preset(thinking)
    with pytest.raises(Exception, match=says) as refused:
        make(tmp_path / "run", server, model=MODEL, example=YES_NO, **settings)
    assert "\n" not in str(refused.value)
    assert not server.answered


def test_only_a_model_that_can_be_kept_from_thinking_scores_labels(
    tmp_path: Path, server: Server, preset: WritePreset
) -> None:
    preset(ALWAYS)
    says = f"^{MODEL} always thinks before it answers, so it cannot score labels by their first tokens; use another"
    with pytest.raises(UsageError, match=says):
        make(tmp_path / "run", server, model="other", verifier=MODEL, example=YES_NO, verify=None)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(YES_NO | {'question': f'Is {n} odd?'})}\n" for n in range(3)))
    settings = FilterConfig.of(verifier=MODEL, decontaminate=(), labels={"label": "yes,no"}, url=(server.url,))
    with pytest.raises(UsageError, match=says):
        filter_rows(rows, settings, out=tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match=says):
        answer_zero_shot(MODEL, ["boolq"], tmp_path / "out", Progress(), options=settings)
    assert not server.bodies


@pytest.mark.parametrize("thinking", [True, False, None])  # how YAML reads on and off
def test_without_a_preset_the_usual_switch_is_used(tmp_path: Path, server: Server, thinking: bool | None) -> None:
    make(tmp_path / "run", server, example=YES_NO, verify="keep", count=20, thinking=thinking)
    asked = {bool(body.get("logprobs")): body.get("chat_template_kwargs") for body in server.bodies}
    wanted = None if thinking is None else {"enable_thinking": False}
    assert asked == {True: wanted, False: {"enable_thinking": True} if thinking else wanted}
